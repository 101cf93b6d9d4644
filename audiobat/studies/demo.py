"""`audiobat demo`: real audio to a page in minutes: a live pre-training, models under three heads, figures.

In: the recordings that the package holds; only the weights of `bat_nano` are computed beforehand. Out: a folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from rich.console import Console

from audiobat.config import PretrainConfig, ProbeConfig, TrainConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.clip_table import ClipTable
from audiobat.data.csv_text import write_csv
from audiobat.data.scenes import demo_folder, held_out_sources, write_scenes
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import Split, split_for_probe
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.environment import environment
from audiobat.engine.files import write_atomic
from audiobat.engine.logs import read_rows
from audiobat.engine.progress import duration
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import LAYER_NAME, ResultRecord
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.listening.section import CardGroup, listening_html
from audiobat.evaluation.report.page import write_page
from audiobat.evaluation.report.run_figures import CAPTIONS as REPORT_CAPTIONS
from audiobat.evaluation.report.run_figures import draw_all
from audiobat.evaluation.report.verdicts import judge
from audiobat.evaluation.results import record_path
from audiobat.models.baselines import BASELINES, PREFIX, load_baseline
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.models.heads import Head
from audiobat.pretraining.run import pretrain
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.one_pass import probe_splits
from audiobat.probing.plan import make_plan
from audiobat.studies.demo_report import CAPTIONS, cards, draw, facts, licence, markdown_table, terminal_table, times

HEADS = ("cgp", "protobin", "linear")
PHASES = 5
TRIAL_SECONDS = 10.0  # of the live run, after which it is said how far the rest will get
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
    "else on this page was computed in this run: a live pre-training of {live}, and probes of {models} models under "
    "three heads: of the shipped one, of the same network untrained, and of the baselines, which are statistics of "
    "log-mel, of MFCCs and of random projections. Numbers of tables are in percent, with 95% intervals over test clips "
    "in brackets."
)
LISTEN = (
    "Test clips, their labels, and the five classes that a linear probe of {model} finds most likely (✓: the clip has "
    "it)."
)


@dataclass(frozen=True)
class DemoSettings:
    """The settings of a demo; tests run a smaller one."""

    model: str | Path = "bat_nano"
    model_steps: int = field(default_factory=lambda: int(load_recipe("bat_nano")["train"]["steps"]))  # that made it
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
    phases = Phases()
    if seconds <= 0:
        raise AudiobatError(f"--seconds is {seconds:g}: give the live pre-training more than 0 seconds.")
    shipped, name = AudioEncoder.from_pretrained(settings.model), Path(settings.model).name
    make_room(out)
    phases.begin(1, "pre-train live", f" for {duration(seconds)}")
    clips, held_out = write_clip_table(out / "data" / "clips.csv")
    run = pretrain_live(out, seconds, seed, settings.pretrain, Goal(name, settings.model_steps, clips))
    log = read_log(run)
    phases.begin(2, "mix scenes", f": {settings.clips_train:,} to train and {settings.clips_test:,} to test")
    table = read_labelled_clips(write_scenes(out / "scenes", settings.clips_train, settings.clips_test, seed))
    train = dataclasses.replace(settings.probe.train, seed=seed)
    config = dataclasses.replace(settings.probe, train=train, heads=HEADS, layers=True)
    with torch.random.fork_rng():  # the same network with fresh weights
        torch.manual_seed(seed)
        untrained = AudioEncoder(shipped.config).eval()
    models: dict[str, Encoder] = {
        name: shipped,
        f"{name} untrained": untrained,
        **{PREFIX + baseline: load_baseline(baseline) for baseline in BASELINES},
    }
    records: list[ResultRecord] = []
    probed = {}
    for place, (label, encoder) in enumerate(models.items(), start=1):
        phases.begin(3, f"probe {label}", f", model {place} of {len(models)}")
        probed[label] = probe_model(label, encoder, table, config, out)
        records += probed[label].records
    phases.begin(4, "draw figures")
    collection = collect(load_all([out, out / "results" / "layers"]))
    exhibits = [*draw(out / "figures", shipped, table, log), *draw_all(out / "figures", collection)]
    phases.begin(5, "write the page")
    write_atomic(out / "table.md", markdown_table(records))
    shown = cards(probed[name].linear, probed[name].source, table, settings.playable)
    playable = CardGroup(f"{name}, Linear", shown)
    write_page(
        out / "index.html",
        collection,
        judge(collection.rows, {}),  # the demo keeps no scores to pair: by overlap of intervals
        exhibits,
        listening_html([playable], intro=LISTEN.format(model=name)),
        heading="audiobat demo: pre-training and probing on real recordings",
        lead=LEAD.format(model=name, live=duration(seconds), models=len(models)),
        facts=facts(records[0], log, clips, held_out, settings.model_steps, phases.took()),
        notices=[licence()],
    )
    console = Console()
    console.print(terminal_table(records))
    console.print(times(phases.took()), soft_wrap=True)
    console.print(f"{out / 'index.html'} shows it all.", soft_wrap=True)
    return out


class Phases:
    """Says which phase begins, and notes how long each takes; progress bars below show the time that is left in it."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def begin(self, number: int, name: str, more: str = "") -> None:
        """Print that a phase begins; the one before it is over."""
        self._begun.append((name, monotonic()))
        print(f"[{number}/{PHASES}] {name}{more}", file=sys.stderr, flush=True)

    def took(self) -> dict[str, float]:
        """The seconds of each phase, of the last one until now."""
        ends = [*(start for _, start in self._begun[1:]), monotonic()]
        return {name: end - start for (name, start), end in zip(self._begun, ends, strict=True)}


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


@dataclass(frozen=True)
class Goal:
    """What the steps of a live run are seen beside."""

    model: str  # name of the shipped weights
    model_steps: int  # that made them
    clips: int  # that the live run has


def pretrain_live(out: Path, seconds: float, seed: int, config: PretrainConfig, goal: Goal) -> Path:
    """Pre-train for about `seconds` on OUT/data/clips.csv; returns the run folder.

    After a few seconds the run is stopped, its speed is looked at, and it goes on from there: no step is lost.
    """
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=str(out / "data" / "clips.csv")),
        train=dataclasses.replace(config.train, seed=seed),
    )
    start, run = monotonic(), out / "run"
    done = train_until(config, run, start + min(TRIAL_SECONDS, seconds / 4))
    if done < config.train.steps:
        if done:
            left = start + seconds - monotonic()
            print(outlook(read_log(run), left, config.train, goal), file=sys.stderr, flush=True)
        done = train_until(config, run, start + seconds)
    if done == 0:
        raise AudiobatError(f"--seconds is {seconds:g}, too short for one step: give more.")
    return run


def train_until(config: PretrainConfig, run: Path, end: float) -> int:
    """Begin the run, or go on with it, until the clock shows `end`; returns how many steps are done in all."""
    left = math.ceil(10 * max(0.0, end - monotonic())) / 10  # up, so that no run ends before the time
    pretrain(config, run, max_seconds=left)
    checkpoint = load_checkpoint(run)
    return 0 if checkpoint is None else checkpoint.step


def outlook(log: Sequence[Mapping[str, Any]], seconds: float, train: TrainConfig, goal: Goal) -> str:
    """How far a run with this log will get in some more seconds, and what that is worth."""
    first, last = log[0], log[-1]
    rate = last["steps_per_second"]
    if len(log) > 1:  # without the steps of the first row, which are slower
        rate = (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
    steps = min(train.steps, last["step"] + round(max(0.0, seconds) * rate))
    heard, share = steps * train.batch_size / goal.clips, steps / goal.model_steps
    return (
        f"Measured: {rate:.3g} steps/s, so that this run will reach about {steps:,} steps. It will hear each of its "
        f"{goal.clips} clips about {heard:.2g} times, and take {share:.1%} of the {goal.model_steps:,} steps that made "
        f"{goal.model}: enough to see how training goes; the probes are of {goal.model}."
    )


def read_log(run: Path) -> list[dict[str, Any]]:
    """The rows of a run; `seconds`, which start anew where a run goes on, are of all its parts together."""
    rows, _ = read_rows(run / "metrics.jsonl")
    before = 0.0  # seconds of the parts that ended
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        alone, row["seconds"] = row["seconds"], row["seconds"] + before
        if after is not None and after["seconds"] < alone:
            before += alone
    return rows


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
        write_csv(listed, [("path", "category", "source"), *kept])
    return len(kept), len(rows) - len(kept)


@dataclass(frozen=True)
class Probed:
    """A model's features, and what was trained on them."""

    source: FeatureSource
    records: list[ResultRecord]  # of HEADS
    linear: Head


def probe_model(name: str, encoder: Encoder, table: ClipTable, config: ProbeConfig, out: Path) -> Probed:
    """Train and test all heads, and a linear probe of every block, in one pass over a model's features.

    Records of blocks are only written.
    """
    source = cache_features(encoder, table, cache_gb=config.cache_gb, device="auto")
    split = Split(*split_for_probe(table))
    plan = make_plan(table, [split], config, encoder.depth, data_name=DATA_NAME)
    jobs = [job for job in plan.jobs if job.head.layer != encoder.depth]  # the last block's is that of HEADS
    heads, records = {}, []
    for result, head in probe_splits(name, encoder, source, dataclasses.replace(plan, jobs=jobs)):
        heads[result.name] = head
        if result.name.startswith(LAYER_NAME):
            path = out / "results" / "layers" / f"{name.replace(' ', '-')}_{result.name}.json"
        else:
            path = record_path(out, name, result.name, config.train.seed)
            records.append(result.record)
        result.record.save(path)
    return Probed(source, records, heads["linear"])
