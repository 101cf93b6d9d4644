"""Write house/: what one version of audiobat makes of small audio, for tests/test_goldens.py to hold others against.

The workload stands here once, for this script and for that test. It goes through the command line and the public
functions alone, as modules may move. README.md says how the records were made and what is compared how.

    OMP_NUM_THREADS=1 python tests/golden/make_goldens.py                 # write house/ with the audiobat at hand
    python tests/golden/make_goldens.py --demo FOLDER                     # compare what `audiobat demo` wrote
    python tests/golden/make_goldens.py --demo FOLDER --loosely           # the same from another type of CPU
    python tests/golden/make_goldens.py --demo FOLDER --keep              # keep its numbers as house/demo.json
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch

import audiobat

HOUSE = Path(__file__).with_name("house")
MODELS = ("encoder", "tagger", "event_tagger")  # releases that the old version wrote
RUNS = ("pretrain_run", "finetune_run")  # its run folders, as a kill after step STOPPED + 1 leaves them
STOPPED = 3
RATE = 8_000
TONES = {"low": 250, "mid": 900, "top": 2_800}
CPU = "--device cpu"
TIMING = ("seconds", "steps_per_second", "clips_per_second", "data_wait")  # of metrics.jsonl
BY_RUN = ("wall_seconds", "clips_per_second", "environment", "git_commit", "device", "scores")  # of a record
DIGITS = 8  # of the numbers kept: more than float32 has
TINY = 1e-6  # what is smaller is compared as if it were as large
SETTINGS = ("/head", "/frontend", "/encoder")  # where records and releases have the fields of configs
DECIMAL = re.compile(r"\d+\.\d+")  # in texts: counts, sizes and digests have no point
DEMO_TOLERANCE = 1e-4  # of all that a demo measured: on one type of CPU its numbers come out the same
DEMO_LOOSELY = 0.15  # of its metrics alone: under other kernels 2,500 steps let rounding grow, and F1 moved by 0.06

RECIPES = {
    "pretrain": """
frontend: {sample_rate: 8000, n_fft: 256, win_length: 256, hop_length: 80, mel_bins: 16}
encoder: {dim: 16, depth: 2, heads: 2, patch_size: [8, 8], max_frames: 64}
decoder: {depth: 1, heads: 2, groups: 2}
mask: {clones: 2, block_size: 2}
optim: {lr: 1e-3, warmup_steps: 2}
data: {path: clips/clips.csv, clip_seconds: 0.5, workers: 0}
train: {steps: 6, batch_size: 8, log_every: 1, save_every: 3, precision: fp32, device: cpu}
""",
    "finetune": """
head: {kind: linear, pool: mean, norm: layer}
optim: {lr: 1e-2, warmup_steps: 2, layer_decay: 0.9}
augment: {mixup: {probability: 0.5}, spec_augment: {time_width: 0.2, frequency_width: 0.2}}
data: {clip_seconds: 0.5, workers: 0}
train: {steps: 6, batch_size: 8, log_every: 1, save_every: 3, precision: fp32, device: cpu}
select: {every: 3}
""",
    "probe": """
head: {prototypes: 8, per_class: 2, queries: 2, neighbours: 5}
train: {steps: 30, warmup_steps: 3, batch_size: 8, lr: 1e-2}
workers: 0
""",
}

# Each decoder, target, mask, frontend and norm once, as flags over the recipe above.
PRETRAIN = {
    "vit_block": "",
    "cnn_mlp_random_kaldi": "--decoder.kind cnn --target.source mlp --target.layers 1 --mask.kind random "
    "--frontend.kind kaldi_fbank --frontend.f_min 50 --encoder.init eat --optim.grad_clip 1.0",
    "spectrogram": "--target.source spectrogram --objective.global_weight 0 --encoder.gated_attention false "
    "--encoder.block_norm pre --encoder.final_norm true --encoder.pad grid --mask.clones 1",
    "retention": "--objective.retention_weight 1.0 --target.cls_layers 1 --data.balance labels --data.roll true "
    "--encoder.drop_path 0.2 --train.seed 5",
    "from_encoder": "--init encoder --optim.decay_1d false --objective.scale 4.0",
}
HEADS = "cgp,protobin,linear,attentive,ep,head2toe,vqt,knn,proto_classwise,linear_cgp,mean_time_keep_freq"
PROBES = {
    "heads": f"--data clips/clips.csv --heads [{HEADS}] --layers",
    "folds": "--data clips/folds.csv --heads [cgp,linear] --head.pool mean --head.norm batch",
    "one_fold": "--data clips/folds.csv --test-fold 2 --head.kind protobin --seeds [3,4]",
    "grid": "--data clips/clips.csv --head.kind cgp --grid.lr [0.01,0.001] --grid.choose true --train.loss asl",
}
PROBE_EVENTS = "--data events/events.csv --heads [cgp,linear]"
FINETUNES = {
    "clips": "--data clips/clips.csv --train.drop_path 0.3 --train.ema_decay 0.8",
    "events": "--data events/events.csv --head.kind cgp --head.prototypes 8 --head.norm none --train.steps 60 "
    "--train.log_every 10 --train.save_every 60 --optim.lr 0.03",
    "folds": "--data clips/folds.csv --test-fold 2 --train.steps 4 --train.freeze_steps 2 --train.label_smoothing 0.1",
}
PLANS = {
    "bat_base": "pretrain --config bat_base --device cpu --dry-run",
    "bat_nano": "pretrain --config bat_nano --device cpu --dry-run",
    "bats_250khz": "pretrain --config bats_250khz --device cpu --dry-run",
    "finetune": "finetune --model encoder --data clips/clips.csv --out runs/none --config finetune.yaml --dry-run",
    "ladder": "ladder --data clips --probe-data clips/clips.csv --out runs/none --config demo_probe --dry-run",
    "benchmark": "benchmark --config benchmark/table5 --models bat_nano=bat_nano --out runs/none --dry-run",
    "prepare": "prepare clips/clips.csv --sample-rate 8000 --dry-run",
    "doctor_release": "doctor encoder",
    "doctor_tagger": "doctor tagger",
    "doctor_run": "doctor pretrain_run",
}
VERBS = "doctor demo prepare pretrain probe finetune analyze ladder benchmark compare embed predict export report"


def run(words: str) -> str:
    """One command line in this process, as `python -m audiobat` runs it; returns what it prints."""
    printed, told = io.StringIO(), io.StringIO()
    plain = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}  # or tables would be as wide as the terminal
    with (
        mock.patch.object(sys, "argv", ["audiobat", *words.split()]),
        mock.patch.dict(os.environ, plain),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(told),
    ):
        try:
            runpy.run_module("audiobat", run_name="__main__")
        except SystemExit as done:
            if done.code:
                raise RuntimeError(f"audiobat {words}\n{told.getvalue()}") from None
    return printed.getvalue()


# ---- audio and recipes ----


def tone(hertz: int, samples: int, level: int) -> np.ndarray:
    """A triangle wave in integers, which are the same on every machine."""
    phase = np.arange(samples, dtype=np.int64) * hertz % RATE
    return (np.abs(2 * phase - RATE) - RATE // 2) * level * 2 // RATE


def write_rows(path: Path, *rows: tuple[Any, ...]) -> None:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_inputs(folder: Path) -> None:
    """Clips with one or two of three tones, recordings with events, their lists, the recipes and the old models."""
    random = np.random.RandomState(0)  # its stream is frozen, a Generator's may change
    names = list(TONES)
    clips, folds = [("path", "label", "split")], [("path", "label", "fold")]
    (folder / "clips").mkdir()
    for i in range(42):
        labels = [names[i % 3]] if i % 2 else [names[i % 3], names[(i // 3 + i) % 3]]
        samples = int(random.randint(2_400, 4_800))
        sound = random.randint(-600, 601, samples)
        for label in dict.fromkeys(labels):
            sound += tone(TONES[label] + int(random.randint(0, 100)), samples, int(random.randint(2_000, 6_000)))
        file = f"{i:02d}.wav"
        soundfile.write(folder / "clips" / file, sound.astype(np.int16), RATE, subtype="PCM_16")
        split = "train" if i < 24 else "valid" if i < 30 else "test"
        clips.append((file, ";".join(dict.fromkeys(labels)), split))
        if i % 2:
            folds.append((file, labels[0], str(1 + i // 14)))
    write_rows(folder / "clips" / "clips.csv", *clips)
    write_rows(folder / "clips" / "folds.csv", *folds)

    events: list[tuple[Any, ...]] = [("path", "onset", "offset", "label", "split")]
    (folder / "events").mkdir()
    for i in range(16):
        sound = random.randint(-600, 601, 9_600)  # longer than a window of the tiny models
        for k, start in enumerate((800, 4_800)):
            samples, label = int(random.randint(1_600, 4_000)), names[(i + k * (1 + i // 3)) % 3]
            sound[start : start + samples] += tone(TONES[label], samples, 5_000)
            split = "train" if i < 10 else "test"
            events.append((f"{i:02d}.wav", start / RATE, (start + samples) / RATE, label, split))
        soundfile.write(folder / "events" / f"{i:02d}.wav", sound.astype(np.int16), RATE, subtype="PCM_16")
    write_rows(folder / "events" / "events.csv", *events)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name in (*MODELS, *RUNS):
        if (HOUSE / name).exists():  # the first time the old version is about to write them
            shutil.copytree(HOUSE / name, folder / name)


# ---- what is read back ----


def lean(value: Any) -> Any:
    """Plain JSON with so many digits as are kept."""
    if isinstance(value, dict):
        return {str(name): lean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [lean(each) for each in value]
    if isinstance(value, np.ndarray):
        return lean(value.tolist())
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def metrics_rows(folder: str) -> list[dict[str, Any]]:
    """Losses and whatever else a run logs of its steps, but not how fast it was."""
    lines = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMING} for line in lines]


def records(folder: str) -> dict[str, Any]:
    """The result records of a run, each with what its head said to the test clips."""
    found = {}
    for path in sorted(Path(folder, "results").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_name(record["scores"]["file"])) as scores:
            said = {name: scores[name] for name in scores.files}
        found[path.stem] = {name: value for name, value in record.items() if name not in BY_RUN} | {"said": said}
    return found


def files(folder: str) -> list[str]:
    """The files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def release(folder: str) -> dict[str, Any]:
    """The config of a release, without the versions that wrote it."""
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    config["extra"].get("facts", {}).pop("software", None)
    return config


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(path: str) -> list[dict[str, Any]]:
    """The rows of a CSV file, numbers as numbers and the columns e0, e1, ... of an embedding as one list."""
    found = []
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {name: as_number(text) for name, text in row.items()}
            vector = [numbers.pop(name) for name in row if re.fullmatch(r"e\d+", name)]
            found.append(numbers | ({"vector": vector} if vector else {}))
    return found


def as_number(text: str) -> Any:
    """A float where the text is one with a point."""
    try:
        return float(text) if "." in text else text
    except ValueError:
        return text


# ---- the workload, topic by topic; every path is relative to the folder that it runs in ----


def pretrain_run(name: str) -> list[dict[str, Any]]:
    """A few steps of pre-training with one set of flags, in runs/NAME."""
    run(f"pretrain --config pretrain.yaml --out runs/{name} {PRETRAIN[name]}")
    return metrics_rows(f"runs/{name}")


def finetune_run(name: str) -> dict[str, Any]:
    """A few steps of fine-tuning of the old encoder, in runs/finetune_NAME."""
    out = f"runs/finetune_{name}"
    run(f"finetune --model encoder --config finetune.yaml --out {out} {FINETUNES[name]}")
    return {"rows": metrics_rows(out), "records": records(out)}


def pretraining() -> dict[str, Any]:
    """Losses of every variant, and the files of a run and of the release made from it."""
    found: dict[str, Any] = {name: pretrain_run(name) for name in PRETRAIN}
    run("export --model runs/vit_block --to release --out runs/release")
    return found | {
        "files": files("runs/vit_block"),
        "release_files": files("runs/release"),
        "release": release("runs/release"),
        "vector": np.asarray(audiobat.load("runs/release").embed("clips/00.wav")),
    }


def finetuning() -> dict[str, Any]:
    """Losses and records of clips with splits and with folds."""
    found: dict[str, Any] = {name: finetune_run(name) for name in ("clips", "folds")}
    return found | {"files": files("runs/finetune_clips"), "release": release("runs/finetune_clips/release")}


def probe_run(name: str) -> str:
    """The folder of a probe of clips with one set of flags, runs/probe_NAME, where it is run once."""
    out = f"runs/probe_{name}"
    if not Path(out).exists():
        run(f"probe --model encoder --config probe.yaml --out {out} {PROBES[name]} {CPU}")
    return out


def probing() -> dict[str, Any]:
    """Records of every head, on clips."""
    found: dict[str, Any] = {name: records(probe_run(name)) for name in PROBES}
    return found | {"files": files(probe_run("folds"))}


def framing() -> dict[str, Any]:
    """Probes and fine-tuning of frames."""
    run(f"probe --model encoder --config probe.yaml --out runs/probe_events {PROBE_EVENTS} {CPU}")
    return {"probe": records("runs/probe_events"), "finetune": finetune_run("events")}


def predicting() -> dict[str, Any]:
    """Rows of the old releases with a head, in every text format, and of overlapping windows."""
    old = f"--workers 0 {CPU}"
    run(f"predict --model tagger --data clips/clips.csv --out out/clips.csv --threshold 0.0 {old}")
    run(f"predict --model tagger --data clips/00.wav clips/01.wav --out out/clips.jsonl --top 2 {old}")
    run(f"predict --model event_tagger --data events/events.csv --out out/events.csv --hop-seconds 0.3 {old}")
    run(f"predict --model event_tagger --data events/00.wav --out out/events.txt --threshold 0.28 {old}")
    run(f"predict --model event_tagger --data events/00.wav --out out/events.selections.txt --median 1 {old}")
    rows = {name: table(f"out/{name}.csv") for name in ("clips", "events")}
    rows["jsonl"] = [json.loads(line) for line in Path("out/clips.jsonl").read_text(encoding="utf-8").splitlines()]
    tracks = {name: Path(f"out/events.{name}").read_text(encoding="utf-8") for name in ("txt", "selections.txt")}
    return {"rows": rows, "tracks": tracks}


def embedding() -> dict[str, Any]:
    """Vectors of the shipped model for the demo's recordings and of the old releases and runs for small clips."""
    demo = next(path.parent for path in Path(audiobat.__file__).parent.rglob("demo/events.csv"))
    clips = [demo / row["path"] for row in table(str(demo / "events.csv"))[:90:30]]
    run(f"embed --model bat_nano --data {clips[0]} --out out/nano.npz --window-seconds 0.5 --workers 0 {CPU}")
    run(f"embed --model encoder --data clips --out out/small.csv --layer 1 --pool cls --workers 0 {CPU}")
    with np.load("out/nano.npz") as arrays:
        windows = {name: arrays[name] for name in ("start", "end", "embedding")}
    nano = audiobat.load("bat_nano")
    return {
        "windows": windows,
        "nano": {clip.name: np.asarray(nano.embed(clip)) for clip in clips},
        "small": table("out/small.csv"),
        "loaded": {name: np.asarray(audiobat.load(name).embed("events/00.wav")) for name in ("pretrain_run", *MODELS)},
    }


def preparing() -> dict[str, Any]:
    """Bytes of shards of raw samples and of their tables; what a model makes of FLAC; statistics."""
    run("prepare events/events.csv prepared/pcm --sample-rate 8000 --encoding pcm --window-seconds 0.5 --workers 1")
    run("prepare clips/clips.csv prepared/flac --sample-rate 16000 --workers 1")
    run("prepare clips prepared/statistics.json --stats --frontend.sample_rate 8000 --frontend.f_min 50 --workers 1")
    run(f"embed --model encoder --data prepared/flac --out out/flac.csv --workers 0 {CPU}")
    shards = [path for path in sorted(Path("prepared/pcm").rglob("*")) if path.is_file()]
    return {
        "sha256": {path.as_posix(): digest(path) for path in shards},
        "files": files("prepared/flac"),
        "flac": table("out/flac.csv"),
        "statistics": json.loads(Path("prepared/statistics.json").read_text(encoding="utf-8")),
    }


def planning() -> dict[str, str]:
    """What the verbs say before they do anything."""
    return {name: run(words) for name, words in PLANS.items()}


def comparing() -> dict[str, Any]:
    """What `compare` and `report` make of records."""
    heads, folds = probe_run("heads"), probe_run("folds")
    found = " ".join(f"{heads}/results/encoder_{name}_0.json" for name in ("cgp", "knn", "proto_classwise"))
    text = run(f"compare {found} --samples 500")
    run(f"report {heads} {folds} --out runs/report")
    tables = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path("runs/report/tables").iterdir())}
    return {"compare": text, "tables": tables, "files": files("runs/report")}


def analysing() -> dict[str, Any]:
    """What `analyze` measures of the old encoder."""
    few = "--clips 12 --views 4 --pictures 0"
    run(f"analyze --model encoder --data clips/clips.csv --out runs/look --config probe.yaml {few} {CPU}")
    analysis = json.loads(Path("runs/look/analysis.json").read_text(encoding="utf-8"))
    return {name: value for name, value in analysis.items() if name not in BY_RUN}


def flags() -> dict[str, list[str]]:
    """The flags of every verb, as its help names them; a version without --help-all shows all of them by --help."""
    texts = {verb: run(f"{verb} --help --help-all") for verb in VERBS.split()}
    return {verb: sorted(set(re.findall(r"--[\w.-]+", text))) for verb, text in texts.items()}


def resume(words: str, folder: str) -> dict[str, Any]:
    """Take up an old run; what it logs, and whether it went on: a run that began anew would time its steps anew."""
    log = Path(folder, "metrics.jsonl")
    before = [row for row in log.read_text(encoding="utf-8").splitlines() if json.loads(row)["step"] <= STOPPED]
    run(f"{words} --out {folder}")
    after = log.read_text(encoding="utf-8").splitlines()
    return {"rows": metrics_rows(folder), "went_on": after[: len(before)] == before}


def resuming() -> dict[str, Any]:
    """The old runs, brought to their end."""
    pretrained = resume("pretrain --config pretrain.yaml", "pretrain_run")
    tuned = resume(f"finetune --model encoder --config finetune.yaml {FINETUNES['clips']}", "finetune_run")
    return {"pretraining": pretrained, "finetuning": tuned | {"records": records("finetune_run")}}


TOPICS = {
    "pretraining": pretraining,
    "finetuning": finetuning,
    "probing": probing,
    "framing": framing,
    "predicting": predicting,
    "embedding": embedding,
    "preparing": preparing,
    "planning": planning,
    "comparing": comparing,
    "analysing": analysing,
    "flags": flags,
    "resuming": resuming,
}


def numbers(folder: Path, topic: str) -> Any:
    """Do a topic's work in a folder that has the inputs; returns what is compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would only wait for each other, in nets as small as these
    try:
        with contextlib.chdir(folder):  # so that runs name their model and clips without a machine's own path
            return lean(TOPICS[topic]())
    finally:
        torch.set_num_threads(threads)


# ---- what is kept, and how it is compared ----


def stop(folder: Path, to: Path) -> None:
    """Copy a finished run as a kill after step STOPPED + 1 would have left it: one checkpoint, and a row too many."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("results", "release"))
    for path in (to / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > STOPPED:
            shutil.rmtree(path)
    (to / "checkpoints" / "last").write_text(f"step_{STOPPED:06d}\n", encoding="utf-8")
    log = to / "metrics.jsonl"
    rows = log.read_text(encoding="utf-8").splitlines()
    log.write_text("".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= STOPPED + 1), encoding="utf-8")


def write_models(folder: Path) -> None:
    """Train the tiny models in `folder` and keep them, and runs stopped half-way, in house/."""
    write_inputs(folder)
    with contextlib.chdir(folder):
        pretrain_run("vit_block")
        run("export --model runs/vit_block --to release --out encoder")
        for name in ("clips", "events"):
            finetune_run(name)
    kept = {
        "encoder": "encoder",
        "tagger": "runs/finetune_clips/release",
        "event_tagger": "runs/finetune_events/release",
    }
    for name, path in kept.items():
        shutil.copytree(folder / path, HOUSE / name)
    for name, path in zip(RUNS, ("runs/vit_block", "runs/finetune_clips"), strict=True):
        stop(folder / path, HOUSE / name)


def same_text(old: str, new: str, tolerance: float) -> bool:
    """Whether two texts say the same; numbers with a point may be apart by one of their last digit, rules longer."""
    words = ([re.sub(r"[ ─━]+", " ", part) for part in DECIMAL.split(text)] for text in (old, new))
    if next(words) != next(words):
        return False
    for a, b in zip(DECIMAL.findall(old), DECIMAL.findall(new), strict=True):
        last_digit = 1.01 * 10.0 ** -len(a.partition(".")[2])
        if abs(float(a) - float(b)) > max(last_digit, tolerance * abs(float(a))):
            return False
    return True


def differences(old: Any, new: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two trees of plain JSON differ: floats beyond the tolerance, relative to the largest of their list.

    A new version may have more settings than the old one had.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        one_sided = old.keys() - new.keys() if where.endswith(SETTINGS) else old.keys() ^ new.keys()
        found = [f"{where}/{name} is on one side only" for name in one_sided]
        for name in old.keys() & new.keys():
            found += differences(old[name], new[name], tolerance, f"{where}/{name}")
        return sorted(found)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        if old and all(isinstance(value, float) for value in (*old, *new)):
            apart = np.abs(np.subtract(old, new)).max() / max(np.abs(old).max(), TINY)
            return [] if apart <= tolerance else [f"{where}: {apart:.1e} of the largest apart"]
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")]
    if isinstance(old, float) and isinstance(new, float):
        same = abs(old - new) <= tolerance * max(abs(old), TINY)
    elif isinstance(old, str) and isinstance(new, str):
        same = same_text(old, new, tolerance)
    else:
        same = type(old) is type(new) and old == new
    return [] if same else [f"{where}: {old!r} became {new!r}"]


def write_json(name: str, value: dict[str, Any]) -> None:
    """A file in house/, a line for each part."""
    lines = (f"{json.dumps(part)}: {json.dumps(of_it, ensure_ascii=False)}" for part, of_it in value.items())
    (HOUSE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_json(name: str) -> Any:
    """A file in house/."""
    return json.loads((HOUSE / f"{name}.json").read_text(encoding="utf-8"))


def expected(topic: str) -> Any:
    """What `numbers` gave with the old version; its stopped runs are to end as those that were never stopped.

    The old fine-tuning drew the partners of mixup otherwise, so that how its run ends now is kept by itself.
    """
    if topic != "resuming":
        return read_json(topic)
    pretrained = {"rows": read_json("pretraining")["vit_block"], "went_on": True}
    return {"pretraining": pretrained, **read_json("resuming")}


def demo_numbers(folder: Path) -> dict[str, Any]:
    """What a demo measured, but for its live pre-training, which ends by the clock."""
    found = {}
    for path in sorted((folder / "results").rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics = {name: [each[key] for key in ("value", "low", "high")] for name, each in record["metrics"].items()}
        kept = {name: record[name] for name in ("data", "seed", "per_class", "gate_weights")}
        found[path.relative_to(folder / "results").as_posix()] = {"metrics": metrics, **kept}
    return lean(found)


def demo_differences(old: dict[str, Any], new: dict[str, Any], loosely: bool) -> list[str]:
    """Where two demos differ."""
    if not loosely:
        return differences(old, new, DEMO_TOLERANCE)
    metrics = ({name: record["metrics"] for name, record in demo.items()} for demo in (old, new))
    return differences(next(metrics), next(metrics), DEMO_LOOSELY)


def make_topics(topics: list[str]) -> None:
    """Write the files of these topics in house/ anew, from the models and the stopped runs that are there."""
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for topic in topics:
            found = numbers(Path(folder), topic)
            write_json(topic, {"finetuning": found["finetuning"]} if topic == "resuming" else found)


def make() -> None:
    """Write all of house/ but demo.json."""
    for name in (*MODELS, *RUNS):
        shutil.rmtree(HOUSE / name, ignore_errors=True)
    HOUSE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
    make_topics(list(TOPICS))


def main() -> int:
    """Make house/, or compare a demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", nargs="+", choices=TOPICS, help="write these files of house/ alone")
    parser.add_argument("--demo", type=Path, help="the folder that `audiobat demo` wrote")
    parser.add_argument("--keep", action="store_true", help="keep the demo's numbers in place of comparing them")
    parser.add_argument("--loosely", action="store_true", help="compare its metrics alone, as other CPUs round")
    given = parser.parse_args()
    if given.topics:
        make_topics(given.topics)
    elif given.demo is None:
        make()
    elif given.keep:
        write_json("demo", demo_numbers(given.demo))
    else:
        found = demo_differences(read_json("demo"), demo_numbers(given.demo), given.loosely)
        print("\n".join(found) or "the demo measured what it measured before")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
