"""Linear read-outs trained on stored states: what can be read, and does it cross modalities?

    split     who is held out: whole groups, the same ones in every checkpoint and modality
    tasks     the attributes of a run, and the rows that carry each of them
    transfer  put two modalities on one scale, with training rows only
    control   the shuffled-label task that a probe must not solve
    linear    fit, test, compare before with after

`probes.linear.probe_run(run)` does it all.
"""
