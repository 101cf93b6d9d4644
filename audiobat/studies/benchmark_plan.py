"""The dry run of a benchmark: which cells can run, their GPU hours, what is missing and where users get it.

Hours are counted from the settings alone, as operations of encoder and head: a multiply-add is two operations. Norms,
losses, the optimiser and the decoding of audio are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from audiobat.config import ModelConfig, ProbeConfig
from audiobat.config.benchmark import FINETUNE, NOT_STATED, PROTOCOLS, BenchmarkConfig, BenchmarkData
from audiobat.data.sources.catalog import data_sets
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.cache import GB, SPILL_GB
from audiobat.probing.feature_store import FLOAT_BYTES
from audiobat.studies.benchmark_cells import Cell
from audiobat.studies.tables import terminal_table
from audiobat.zoo.hf_hub import is_shared
from audiobat.zoo.load import HUGGING_FACE, load_encoder

BASE = ModelConfig()  # counted for a model that is not here, or is of another family: base size, with gates
BYTES_A_SECOND = 2 * 16_000  # of 16-bit audio at 16 kHz


@dataclass(frozen=True)
class Cost:
    """Operations of a cell."""

    encoder: float
    head: float

    def hours(self, tflops: float) -> float:
        """Hours at `tflops` 10^12 operations a second."""
        return (self.encoder + self.head) / (tflops * 1e12) / 3600


def cost_of(cell: Cell, model: ModelConfig = BASE) -> Cost:
    """The operations of all seeds and folds of a cell."""
    data, finetune = cell.about_data, cell.finetune_config()
    patches = patches_of(model, finetune.data.clip_seconds)
    forward = forward_flops(model, patches)
    times = data.folds * len(cell.seeds())
    if cell.protocol == FINETUNE:
        passes = 3 * finetune.train.steps * finetune.train.batch_size + data.test  # backward costs two forwards
        return Cost(times * passes * forward, 0.0)
    config = cell.probe_config()
    steps = config.train.steps * config.train.batch_size * times
    clips = data.train + data.test
    head = steps * head_flops(PROTOCOLS[cell.protocol], model, patches, config.head.prototypes, data.classes)
    if config.grid.choose:
        head *= 1 + len(config.grid.lr or (0,)) * len(config.grid.weight_decay or (0,)) / len(cell.seeds())
    if is_kept(cell.protocol, config, model, patches, clips):
        return Cost(clips * forward, head)
    # Features that fit nowhere are computed for every batch, which seeds share.
    draws = config.train.steps * config.train.batch_size * data.folds * (1 + config.grid.choose)
    return Cost((draws + data.test * data.folds) * forward, head)


def patches_of(model: ModelConfig, seconds: float) -> int:
    """Patches of a clip, padded to whole columns."""
    frames = min(seconds * model.frontend.sample_rate / model.frontend.hop_length, model.encoder.max_frames)
    high, wide = model.frontend.mel_bins // model.encoder.patch_size[1], model.encoder.patch_size[0]
    return math.ceil(round(frames) / wide) * high


def forward_flops(model: ModelConfig, patches: int) -> float:
    """Operations of the encoder for one clip: its blocks on the patches and the cls token, and the patch embedding."""
    encoder, tokens = model.encoder, patches + 1
    linear = 2 * (4 + encoder.gated_attention + 2 * encoder.mlp_ratio) * encoder.dim**2
    embed = patches * 2 * encoder.patch_size[0] * encoder.patch_size[1] * encoder.dim
    return encoder.depth * tokens * (linear + 4 * tokens * encoder.dim) + embed


def head_flops(kind: str, model: ModelConfig, patches: int, prototypes: int, classes: int) -> float:
    """Operations of one training step for one clip. Of a head's similarities only the extremes have a gradient."""
    dim = model.encoder.dim
    if kind == "linear":
        return 3 * 2.0 * dim * classes
    extremes = 2 if kind == "cgp" else 1
    scored = 2.0 * patches * dim * prototypes + extremes * 4.0 * dim * prototypes
    cls = 3 * 2.0 * dim * prototypes if kind == "cgp" else 0.0
    features = 3 * prototypes if kind == "cgp" else prototypes
    return scored + cls + 3 * 2.0 * features * classes


def is_kept(protocol: str, config: ProbeConfig, model: ModelConfig, patches: int, clips: int) -> bool:
    """Whether a probe computes its features once, as they fit into memory or on the disk."""
    layer = model.encoder.depth * model.encoder.dim * FLOAT_BYTES * clips
    if config.cache_dir is not None:
        return True
    if PROTOCOLS[protocol] == "linear":  # it needs means and cls alone
        return 2 * layer <= config.cache_gb * GB
    return (patches + 1) * layer <= max(config.cache_gb, SPILL_GB if config.cache_gb else 0.0) * GB


@dataclass(frozen=True)
class Survey:
    """What is here: configs of models and counts of clips by name, and an error's sentence for each that is no use."""

    models: Mapping[str, ModelConfig]
    clips: Mapping[str, int]
    faults: Mapping[str, str]


def survey(config: BenchmarkConfig) -> Survey:
    """Load the weights that are here and list the clips; what would have to come over the net is left alone."""
    models, clips, faults = {}, {}, {}
    for name, model in config.models.items():
        if model.path is None or is_shared(model.path) or model.path.startswith(HUGGING_FACE):
            continue
        try:
            encoder = load_encoder(model.path)
            models[name] = encoder.config if isinstance(encoder, AudioEncoder) else BASE
        except AudiobatError as error:
            faults[name] = str(error)
    for name, data in config.data.items():
        if data.path is not None:
            cell = Cell(next(iter(config.models)), name, config.protocols[0], config)
            try:
                clips[name] = len(read_labelled_clips(cell.source))
            except AudiobatError as error:
                faults[name] = str(error)
    return Survey(models, clips, faults)


def plan_tables(cells: Sequence[Cell], found: Survey, out: Path) -> Iterator[Table | Text | str]:
    """The tables of a dry run, errors as `Text`, and the totals."""
    states, hours = {}, {}
    for cell in cells:
        states[cell], hours[cell] = state_of(cell, found, out)
    lines = [(c.data, c.protocol, c.model, c.settings, states[c], hours_text(hours[c])) for c in cells]
    headings = ("Data", "", "Model", "Settings", "State", "GPU hours")
    yield terminal_table(cells[0].config.title, headings, lines, text=range(5), group=0)
    missing = missing_table(cells, found)
    if missing.row_count:
        yield missing
    used = {name for cell in cells for name in (cell.model, cell.data)}
    # The sentences of errors stand outside of tables, which would break the paths in them.
    yield from (Text(f"{name}: {fault}") for name, fault in found.faults.items() if name in used)
    ready = [cell for cell in cells if states[cell] == "can run"]
    done = sum(state == "done" for state in states.values())
    here = ", ".join(f"{name}: {count:,} clips" for name, count in found.clips.items())
    yield "\n".join(
        [
            f"{len(ready)} of {len(cells)} cells can run, {done} are done.",
            f"GPU hours: {hours_text(sum(hours[cell] or 0.0 for cell in ready))} for those that can run, "
            f"{hours_text(sum(h or 0.0 for h in hours.values()))} for all {len(cells)}, one GPU.",
            f"Counted from the operations of encoder and head at {cells[0].config.tflops:g} TFLOP/s (--tflops; 40% of "
            "an A100's peak, which is an assumption); decoding audio is not in it.",
            *([f"Here: {here}."] if here else []),
        ]
    )


def state_of(cell: Cell, found: Survey, out: Path) -> tuple[str, float | None]:
    """`done`, `can run`, or what is in the way; and the GPU hours, None if the cell's settings make no config."""
    try:
        hours = cost_of(cell, found.models.get(cell.model, BASE)).hours(cell.config.tflops)
        if cell.is_done(out):
            return "done", hours
    except AudiobatError as error:
        return str(error), None
    names = {"weights": cell.model, "data": cell.data}
    broken = " and ".join(thing for thing, name in names.items() if name in found.faults)
    return cell.missing or (f"{broken} of no use" if broken else "can run"), hours


def missing_table(cells: Sequence[Cell], found: Survey) -> Table:
    """The weights and data sets that are not named, or are of no use, and where users get them."""
    known = data_sets()
    needs = [
        (name, model.path, f"weights of {name}\nsize: {model.size}\n--models {name}=PATH", model.source)
        for name, model in {cell.model: cell.about_model for cell in cells}.items()
    ]
    for name, data in {cell.data: cell.about_data for cell in cells}.items():
        where = known[data.reader].where if data.reader in known else NOT_STATED
        needs.append((name, data.path, f"{name}\nsize: {size_of(data)}\n--data {name}=FOLDER", where))
    lines = [(thing, where) for name, path, thing, where in needs if path is None or name in found.faults]
    return terminal_table("Missing here", ("What", "Where users get it"), lines, text=(0, 1), group=0)


def size_of(data: BenchmarkData) -> str:
    """Clips, and their bytes as 16-bit audio at 16 kHz; the size of other files is not stated."""
    clips = data.train + data.test
    return f"{clips:,} clips, {clips * data.seconds * BYTES_A_SECOND / 1e9:,.1f} GB at 16 kHz and 16 bits"


def hours_text(hours: float | None) -> str:
    """Hours to two digits."""
    if hours is None:
        return "-"
    if 0 < hours < 0.01:
        return "<0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
