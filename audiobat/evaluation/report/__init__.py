"""Tables, figures and the page: they read result records, and the clips that runs keep to be played.

rows.py         one model under one head on one data set, seeds together
curves.py       curves over blocks (Fig. 4, 6) and prototype counts (Fig. 2)
collect.py      files of records to rows and curves
verdicts.py     which rows win, tie and lose
paper_tables.py  the layouts of Table 1 and Table 5
render.py       a table to Markdown, LaTeX, CSV
style.py        how figures look
record_figures.py  figures of rows and curves
figures.py      figures of waveforms, logs and attention (Fig. 3, 5)
analysis_figures.py  figures of the measures of `analyze`
web/            what pages are made of
confusions.py   confusion matrices, and what each class is taken for
listening/      the clips that run folders keep, to the page's clips to play
detections/     an evaluation of detections to the sections of a page
sound_map.py    a map of sounds to its page
standings/      models on many data sets, in the order of their mean ranks
page.py         the page, with its sortable table
run_figures.py  every figure that the records allow
run.py          `audiobat report`
"""
