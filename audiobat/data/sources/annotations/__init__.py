"""Annotations as other programs write them, to a clip table with events: selection tables, label tracks, result lists.

In: files of text beside recordings, or one file for many of them. Out: rows (recording, onset, offset, label, score),
and a clip table whose recordings have events. A file says by its content which form it has, never by its name.

    rows.py        one annotation, and how a time or a label is read and refused
    text_table.py  text with a header, separated by tabs, commas or semicolons, to columns
    forms.py       which columns of which program hold the file, the times, the label and the score
    audacity.py    Audacity's label tracks
    textgrid.py    Praat's TextGrids
    one_file.py    any such file to its rows
    matching.py    which recording a file, or a row in it, belongs to
    tables.py      files and recordings to a clip table
"""
