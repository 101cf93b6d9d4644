"""Runs made of runs: the demo, the ladder of Tables 2 to 4, the benchmarks of Tables 1 and 5.

demo_table.py   the demo's records to one table
demo_report.py  the demo's results to pictures and words
demo.py         `audiobat demo`
tables.py       a number with its interval; tables for a terminal
figures.py      our numbers beside the paper's as figures
ladder.py       `audiobat ladder`
benchmark_cells.py  a benchmark's config to its runs
benchmark_plan.py  what can run, what is missing, and the hours
benchmark_table.py  our numbers beside the paper's
benchmark.py    `audiobat benchmark`
"""
