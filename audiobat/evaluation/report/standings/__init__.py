"""Models on many data sets: a table with mean ranks, Friedman's test, the critical difference, and who wins how often.

places.py       rows and verdicts to standings
tables.py       standings to tables, for files, a page and a terminal
figure.py       mean ranks on a line, with bars over the models that do not differ (Demsar, Fig. 1)
"""
