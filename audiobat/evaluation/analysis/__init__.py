"""Measures of features, attention and prototypes besides a score: tensors in, plain numbers out.

rank.py         vectors to mean and scatter; spectra to RankMe, effective rank, LiDAR
similarity.py   how alike layers are: linear CKA
views.py        a clip to several views of it
attention.py    attention maps to shares and sinks (Fig. 5)
prototypes.py   how a CGP head's prototypes are used
label_free.py   all measures of frozen features that need no labels
"""
