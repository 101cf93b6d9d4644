"""Tables, figures and the page: they read result records only.

rows.py         one model under one head on one data set
curves.py       curves over blocks and prototype counts
collect.py      files of records to rows and curves
marks.py        which rows win, tie and lose
paper_tables.py  Table 1 and Table 5
render.py       a table to Markdown, LaTeX, CSV
style.py        how figures look
record_figures.py  figures of rows and curves
ladder_figure.py   the ladder
benchmark_figure.py  a benchmark
tables.py       records to one table for a terminal
figures.py      signals and logs to figures
analysis_figures.py  what `analyze` measured
prose.py        a line of Markdown to HTML
assets.py       style and scripts of pages
clips.py        the clips that a run folder keeps for pages
charts.py       curves as SVG inside the page
results_table.py  the page's table
page.py         the demo's page
listening.py    the part of the page with clips to hear
overview.py     the report's page
run_clips.py    the clips of run folders for the page
run_figures.py  every figure that the records allow
run.py          `audiobat report`
"""
