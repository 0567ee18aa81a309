"""How well a checkpoint finds: a retrieval suite of any paired samples, and benchmarks by mteb.

    samples -> capture -> ranks -> R@1, R@5, R@10, MRR both ways        `retrieval`, no network
    tasks   -> mteb over an encoder of ours -> scores, means            `benchmark`

Both show text and media as capture does, and read the state it reads: one processor, template and
prompt for all checkpoints, so that only weights differ.
"""

from geomkit.evaluation.retrieval import Retrieved, measure

__all__ = ["Retrieved", "measure"]
