"""`audiobat analyze`: what a model's blocks, attention and prototypes do, as numbers and figures (Fig. 2 to 6).

measures.py     features to ranks, sinks, use of prototypes
pictures.py     clips to pictures
probes.py       probes of every block and CGP of several sizes
summary.py      an analysis to analysis.json and a table
run.py          `audiobat analyze`
"""
