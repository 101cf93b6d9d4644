"""Faults: verbs that are killed, stopped and starved of disk at random instants, and files that are damaged.

`python -m tests.faults` does the long form and prints a table; the tests here do a short one of it:

    verbs.py     the verbs, on models and clips so small that a run takes a second
    injure.py    how a process or a file is hurt
    same.py      whether two folders hold the same results
    campaign.py  a verb is hurt at random, run again by the same command to its end, and held against an undisturbed run
    soak.py      two ranks for an hour, killed again and again; memory and open files of runs that nobody disturbs
"""
