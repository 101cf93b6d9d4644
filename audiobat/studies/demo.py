"""`audiobat demo`: real audio to a page in minutes: a live pre-training, three models under three heads, figures.

Nothing is precomputed but the weights of `bat_nano`. In: the recordings that the package carries. Out: a folder.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from time import monotonic

import torch
from rich.console import Console

from audiobat.config import PretrainConfig, ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.clip_table import ClipTable
from audiobat.data.scenes import demo_folder, held_out_sources, write_scenes
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.environment import environment
from audiobat.engine.files import write_atomic
from audiobat.engine.progress import duration
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.page import PlayableClip, write_page
from audiobat.evaluation.report.tables import markdown, terminal
from audiobat.evaluation.results import record_path
from audiobat.models.baselines import LogMelEncoder
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.pretraining.run import pretrain
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.run import probe_source
from audiobat.probing.training import train_head
from audiobat.studies.demo_report import CAPTIONS, Probed, draw, facts, licence, playable_clips, read_log

HEADS = ("cgp", "protobin", "linear")
PHASES = 5
MARKER = "demo.json"  # says that a folder is a demo's
DATA_NAME = "demo scenes"  # what records call the clips; those of `audiobat probe` never have this name
OWN = (
    *(MARKER, "index.html", "table.md", "data/clips.csv", "run/*"),
    *("scenes/scenes.csv", "scenes/scenes.json", "scenes/scenes.part", "scenes/audio/*.wav", "results/*.json"),
    *(f"figures/{name}.{kind}" for name in CAPTIONS for kind in ("svg", "png")),
)
CATEGORIES = {"voice": "voice", "ambient": "ambience", "music": "music"}  # prefixes of the unlabelled recordings
LEAD = (
    "The clips that train and test the probes are scenes: real recordings, mixed from a seed for this demo. The "
    "weights of {model} were pre-trained beforehand, on a corpus that the record beside them describes. Everything "
    "else on this page was computed in this run: a live pre-training of {live}, and probes of three models under "
    "three heads."
)


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs, in one place; a test runs a smaller one."""

    model: str | Path = "bat_nano"
    pretrain: PretrainConfig = field(default_factory=lambda: from_dict(PretrainConfig, load_recipe("demo")))
    probe: ProbeConfig = field(default_factory=lambda: from_dict(ProbeConfig, load_recipe("demo_probe")))
    clips_train: int = 1200
    clips_test: int = 400
    playable: int = 6


def demo(out: str | Path = "runs/demo", seconds: float = 120.0, seed: int = 0) -> Path:
    """Pre-train, probe and report on the demo recordings; returns `out`.

    Args:
        out: folder to write: index.html, table.md, results/, figures/, run/, scenes/, data/. An earlier demo there is
            replaced; a folder that holds anything else is refused.
        seconds: how long the live pre-training runs.
        seed: seed of the live run, the scenes, the untrained network and the heads.

    Raises:
        AudiobatError: no shipped weights, or `out` holds what is not the demo's.
    """
    return _run(Path(out), seconds, seed, DemoSettings())


def _run(out: Path, seconds: float, seed: int, settings: DemoSettings) -> Path:
    """`demo` with other settings."""
    start = monotonic()
    if seconds <= 0:
        raise AudiobatError(f"--seconds is {seconds:g}: give the live pre-training more than 0 seconds.")
    shipped = AudioEncoder.from_pretrained(settings.model)
    make_room(out)
    say(1, f"pre-train live for {duration(seconds)}")
    clips, held_out = write_clip_table(out / "data" / "clips.csv")
    log = read_log(pretrain_live(out, seconds, seed, settings.pretrain))
    say(2, f"mix {settings.clips_train:,} training and {settings.clips_test:,} test scenes")
    table = read_labelled_clips(write_scenes(out / "scenes", settings.clips_train, settings.clips_test, seed))
    config = dataclasses.replace(settings.probe, train=dataclasses.replace(settings.probe.train, seed=seed))
    name = Path(settings.model).name
    models: dict[str, Encoder] = {
        name: shipped,
        f"{name} untrained": untrained(shipped, seed),
        "log-mel statistics": LogMelEncoder(),
    }
    probed = {}
    for place, (label, encoder) in enumerate(models.items(), start=1):
        say(3, f"probe model {place} of {len(models)}, {label}")
        probed[label] = probe_model(label, encoder, table, config, out)
    say(4, "draw the figures")
    exhibits = draw(out / "figures", shipped, table, list(probed.values()), log)
    say(5, "write the page")
    records = [record for model in probed.values() for record in model.records.values()]
    write_atomic(out / "table.md", markdown(records))
    write_page(
        out / "index.html",
        heading="audiobat demo: pre-training and probing on real recordings",
        lead=LEAD.format(model=name, live=duration(seconds)),
        records=records,
        exhibits=exhibits,
        clips=listen(probed[name].source, table, config, settings.playable),
        predicted_by=f"{name} under a linear probe",
        facts=facts(records[0], log, clips, held_out, monotonic() - start),
        notices=[licence()],
    )
    console = Console()
    console.print(terminal(records))
    console.print(f"{out / 'index.html'} shows it all, after {duration(monotonic() - start)}.", soft_wrap=True)
    return out


def say(phase: int, what: str) -> None:
    """Name the phase; the bars below it show the time left."""
    print(f"[{phase}/{PHASES}] {what}", file=sys.stderr, flush=True)


def make_room(out: Path) -> None:
    """Make `out` a demo's folder, without what an earlier demo left but its scenes, which may serve again."""
    if out.exists() and not out.is_dir():
        raise AudiobatError(f"{out} is a file: give another --out.")
    foreign = sorted(path for path in out.rglob("*") if not path.is_dir() and not is_own(path, out))
    if foreign:
        raise AudiobatError(
            f"{out} holds {foreign[0].relative_to(out)}, which no demo wrote: move it or give another --out."
        )
    for name in ("run", "data", "results", "figures"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("index.html", "table.md"):
        (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / MARKER, json.dumps(environment(), indent=2) + "\n")


def is_own(path: Path, out: Path) -> bool:
    """Whether a demo, even one that was killed, wrote the file `path` into `out`."""
    name = path.relative_to(out).as_posix().removesuffix(".tmp")  # what is being written beside its place
    if not (out / MARKER).exists() or not any(fnmatch(name, own) for own in OWN):
        return False
    if not name.startswith("results/") or path.suffix == ".tmp":
        return True
    return f'"{DATA_NAME}"' in path.read_text(encoding="utf-8", errors="replace")


def pretrain_live(out: Path, seconds: float, seed: int, config: PretrainConfig) -> Path:
    """Pre-train for about `seconds` on OUT/data/clips.csv; returns the run folder."""
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=str(out / "data" / "clips.csv")),
        train=dataclasses.replace(config.train, seed=seed),
    )
    start = monotonic()
    run = pretrain(config, out / "run", max_seconds=seconds)
    checkpoint = load_checkpoint(run)
    done = 0 if checkpoint is None else checkpoint.step
    if done < config.train.steps and monotonic() - start < seconds:
        raise KeyboardInterrupt  # the run ended before its time: a signal came, which it took for itself
    if done == 0:
        raise AudiobatError(f"--seconds is {seconds:g}, too short for one step: give more.")
    return run


def write_clip_table(path: Path) -> tuple[int, int]:
    """List the recordings for pre-training, all but those that test scenes are made of; returns how many of each."""
    held_out = held_out_sources()
    rows = []
    for name in ("events", "unlabelled"):
        clips = read_clips(demo_folder() / f"{name}.csv")
        for row, source in enumerate(clips.columns["source"]):
            file = clips.path(row)
            category = CATEGORIES[Path(file).name.split("_")[0]] if name == "unlabelled" else "event"
            rows.append((file, category, source))
    kept = [row for row in rows if row[2] not in held_out]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as listed:
        csv.writer(listed).writerows([("path", "category", "source"), *kept])
    return len(kept), len(rows) - len(kept)


def untrained(encoder: AudioEncoder, seed: int) -> AudioEncoder:
    """The same network with fresh weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AudioEncoder(encoder.config).eval()


def probe_model(name: str, encoder: Encoder, table: ClipTable, config: ProbeConfig, out: Path) -> Probed:
    """All heads on one model's features, which are computed once, and a linear probe of every block."""
    train, test = split_for_probe(table)
    source = cache_features(encoder, table, cache_gb=config.cache_gb, device="auto")

    def record(kind: str, layer: int, path: Path) -> ResultRecord:
        [found] = probe_source(
            name, encoder, source, table, train, test, head_of(config, kind, layer), data_name=DATA_NAME
        )
        found.save(path)
        return found

    records = {kind: record(kind, -1, record_path(out, name, kind, config.train.seed)) for kind in HEADS}
    layers = [
        record("linear", layer, out / "results" / "layers" / f"{name.replace(' ', '-')}_linear_block_{layer}.json")
        for layer in range(1, encoder.depth)
    ]
    return Probed(source, records, [*layers, records["linear"]])


def head_of(config: ProbeConfig, kind: str, layer: int) -> ProbeConfig:
    """The probe's settings for one kind of head on block `layer` (cgp mixes all)."""
    return dataclasses.replace(config, head=dataclasses.replace(config.head, kind=kind, layer=layer))  # type: ignore[arg-type]


def listen(source: FeatureSource, table: ClipTable, config: ProbeConfig, count: int) -> list[PlayableClip]:
    """Clips for the page, heard by a linear probe: the recorded one, trained again, which takes seconds."""
    head, _ = train_head(
        source,
        split_for_probe(table)[0],
        torch.from_numpy(table.targets()),
        head_of(config, "linear", -1).head,
        config.train,
        len(table.classes),
        table.single_label,
    )
    return playable_clips(head, source, table, count)
