"""`audiobat analyze`: what a model's blocks, attention and prototypes do, as numbers and figures (Fig. 2 to 6).

measures.py     clips to ranks, sinks, probes of every block and CGP of several sizes, use of prototypes
pictures.py     clips to pictures
run.py          `audiobat analyze`: analysis.json and a table
"""
