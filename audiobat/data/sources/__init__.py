"""Folders, lists, tars and data sets to a clip table: one file for each layout.

catalog.py      public data sets by name, and where a user gets each
lists.py        a list of clips, or of events in them, as a CSV; every value checked
parquet.py      the same as a Parquet file
folders.py      a folder of recordings, or of one folder per class
annotations/    tables and label tracks of other programs, one file each
relabel.py      labels from a column, renamed, dropped, or taken as background
inside.py       events behind the end of their recording
tar_members.py  the headers of a tar to its members
tar_fields.py   what JSON and texts beside a recording tell of it
tar_clips.py    one tar to its clips
tar_table.py    the clips of many tars to one table
tars.py         patterns, folders, lists and URLs of tars
public/         public data sets, one file each
read.py         any of these, as --data names it
"""
