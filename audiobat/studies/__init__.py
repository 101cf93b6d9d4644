"""Runs made of runs: the demo, the ladder of Tables 2 to 4, grids, benchmarks (Tables 1 and 5), suites of data sets.

demo_report.py  the demo's results to a table, pictures and words
demo.py         `audiobat demo`
beside.py       our numbers beside the paper's: intervals, tables for a terminal, a figure
ladder_steps.py  records of a ladder to its rungs and steps: tables, verdicts, a figure
ladder_plan.py  the seeds that a difference needs, and the hours of a ladder
ladder.py       `audiobat ladder`
runs.py         what runs made of runs share: one after the other, and a failure stops none of the others
grid.py         `--grid.FIELD` of `audiobat pretrain` and `finetune`: a run for each combination of values
benchmark_cells.py  a benchmark's config to its runs
benchmark_plan.py  what can run, what is missing, and the hours
benchmark.py    `audiobat benchmark`
suite.py        `audiobat suite`
"""
