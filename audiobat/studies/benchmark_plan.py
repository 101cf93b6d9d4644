"""What a benchmark would do, as tables: cells, whether they can run, GPU hours; what is missing, where users get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from audiobat.config import ModelConfig
from audiobat.config.benchmark import NOT_STATED, BenchmarkConfig, BenchmarkData
from audiobat.data.sources.catalog import data_sets
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.studies.benchmark_cells import Cell
from audiobat.studies.benchmark_cost import BASE, cost_of
from audiobat.zoo.hf_hub import is_shared
from audiobat.zoo.load import HUGGING_FACE, load_encoder

BYTES_A_SECOND = 2 * 16_000  # of 16-bit audio at 16 kHz


@dataclass(frozen=True)
class Found:
    """What is here: models and clips that could be read, and a sentence about each that could not."""

    models: Mapping[str, ModelConfig]
    clips: Mapping[str, int]
    faults: Mapping[str, str]


def survey(config: BenchmarkConfig) -> Found:
    """Load the weights that are here and list the clips; what would have to come over the net is left alone."""
    models, clips, faults = {}, {}, {}
    for name, model in config.models.items():
        if model.path is None or is_shared(model.path) or model.path.startswith(HUGGING_FACE):
            continue
        try:
            encoder = load_encoder(model.path)
        except AudiobatError as error:
            faults[name] = str(error)
        else:
            models[name] = encoder.config if isinstance(encoder, AudioEncoder) else BASE
    for name in config.data:
        cell = Cell(next(iter(config.models)), name, config.protocols[0], config)
        if cell.about_data.path is None:
            continue
        try:
            clips[name] = len(read_labelled_clips(cell.source))
        except AudiobatError as error:
            faults[name] = str(error)
    return Found(models, clips, faults)


def plan_tables(cells: Sequence[Cell], found: Found, out: Path) -> Iterator[Table | str]:
    """The tables of a dry run, and the total."""
    yield cell_table(cells, found, out)
    missing = missing_table(cells, found)
    if missing.row_count:
        yield missing
    yield total_line(cells, found, out)


def state_of(cell: Cell, found: Found, out: Path) -> str:
    """`done`, `can run`, or what is in the way."""
    try:
        if cell.is_done(out):
            return "done"
        cost_of(cell)
    except AudiobatError as error:
        return str(error)
    places = {"weights": cell.model, "data": cell.data}
    broken = " and ".join(what for what, name in places.items() if name in found.faults)
    return cell.missing or (f"{broken} of no use" if broken else "can run")


def hours_of(cell: Cell, found: Found) -> float | None:
    """GPU hours of a cell; None if its settings are none."""
    try:
        return cost_of(cell, found.models.get(cell.model, BASE)).hours(cell.config.tflops)
    except AudiobatError:
        return None


def cell_table(cells: Sequence[Cell], found: Found, out: Path) -> Table:
    """Every cell, its settings, its state and its hours."""
    table = Table(title=cells[0].config.title, title_justify="left")
    for heading in ("Data", "", "Model", "Settings", "State"):
        table.add_column(heading, overflow="fold")
    table.add_column("GPU hours", justify="right")
    for i, cell in enumerate(cells):
        last = i + 1 == len(cells) or cells[i + 1].data != cell.data
        state = state_of(cell, found, out)
        table.add_row(
            *(cell.data, cell.protocol, cell.model, cell.settings, state, shown(hours_of(cell, found))),
            end_section=last,
        )
    return table


def missing_table(cells: Sequence[Cell], found: Found) -> Table:
    """What the cells need and nobody has named, or named in vain; then the reason comes first."""
    table = Table(title="Missing here", title_justify="left")
    for heading in ("What", "Where users get it"):
        table.add_column(heading, overflow="fold")
    known = data_sets()
    needs = [
        (name, model.path, f"weights of {name}\nsize: {model.size}\n--models {name}=PATH", model.source)
        for name, model in {cell.model: cell.about_model for cell in cells}.items()
    ]
    for name, data in {cell.data: cell.about_data for cell in cells}.items():
        where = known[data.reader].where if data.reader in known else NOT_STATED
        needs.append((name, data.path, f"{name}\nsize: {size_of(data)}\n--data {name}=FOLDER", where))
    for name, path, what, where in needs:
        if path is None or name in found.faults:
            table.add_row(what, "\n".join(filter(None, (found.faults.get(name), where))), end_section=True)
    return table


def size_of(data: BenchmarkData) -> str:
    """Clips, and what they take as 16-bit audio at 16 kHz; what the files of others take is not stated."""
    clips = data.train + data.test
    return f"{clips:,} clips, {clips * data.seconds * BYTES_A_SECOND / 1e9:,.1f} GB at 16 kHz and 16 bits"


def total_line(cells: Sequence[Cell], found: Found, out: Path) -> str:
    """Hours of what can run and of all, what they were counted from, and what is here."""
    states = {cell: state_of(cell, found, out) for cell in cells}
    hours = {cell: hours_of(cell, found) or 0.0 for cell in cells}
    ready = [cell for cell in cells if states[cell] == "can run"]
    done = sum(state == "done" for state in states.values())
    here = [f"{name}: {count:,} clips" for name, count in found.clips.items()]
    return "\n".join(
        [
            f"{len(ready)} of {len(cells)} cells can run, {done} are done.",
            f"GPU hours: {shown(sum(hours[cell] for cell in ready))} for those that can run, "
            f"{shown(sum(hours.values()))} for all {len(cells)}, one GPU.",
            f"Counted from the operations of encoder and head at {cells[0].config.tflops:g} TFLOP/s (--tflops; 40% of "
            "an A100's peak, which is an assumption); decoding audio is not in it.",
            *([f"Here: {', '.join(here)}."] if here else []),
        ]
    )


def shown(hours: float | None) -> str:
    """Hours to two digits."""
    if hours is None:
        return "-"
    if 0 < hours < 0.01:
        return "<0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"
