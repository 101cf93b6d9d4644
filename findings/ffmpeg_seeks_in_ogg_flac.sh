#!/usr/bin/env bash
# PyAV 18 (FFmpeg 8): a seek in FLAC in Ogg, on a container that was read to its end, gives time stamps ahead of the sound, by
# up to ten frames; libsndfile 1.2.2 does not open such a file.
#
# Guess: time stamps tell where decoded frames belong, as they do in Matroska, MP4, WebM and native FLAC.
# Seen with PyAV 18.1.0 (libavformat 62.12): the first frame after such a seek says 580,608 and holds the samples of 576,000;
# at other places it is up to 46,080 samples early, by whole frames of 4,608, and so are all frames behind it. On a container
# of which little was read, all are right. libsndfile, which reads its own FLAC in Ogg, ends with "unknown error in flac
# decoder" for a file that FFmpeg wrote.
#
# What to do: what the pages hold, without the first 9 bytes, is a FLAC file, in which libsndfile and FFmpeg seek exactly.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
"$work/venv/bin/python" - <<'P'
import io
import sys

import av
import numpy as np
import soundfile

rng, rate = np.random.default_rng(0), 48_000
t = np.arange(20 * rate) / rate
loud = np.arange(len(t)) % 320_000 > 160_000
sound = np.clip(0.5 * np.sin(2 * np.pi * (300 + 100 * t) * t) + 0.2 * loud * rng.standard_normal(len(t)), -0.9, 0.9)
samples = np.round(sound * 2**15).astype(np.int16)


def write(container):
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("flac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler("s16", "mono", rate, frame_size=stream.codec_context.frame_size or 4608)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def off(data, place):
    """Samples between where the first frame after a seek says that it is, and where it is."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        list(container.decode(stream))
        container.seek(round(place / rate / stream.time_base), stream=stream)
        frame = next(container.decode(stream))
        values, said = frame.to_ndarray()[0], round(frame.pts * stream.time_base * rate)
        true = next(n for n in range(0, len(samples), 4608) if (samples[n : n + len(values)] == values).all())
        return said - true


ogg, matroska = write("ogg"), write("matroska")
places = range(50_000, 950_000, 50_000)
in_ogg, in_matroska = [off(ogg, place) for place in places], [off(matroska, place) for place in places]
try:
    soundfile.info(io.BytesIO(ogg))
    opens = True
except soundfile.SoundFileError:
    opens = False
print(f"PyAV {av.__version__}: off by, in Ogg {sorted(set(in_ogg))}, in Matroska {sorted(set(in_matroska))}; ", end="")
print(f"libsndfile {soundfile.__libsndfile_version__} opens the former: {opens}")
sys.exit(0 if any(in_ogg) and not any(in_matroska) and not opens else 1)
P
