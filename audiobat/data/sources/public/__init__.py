"""Public data sets, one file each: the layout in which people have it, to a clip table (see `catalog.py` of the room).

lists.py            the CSVs, lines and JSON that they come with
audioset.py         AudioSet
audioset_coverage.py  how much of AudioSet is here
beans.py            BEANS
birdset.py          BirdSet
dcase2016.py        DCASE 2016 Task 2
esc50.py            ESC-50
fsd50k.py           FSD50K
speech_commands.py  Speech Commands v2
"""
