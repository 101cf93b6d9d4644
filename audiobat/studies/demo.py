"""`audiobat demo`: real audio to a page in minutes: a live pre-training, three models under three heads, figures.

In: the recordings that the package holds; only the weights of `bat_nano` are computed beforehand. Out: a folder.
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
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.listening import CardGroup, listening_html
from audiobat.evaluation.report.page import write_page
from audiobat.evaluation.report.run_figures import CAPTIONS as REPORT_CAPTIONS
from audiobat.evaluation.report.run_figures import draw_all
from audiobat.evaluation.report.verdicts import judge
from audiobat.evaluation.results import record_path
from audiobat.models.baselines import LogMelEncoder
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.pretraining.run import pretrain
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.run import probe_source
from audiobat.probing.training import train_head
from audiobat.studies.demo_report import CAPTIONS, cards, draw, facts, licence, markdown_table, terminal_table

HEADS = ("cgp", "protobin", "linear")
PHASES = 5
MARKER = "demo.json"  # a folder that holds it is a demo's
DATA_NAME = "demo scenes"  # of the clips in records; those of `audiobat probe` never have this name
OWN = (
    *(MARKER, "index.html", "table.md", "data/clips.csv", "run/*"),
    *("scenes/scenes.csv", "scenes/scenes.json", "scenes/scenes.part", "scenes/audio/*.wav", "results/*.json"),
    *(f"figures/{name}.{kind}" for name in (*CAPTIONS, *REPORT_CAPTIONS) for kind in ("svg", "png")),
)
CATEGORIES = {"voice": "voice", "ambient": "ambience", "music": "music"}  # prefixes of the unlabelled recordings
LEAD = (
    "The clips that train and test the probes are scenes: real recordings, mixed from a seed for this demo. The "
    "weights of {model} were pre-trained beforehand, on a corpus that the record beside them describes. Everything "
    "else on this page was computed in this run: a live pre-training of {live}, and probes of three models under "
    "three heads. Numbers of tables are in percent, with 95% intervals over test clips in brackets."
)
LISTEN = (
    "Test clips, their labels, and the five classes that a linear probe of {model} finds most likely (✓: the clip has "
    "it)."
)


@dataclass(frozen=True)
class DemoSettings:
    """The settings of a demo; tests run a smaller one."""

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
        AudiobatError: no shipped weights, or `out` holds files that no demo wrote.
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
    run = pretrain_live(out, seconds, seed, settings.pretrain)
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    say(2, f"mix {settings.clips_train:,} training and {settings.clips_test:,} test scenes")
    table = read_labelled_clips(write_scenes(out / "scenes", settings.clips_train, settings.clips_test, seed))
    config = dataclasses.replace(settings.probe, train=dataclasses.replace(settings.probe.train, seed=seed))
    name = Path(settings.model).name
    with torch.random.fork_rng():  # the same network with fresh weights
        torch.manual_seed(seed)
        untrained = AudioEncoder(shipped.config).eval()
    models: dict[str, Encoder] = {
        name: shipped,
        f"{name} untrained": untrained,
        "log-mel statistics": LogMelEncoder(),
    }
    records: list[ResultRecord] = []
    sources = {}
    for place, (label, encoder) in enumerate(models.items(), start=1):
        say(3, f"probe model {place} of {len(models)}, {label}")
        sources[label], found = probe_model(label, encoder, table, config, out)
        records += found
    say(4, "draw the figures")
    collection = collect(load_all([out, out / "results" / "layers"]))
    exhibits = [*draw(out / "figures", shipped, table, log), *draw_all(out / "figures", collection)]
    say(5, "write the page")
    write_atomic(out / "table.md", markdown_table(records))
    linear = head_of(config, "linear", -1)  # trained again, which takes seconds: its record is of the same head
    labels, single = torch.from_numpy(table.targets()), table.single_label
    head, _ = train_head(
        sources[name], split_for_probe(table)[0], labels, linear.head, config.train, len(table.classes), single
    )
    playable = CardGroup(f"{name}, Linear", cards(head, sources[name], table, settings.playable))
    write_page(
        out / "index.html",
        collection,
        judge(collection.rows, {}),  # the demo keeps no scores to pair: by overlap of intervals
        exhibits,
        listening_html([playable], intro=LISTEN.format(model=name)),
        heading="audiobat demo: pre-training and probing on real recordings",
        lead=LEAD.format(model=name, live=duration(seconds)),
        facts=facts(records[0], log, clips, held_out, monotonic() - start),
        notices=[licence()],
    )
    console = Console()
    console.print(terminal_table(records))
    console.print(f"{out / 'index.html'} shows it all, after {duration(monotonic() - start)}.", soft_wrap=True)
    return out


def say(phase: int, what: str) -> None:
    """Print which phase begins; progress bars below it show the time left."""
    print(f"[{phase}/{PHASES}] {what}", file=sys.stderr, flush=True)


def make_room(out: Path) -> None:
    """Make `out` a demo's folder, and remove all that an earlier demo wrote but its scenes, which may serve again.

    Raises:
        AudiobatError: `out` is a file, or holds a file that no demo wrote.
    """
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
    name = path.relative_to(out).as_posix().removesuffix(".tmp")  # of a file that was being written
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
        raise KeyboardInterrupt  # it stopped before its time: on a signal, which pretrain caught and the demo did not
    if done == 0:
        raise AudiobatError(f"--seconds is {seconds:g}, too short for one step: give more.")
    return run


def write_clip_table(path: Path) -> tuple[int, int]:
    """List the recordings for pre-training, without those that test scenes are made of; returns both counts."""
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


def probe_model(
    name: str, encoder: Encoder, table: ClipTable, config: ProbeConfig, out: Path
) -> tuple[FeatureSource, list[ResultRecord]]:
    """Train and test all heads, and a linear probe of every block, on a model's features, which are computed once.

    Returns the features and the heads' records; the records of blocks are only written.
    """
    train, test = split_for_probe(table)
    source = cache_features(encoder, table, cache_gb=config.cache_gb, device="auto")

    def record(kind: str, layer: int, path: Path) -> ResultRecord:
        head = head_of(config, kind, layer)
        [found] = probe_source(name, encoder, source, table, train, test, head, data_name=DATA_NAME)
        found.save(path)
        return found

    records = [record(kind, -1, record_path(out, name, kind, config.train.seed)) for kind in HEADS]
    for layer in range(1, encoder.depth):  # the last block's is that of HEADS
        record("linear", layer, out / "results" / "layers" / f"{name.replace(' ', '-')}_linear_block_{layer}.json")
    return source, records


def head_of(config: ProbeConfig, kind: str, layer: int) -> ProbeConfig:
    """The probe's settings for one kind of head on block `layer` (cgp mixes all)."""
    return dataclasses.replace(config, head=dataclasses.replace(config.head, kind=kind, layer=layer))
