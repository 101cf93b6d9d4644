"""Runs made of runs: the demo, the ladder of Tables 2 to 4, the benchmarks of Tables 1 and 5.

demo_report.py  what the demo computed, to pictures and words
demo.py         `audiobat demo`
ladder_table.py  rungs and their records to Tables 2 to 4
ladder.py       `audiobat ladder`
benchmark_cells.py  a benchmark's config to its runs
benchmark_cost.py   what a run will take
benchmark_plan.py   what can run and what is missing
benchmark_table.py  our numbers beside the paper's
benchmark.py    `audiobat benchmark`
"""
