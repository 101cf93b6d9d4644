"""Targets: what the student predicts of each clip (Section 3, Table 3). Each file is a kind, named by `target.source`.

base.py     the protocol, and the normalisation of targets
teacher.py  the EMA teacher, from whose layers `block` and `mlp` take their targets
"""
