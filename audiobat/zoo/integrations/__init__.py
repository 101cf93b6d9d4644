"""Encoders in the form that other evaluation kits expect; imported only on demand.

In: whatever `--model` takes. Out: the class or the functions that a kit looks for.

frames.py       one block as a vector for each column of time
hear.py         HEAR
mteb.py         MTEB's audio benchmarks
s3prl.py        s3prl and SUPERB
xares.py        X-ARES
"""
