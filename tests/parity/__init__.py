"""Parity: the package beside plain implementations of what its sources do, from the same weights and draws.

`python -m tests.parity` prints the tables of differences; with `--write` it puts them into docs/parity.md, too:

    precision.py  the package in float64
    plain/        what the sources do, without the package
    rows/         the package beside it: what is run, and rows of the table
    table.py      all rows, and the page that shows them
"""
