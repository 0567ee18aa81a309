"""What people look at of a run: made from its states for the page, and read by no verdict.

records     what is made, as arrays and numbers; all that the page imports
partners    rows -> which rows are two views of one sample
closeness   states of one site -> nearest rows, and how near a sample's own other view is
pairs       states of one site -> cosines of matched and of random pairs
spectra     states of one site -> singular values of each modality
changes     nearest rows before and after -> the samples that changed most
layouts     states of one site -> UMAP, kept in the run
album       a run -> all of it, each site read once
"""

from __future__ import annotations
