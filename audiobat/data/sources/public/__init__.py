"""Public data sets, one file each: the layout in which people have it, to a clip table (see `sources/catalog.py`).

text_files.py       CSVs, lines and JSON of public data sets to Python values
audioset.py         AudioSet
beans.py            BEANS
birdset.py          BirdSet
dcase2016.py        DCASE 2016 Task 2
esc50.py            ESC-50
fsd50k.py           FSD50K
librispeech.py      LibriSpeech
speech_commands.py  Speech Commands v2
"""
