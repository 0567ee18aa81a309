"""Linear read-outs trained on stored states: what can be read, and does it cross modalities?

    split         who is held out: whole groups, the same ones in every checkpoint and modality
    tasks         the attributes of a run, and the rows that carry each of them
    transfer      put two modalities on one scale, with training rows only
    readouts      the linear classifiers, and their penalty
    control       the shuffled-label task that a probe must not solve
    linear        fit, test, compare before with after
    mdl           how few bits the labels take, given the states
    separability  can a read-out tell which modality a row is of?
    binding       does the change that text rows underwent foretell that of images and sounds?
    drift         how far did the states of the same rows move?
    suite         all of these for one site, or for a run

Of a run: `suite.probe_run`; site by site, in processes or after an interruption: `suite.probe_site`
and `Findings.of`.
"""
