"""Folders, lists and data sets to a clip table: one file for each layout.

catalog.py      public data sets by name, and where a user gets each
lists.py        a list of clips, or of events in them, as a CSV; every value checked
parquet.py      the same as a Parquet file
folders.py      a folder of recordings, or of one folder per class
public/         public data sets, one file each
read.py         any of these, as --data names it
"""
