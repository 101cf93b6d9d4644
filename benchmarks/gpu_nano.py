"""bat_nano in minutes of a GPU that has no network: its recordings go there packed, weights and curves come back.

    python benchmarks/gpu_nano.py pack CORPUS CLIPS PACK    # here: the recordings of nano_corpus.py as Opus
    python benchmarks/gpu_nano.py train PACK WORK OUT --config bat_nano --minutes 13 --call-minutes 7    # there

PACK gets index.csv and shards/*.ogg: as many recordings as fit into --mib, but for those that the left_out.csv in CLIPS
names, which nano_corpus.py wrote. `train` lays out clips in WORK as nano_corpus.py does, measures a step, takes as many
steps as fit into --minutes, and trains; each call stops after --call-minutes, and the next goes on: in WORK, or on
another machine from the state_NN of OUT if they are put into PACK. OUT gets at most eight files of at most 15 MiB each:
model.safetensors and config.json (a release), metrics.jsonl, log.txt, record.json with the probes of a finished run,
and the state as far as it fits.
"""

import argparse
import csv
import io
import json
import os
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copyfile
from time import monotonic

import nano_corpus
import numpy as np
import soundfile

import audiobat
from audiobat.audio.read import load_audio
from audiobat.config import PretrainConfig
from audiobat.config.recipes import load_recipe, make_config, merge
from audiobat.data.scenes import write_scenes
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.files import read_json, replacing, write_atomic
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.pretraining.calibrate import calibrate_run
from audiobat.zoo.load import load
from audiobat.zoo.release import save_release

RATE = nano_corpus.RATE
LEVEL = 0.95  # of libsndfile's Opus: 19 kbit/s, 15 dB of signal to noise on these recordings
LONGEST = 30.0  # seconds kept of one recording: from the middle
SHARD = 300.0  # seconds of recordings in a row in one file, as a file of its own costs more than a short sound
INDEX = ("shard", "start", "samples", "kind")  # samples within a shard
SPARE = 0.9  # share of the minutes that is planned: steps are measured without looks, checkpoints and breaks
PART, PARTS = 15 << 20, 3  # bytes of a part of the state, and how many parts OUT may hold
HEADS = ("cgp", "protobin", "linear")


def read_rows(file):
    try:
        with file.open() as opened:
            rows = list(csv.DictReader(opened))
    except OSError as error:
        raise AudiobatError(f"{file} cannot be read ({error}): see --help for what each folder holds.") from None
    return rows


# Pack


def greedy_order(short, long, rng):
    """Recordings (kind, path); in any beginning kinds have the shares of nano_corpus.py in seconds, while they last."""
    shelves, shares, seconds = {}, {}, {}
    for group, drawn in ((short, nano_corpus.SHORT), (long, nano_corpus.LONG)):
        for kind, paths in group.items():
            name = (group is long, kind)
            shelves[name] = [paths[i] for i in rng.permutation(len(paths))]
            shares[name], seconds[name] = drawn[kind], 0.0
    while shelves := {name: paths for name, paths in shelves.items() if paths}:
        name = min(shelves, key=lambda name: seconds[name] / shares[name])
        path = shelves[name].pop()
        seconds[name] += min(LONGEST, soundfile.info(path).duration)
        yield name[1], path


def middle_of(path):
    """At most LONGEST seconds of a recording, mono at 16 kHz."""
    start = max(0.0, (soundfile.info(path).duration - LONGEST) / 2)
    return np.clip(load_audio(str(path), RATE, start, LONGEST), -1, 1)


def encode(file, pieces):
    """Write pieces one after the other as Opus."""
    with soundfile.SoundFile(file, "w", RATE, 1, "OPUS", format="OGG", compression_level=LEVEL) as to:
        for piece in pieces:
            to.write(piece)


def filled(order):
    """Lists of (kind, samples) of SHARD seconds or a little more; the last may be shorter."""
    pieces = []
    for kind, path in order:
        pieces.append((kind, middle_of(path)))
        if sum(len(x) for _, x in pieces) >= SHARD * RATE:
            yield pieces
            pieces = []
    if pieces:
        yield pieces


def pack(corpus, clips, to, mib):
    """Write index.csv and shards of the recordings of `corpus` to the folder `to`, at most `mib` MiB in all."""
    left_out = {row["path"] for row in read_rows(clips / "left_out.csv")}
    short, long = nano_corpus.stock(
        corpus, [row for row in read_rows(corpus / "pretrain.csv") if row["path"] not in left_out]
    )
    if to.exists():
        raise AudiobatError(f"{to} is there already: name a new folder for the pack.")
    (to / "shards").mkdir(parents=True)
    room = limit = int(mib * 2**20)
    lines = [INDEX]
    with Progress("pack", limit, "byte") as progress:
        for number, pieces in enumerate(filled(greedy_order(short, long, np.random.default_rng(0)))):
            file = to / f"shards/{number:03d}.ogg"
            encode(file, [x for _, x in pieces])
            starts = np.cumsum([0, *(len(x) for _, x in pieces)])
            new = [(file.name, start, len(x), kind) for start, (kind, x) in zip(starts, pieces, strict=False)]
            cost = file.stat().st_size + sum(len(",".join(map(str, line))) + 2 for line in [*lines[:1], *new])
            if cost > room:
                file.unlink()
                break
            room -= cost
            lines += new
            progress.advance(cost)
    if len(lines) == 1:
        raise AudiobatError(f"Not even {SHARD:g} s of recordings fit into {mib:g} MiB: give more by --mib.")
    with (to / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    hours = sum(line[2] for line in lines[1:]) / RATE / 3600
    print(f"{len(lines) - 1:,} recordings, {hours:.2f} hours, {(limit - room) / 2**20:.1f} MiB in {to}")


# Clips


def unpack(packed, corpus):
    """Shards to a corpus as nano_corpus.py reads it: pretrain.csv, and a WAV file a recording."""
    (corpus / "audio").mkdir(parents=True)
    lines, shard, samples = [("path", "seconds", "source", "category")], None, np.zeros(0)
    rows = read_rows(packed / "index.csv")
    if not rows:
        raise AudiobatError(f"{packed / 'index.csv'} lists no recordings: pack them anew.")
    for number, row in enumerate(rows):
        if row["shard"] != shard:
            shard = row["shard"]
            samples, rate = soundfile.read(packed / "shards" / shard, dtype="float32")
            assert rate == RATE
        name, start, length = f"audio/{number:05d}.wav", int(row["start"]), int(row["samples"])
        soundfile.write(corpus / name, samples[start : start + length], RATE, subtype="PCM_16")
        lines.append((name, length / RATE, "pack", row["kind"]))
    with (corpus / "pretrain.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)


def write_clip(folder, short, long, number):
    """Make one clip; returns its row."""
    kind, x = nano_corpus.make_clip(number, short, long)
    name = f"audio/{number:05d}.wav"
    soundfile.write(folder / name, x, RATE, subtype="PCM_16")
    return name, nano_corpus.SECONDS, kind


def lay_out(packed, work, count):
    """The list of `count` clips in `work`, made at the first call."""
    clips = work / "clips"
    if not clips.exists():
        with replacing(work / "corpus") as corpus:
            unpack(packed, corpus)
        short, long = nano_corpus.stock(work / "corpus", read_rows(work / "corpus/pretrain.csv"))
        with replacing(clips) as beside, ProcessPoolExecutor() as pool:
            (beside / "audio").mkdir(parents=True)
            rows = [("path", "seconds", "kind")]
            with Progress("write clips", count, "clip") as progress:
                for row in pool.map(partial(write_clip, beside, short, long), range(count), chunksize=16):
                    rows.append(row)
                    progress.advance()
            with (beside / "clips.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    return clips / "clips.csv"


# Train


def planned(config, seconds, minutes):
    """The config with as many steps of `seconds` as fit into `minutes`; warm-up and EMA are scaled with them.

    The EMA looks back over the same share of the run: its distance from 1 is divided by what steps are multiplied with.
    """
    times = max(2, int(SPARE * minutes * 60 / seconds)) / config.train.steps
    ends = {name: max(0.0, 1 - (1 - getattr(config.target, name)) / times) for name in ("ema_start", "ema_end")}
    steps = round(times * config.train.steps)
    return replace(
        config,
        train=replace(config.train, steps=steps, save_every=max(1, steps // 10), log_every=max(1, steps // 400)),
        optim=replace(config.optim, warmup_steps=round(times * config.optim.warmup_steps)),
        target=replace(config.target, **ends, ema_steps=max(1, round(times * config.target.ema_steps))),
    )


def train(packed, work, out, recipe, minutes, call_minutes, clips, device):
    """One call: lay out, measure and plan if that is not done, go on with the run, and bring back what there is."""
    begun = monotonic()
    run = work / "run"
    if not run.exists() and (packed / "state_00").exists():
        data = b"".join(part.read_bytes() for part in sorted(packed.glob("state_*")))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(work, filter="data")
    table = lay_out(packed, work, clips)
    if (run / "config.yaml").exists():
        config = make_config(PretrainConfig, str(run / "config.yaml"))
    else:
        config = make_config(PretrainConfig, recipe)
        workers = max(0, (os.cpu_count() or 1) - 2)
        config = replace(
            config,
            data=replace(config.data, path=str(table), workers=workers),
            train=replace(config.train, device=device),
        )
        measured = calibrate_run(config)
        print(measured.describe(config.train.steps), flush=True)
        config = planned(config, measured.seconds, minutes)
        print(f"{config.train.steps:,} steps, of {measured.seconds:.4f} s each", flush=True)
    left = 60 * call_minutes - (monotonic() - begun)
    audiobat.pretrain(config, run, max_seconds=max(0.0, left))
    if load_checkpoint(run) is None:
        raise AudiobatError(f"No step was taken in {call_minutes:g} minutes: give more by --call-minutes.")
    bring(run, work, out, config, table, pick_device(device).type)


def bring(run, work, out, config, table, device):
    """Write what comes back of a run, finished or not, to the folder `out`; probes of a finished run come last."""
    out.mkdir(parents=True, exist_ok=True)
    step, encoder = load_checkpoint(run).step, load(run)
    release = work / "release"
    save_release(release, encoder)
    for file in (release / "model.safetensors", release / "config.json", run / "metrics.jsonl", run / "log.txt"):
        copyfile(file, out / file.name)
    write_state(run, out, step)
    record = {
        "step": step,
        "steps": config.train.steps,
        "hours of clips": sum(float(row["seconds"]) for row in read_rows(table)) / 3600,
        "hours seen": step * config.train.batch_size * config.data.clip_seconds / 3600,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "environment": read_json(run / "env.json"),
    }
    write_atomic(out / "record.json", json.dumps(record, indent=1))
    if step == config.train.steps:
        record["probes of the demo's scenes, seed 0"] = probes(work, device)
        write_atomic(out / "record.json", json.dumps(record, indent=1))
    print(f"step {step:,} of {config.train.steps:,}: see {out / 'record.json'}")


def probes(work, device):
    """Metrics by head on the scenes on which recipes are chosen."""
    recipe = merge(load_recipe("demo_probe"), {"heads": HEADS})
    records = audiobat.probe(work / "release", write_scenes(work / "scenes"), recipe, device=device)
    return {record.head["kind"]: record.plain()["metrics"] for record in records}


def write_state(run, out, step):
    """What another machine needs to go on, in parts; if that is more than may come back, a sentence says so."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for path in sorted(run.rglob("*")):
            if path.is_file() and ("checkpoints" not in path.parts or path.parent.name == f"step_{step:06d}"):
                archive.add(path, Path("run", path.relative_to(run)))
    data = held.getvalue()
    for old in out.glob("state_*"):
        old.unlink()
    if len(data) > PART * PARTS:
        print(f"The state has {len(data) >> 20} MiB, more than comes back: only {run.parent} can go on.")
        return
    for n, start in enumerate(range(0, len(data), PART)):
        (out / f"state_{n:02d}").write_bytes(data[start : start + PART])


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("corpus", type=Path, help="the folder that nano_corpus.py reads")
    packing.add_argument("clips", type=Path, help="the folder that it wrote")
    packing.add_argument("pack", type=Path)
    packing.add_argument("--mib", type=float, default=33.0, help="of index and shards, at most")
    training = verbs.add_parser("train")
    for name in ("pack", "work", "out"):
        training.add_argument(name, type=Path)
    training.add_argument("--config", default="bat_nano", help="a recipe, by name or path")
    training.add_argument("--minutes", type=float, default=13.0, help="of training, all calls together")
    training.add_argument("--call-minutes", type=float, default=9.0, help="after which this call stops training")
    training.add_argument("--clips", type=int, default=nano_corpus.CLIPS)
    training.add_argument("--device", default="auto")
    args = parser.parse_args(words)
    if args.verb == "pack":
        pack(args.corpus, args.clips, args.pack, args.mib)
    else:
        times = (args.minutes, args.call_minutes)
        train(args.pack, args.work, args.out, args.config, *times, args.clips, args.device)


if __name__ == "__main__":
    try:
        main()
    except AudiobatError as error:
        sys.exit(f"gpu_nano.py: {error}")
