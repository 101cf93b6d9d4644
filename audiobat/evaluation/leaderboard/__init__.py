"""A file of results that grows, from many runs and people, and the order of the models in it.

board.py        result records to lines of a file, each with its own hash, and back
run.py          `audiobat leaderboard`
"""
