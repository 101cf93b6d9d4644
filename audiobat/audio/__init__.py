"""From a file to a spectrogram.

In: a path, bytes, a file object or samples. Out: a mono waveform [S] at the model's rate, and its spectrogram [T, F].

    frontends/      waveform to spectrogram: mel dB with per-clip min-max, or EAT's Kaldi filter bank (Table 2)
    augment.py      what training changes about a batch of waveforms and spectrograms (Table 6)
    codec.py        what only FFmpeg reads (m4a, webm, ...); needs the extra `codec`
    contents/       what a file holds, by its own frames, where its header may be wrong
    sound_file.py   a recording opened by libsndfile, or several joined in one file
    read.py         file, bytes or array to a mono waveform; lengths of recordings
"""
