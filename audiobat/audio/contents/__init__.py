"""What a file holds, by its own frames, pages and chunks, where its header may be wrong about that.

In: the bytes of a file. Out: the recordings in it as libsndfile is to be given them, each with a right header,
or the file itself where that is right already. An ordinary file costs a look at its two ends.

    raw.py          bytes at any place; a file made of spans of another one
    chunks.py       WAV, RF64, W64, AIFF, CAF, AU: where the samples end
    flac.py         FLAC: the last frame against the header's count; joined files
    ogg.py          Ogg: where Vorbis can be sought; joined files
    mpeg.py         MP3: frames counted; joined files
    look.py         by the first bytes, which of these
"""
