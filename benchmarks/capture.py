"""What capturing costs: against the bare forward pass, the usual script, peers, and itself.

    a  overhead: geomkit's forward pass and its whole capture over the bare forward pass; the floor
    b  the usual script (`output_hidden_states=True`, keep, save at the end): time, memory, disk
    c  nnsight, baukit and transformers' hidden states, pooling the same sites the same way
    d  a second checkpoint on the same towers, in one run and in a run of its own
    e  peak memory from 1,000 to 10,000 samples

Only ratios within one run mean something elsewhere. The same thing measured twice ("A/A") says how
far a ratio can be trusted.

    python benchmarks/capture.py --only a,c --threads 2
    python benchmarks/capture.py --only a,c --device cuda --dtype bfloat16 --size 7b
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a script, from anywhere

from benchmarks import children, growth, models, others, overhead, sharing
from benchmarks.lines import Line, Setup, markdown
from geomkit.checkpoints import DTYPES

SECTIONS: dict[str, Callable[[Setup], list[Line]]] = {
    "a": overhead.overhead,
    "b": others.usual_script,
    "c": others.other_tools,
    "d": sharing.second_checkpoint,
    "e": growth.memory_by_rows,
}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, as in a,c")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print the lines as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--size", choices=models.SIZES, help="model of a and c")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        children.answer(asked.child)
        return
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(prefix="geomkit-benchmark-") as scratch:
        size = asked.size or ("tiny" if asked.quick else "360m")
        setup = Setup(asked.quick, asked.threads, asked.device, asked.dtype, size, Path(scratch))
        lines = [line for name in asked.only.split(",") for line in SECTIONS[name](setup)]
        print(json.dumps([asdict(one) for one in lines]) if asked.json else markdown(lines, setup))


if __name__ == "__main__":
    main()
