"""An evaluation of detections (`audiobat evaluate`) to the sections of a page, and to the sounds that it plays.

evaluation.py    the folder of an evaluation, read
sounds.py        recordings to MP3 files and spectrograms beside the page
score_tracks.py  scores of windows or frames as the page holds them
timeline.py      recordings with truth, detections and scores on a line of time
tables.py        numbers of levels, classes and recordings
figures.py       curves over thresholds, the confusion matrix
mistakes.py      the worst misses and false alarms, to play
sections.py      all of it, in the order of the page
"""
