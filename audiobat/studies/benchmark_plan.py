"""The dry run of a benchmark: which cells can run, their GPU hours, what is missing and where users get it.

Hours are counted from the settings alone, as operations of encoder and head: a multiply-add is two operations. Norms,
losses, the optimiser and the decoding of audio are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from audiobat.config import ModelConfig, ProbeConfig
from audiobat.config.benchmark import FINETUNE, NOT_STATED, PROTOCOLS
from audiobat.data.sources.catalog import data_sets
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import embedding_flops, encoder_cost
from audiobat.probing.cache import SPILL_GB
from audiobat.probing.feature_files import GB
from audiobat.probing.feature_store import FLOAT_BYTES
from audiobat.studies.benchmark_cells import Cell
from audiobat.studies.beside import terminal_table
from audiobat.zoo.load import FETCHED, load_encoder

BASE = ModelConfig()  # counted for a model that is not here, or is of another family: base size, with gates
BYTES_A_SECOND = 2 * 16_000  # of 16-bit audio at 16 kHz


def cost_of(cell: Cell, model: ModelConfig = BASE) -> tuple[float, float]:
    """The operations of encoder and of head for all seeds and folds of a cell."""
    data, finetune = cell.about_data, cell.finetune_config()
    patches = patches_of(model, finetune.data.clip_seconds)
    forward = encoder_cost(model, 1, patches).flops + embedding_flops(model, 1, patches)  # of one clip
    times = data.folds * len(cell.seeds())
    if cell.protocol == FINETUNE:
        passes = 3 * finetune.train.steps * finetune.train.batch_size + data.test  # backward costs two forwards
        return times * passes * forward, 0.0
    config = cell.probe_config()
    steps = config.train.steps * config.train.batch_size * times
    clips = data.train + data.test
    head = steps * head_flops(PROTOCOLS[cell.protocol], model, patches, config.head.prototypes, data.classes)
    if config.grid.choose:
        head *= 1 + len(config.grid.lr or (0,)) * len(config.grid.weight_decay or (0,)) / len(cell.seeds())
    if is_kept(cell.protocol, config, model, patches, clips):
        return clips * forward, head
    # Features that fit nowhere, or of rolled clips, are computed for every batch, which seeds share.
    draws = config.train.steps * config.train.batch_size * data.folds * (1 + config.grid.choose)
    return (draws + data.test * data.folds) * forward, head


def patches_of(model: ModelConfig, seconds: float) -> int:
    """Patches of a clip, padded to whole columns."""
    frames = min(seconds * model.frontend.sample_rate / model.frontend.hop_length, model.encoder.max_frames)
    return math.ceil(round(frames) / model.encoder.patch_size[0]) * model.grid[1]


def head_flops(kind: str, model: ModelConfig, patches: int, prototypes: int, classes: int) -> float:
    """Operations of one training step for one clip. Of a head's similarities only the extremes have a gradient."""
    dim = model.encoder.dim
    if kind == "linear":
        return 3 * 2.0 * dim * classes
    vectors = 3 if kind == "cgp" else 1  # min, max and cls of each prototype; Protobin has the greatest alone
    extremes, cls = (2, 3 * 2.0 * dim * prototypes) if kind == "cgp" else (1, 0.0)
    scored = 2.0 * patches * dim * prototypes + extremes * 4.0 * dim * prototypes
    return scored + cls + 3 * 2.0 * vectors * prototypes * classes


def is_kept(protocol: str, config: ProbeConfig, model: ModelConfig, patches: int, clips: int) -> bool:
    """Whether a probe computes its features once, as they fit into memory or on the disk."""
    layer = model.encoder.depth * model.encoder.dim * FLOAT_BYTES * clips
    if config.train.roll:
        return False
    if config.cache_dir is not None:
        return True
    if PROTOCOLS[protocol] == "linear":  # it needs means and cls alone
        return 2 * layer <= config.cache_gb * GB
    return (patches + 1) * layer <= max(config.cache_gb, SPILL_GB if config.cache_gb else 0.0) * GB


def plan_tables(cells: Sequence[Cell], out: Path) -> Iterator[Table | Text | str]:
    """The tables of a dry run, errors as `Text`, and the totals."""
    models, clips, faults = survey(cells)
    states = {cell: state_of(cell, models, faults, out) for cell in cells}
    lines = [(c.data, c.protocol, c.model, c.settings, state, hours_text(h)) for c, (state, h) in states.items()]
    headings = ("Data", "", "Model", "Settings", "State", "GPU hours")
    yield terminal_table(cells[0].config.title, headings, lines, text=range(5), group=0)
    if missing := missing_lines(cells, faults):
        yield terminal_table("Missing here", ("What", "Where users get it"), missing, text=(0, 1), group=0)
    # The sentences of errors stand outside of tables, which would break the paths in them.
    yield from (Text(f"{name}: {fault}") for name, fault in faults.items())
    ready = [hours for state, hours in states.values() if state == "can run"]
    done = sum(state == "done" for state, _ in states.values())
    yield f"{len(ready)} of {len(cells)} cells can run, {done} are done."
    yield (
        f"GPU hours: {hours_text(sum(hours or 0.0 for hours in ready))} for those that can run, "
        f"{hours_text(sum(hours or 0.0 for _, hours in states.values()))} for all {len(cells)}, one GPU."
    )
    yield (
        f"Counted from the operations of encoder and head at {cells[0].config.tflops:g} TFLOP/s (--tflops; 40% of "
        "an A100's peak, which is an assumption); decoding audio is not in it."
    )
    if clips:
        yield f"Here: {', '.join(f'{name}: {count:,} clips' for name, count in clips.items())}."


def survey(cells: Sequence[Cell]) -> tuple[dict[str, ModelConfig], dict[str, int], dict[str, str]]:
    """Load the weights that are here and list the clips; what would have to come over the net is left alone.

    Returns:
        Configs of models, counts of clips, and a sentence for each model or data set that is of no use, by name.
    """
    models: dict[str, ModelConfig] = {}
    clips: dict[str, int] = {}
    faults: dict[str, str] = {}
    for name, path in {cell.model: cell.about_model.path for cell in cells}.items():
        if path is None or path.startswith(FETCHED):
            continue
        try:
            encoder = load_encoder(path)
            models[name] = encoder.config if isinstance(encoder, AudioEncoder) else BASE
        except AudiobatError as error:
            faults[name] = str(error)
    for name, cell in {cell.data: cell for cell in cells if cell.about_data.path is not None}.items():
        try:
            clips[name] = len(read_labelled_clips(cell.source))
        except AudiobatError as error:
            faults[name] = str(error)
    return models, clips, faults


def state_of(
    cell: Cell, models: Mapping[str, ModelConfig], faults: Mapping[str, str], out: Path
) -> tuple[str, float | None]:
    """`done`, `can run`, or what is in the way; and the GPU hours, None if the cell's settings make no config."""
    try:
        hours = sum(cost_of(cell, models.get(cell.model, BASE))) / (cell.config.tflops * 1e12) / 3600
        if cell.is_done(out):
            return "done", hours
    except AudiobatError as error:
        return str(error), None
    names = {"weights": cell.model, "data": cell.data}
    broken = " and ".join(thing for thing, name in names.items() if name in faults)
    return cell.missing or (f"{broken} unreadable" if broken else "can run"), hours


def missing_lines(cells: Sequence[Cell], faults: Mapping[str, str]) -> list[tuple[str, str]]:
    """The weights and data sets that are not named, or are of no use, and where users get them."""
    found = []
    for name, model in {cell.model: cell.about_model for cell in cells}.items():
        if model.path is None or name in faults:
            found.append((f"weights of {name}\nsize: {model.size}\n--models {name}=PATH", model.source))
    for name, data in {cell.data: cell.about_data for cell in cells}.items():
        if data.path is None or name in faults:
            clips = data.train + data.test
            size = f"{clips:,} clips, {clips * data.seconds * BYTES_A_SECOND / 1e9:,.1f} GB at 16 kHz and 16 bits"
            where = data_sets()[data.reader].where if data.reader in data_sets() else NOT_STATED
            found.append((f"{name}\nsize: {size}\n--data {name}=FOLDER", where))
    return found


def hours_text(hours: float | None) -> str:
    """Hours to two digits."""
    if hours is None:
        return "-"
    if 0 < hours < 0.01:
        return "<0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
