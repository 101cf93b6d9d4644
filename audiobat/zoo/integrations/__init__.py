"""Our encoders, or any that `audiobat.load` knows, as other evaluation kits expect them; imported only on demand.

frames.py       one block as a vector for each column of time
hear.py         HEAR
mteb.py         MTEB's audio benchmarks
s3prl.py        s3prl and SUPERB
xares.py        X-ARES
"""
