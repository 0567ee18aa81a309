"""What checkpoints are shown: from `--data` to samples, and from a sample to pixels and waveforms.

    samples      what `--data` may name, and the samples it stands for
    entries      one row of a table to one sample
    manifests    tables on disk; folders: media without a table; hosted: Hugging Face datasets
    suites       the caption suites of the field; captions: several of one item
    downloads    media behind URLs, where that is allowed
    sources      where encoded media lie; media: images and sounds; video: frames

Nothing is decoded before it is shown.
"""
