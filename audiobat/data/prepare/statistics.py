"""`audiobat prepare --stats`: clips to the mean and deviation of their log-mel, which `norm: global` takes (Table 2).

In: a clip table and a frontend. Out: YAML to paste into a recipe, and a small JSON file. Sums are kept, not means,
so that the sums of parts, each in a file beside the result, add up to those of the whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from audiobat.audio.frontends.base import Frontend, build_frontend
from audiobat.config import FrontendConfig, to_dict
from audiobat.data.clip import open_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_skipped, load
from audiobat.engine.files import read_json, write_atomic
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError

CHUNK = 64  # clips that a worker sums at once
FRAMES = 1024  # of a window, as models take them: longer clips are cut, so that memory holds them
SAVE_SECONDS = 10.0  # between two files of a part under way
SKIPPED_SHOWN = 5  # unreadable clips that are printed; the file has all
NOT_OF_LOG_MEL = ("norm", "statistics", "mean", "std")  # fields of a frontend on which its log-mel does not depend
DIFFERENCE = {"clips": "other clips", "data_sha256": "other clips", "frontend": "another frontend"}


@dataclass(frozen=True)
class LogMelSums:
    """Sums over all cells of the spectrograms of some clips; padding is never among them."""

    clips: int = 0
    silent: int = 0  # clips whose cells are all the same number; they count like others
    cells: int = 0
    total: float = 0.0
    squares: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)  # key -> reason, of the clips that cannot be read

    def __add__(self, other: LogMelSums) -> LogMelSums:
        names = [f.name for f in fields(self) if f.name != "skipped"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return LogMelSums(**sums, skipped=self.skipped | other.skipped)

    @property
    def tried(self) -> int:
        """Clips that were read or skipped."""
        return self.clips + len(self.skipped)

    @property
    def mean(self) -> float:
        """Mean of a cell."""
        return self.total / self.cells

    @property
    def std(self) -> float:
        """Standard deviation of a cell."""
        return math.sqrt(max(0.0, self.squares / self.cells - self.mean**2))

    def fields(self) -> dict[str, Any]:
        """`frontend.mean` and `frontend.std`, to four decimals; an AudiobatError for no clip, or silence alone."""
        if not self.cells:
            raise AudiobatError("No clip can be read, so there are no statistics: check the data.")
        mean, std = round(self.mean, 4), round(self.std, 4)
        if std == 0:
            raise AudiobatError(
                f"All {self.clips} clips are silent: their log-mel is {mean} throughout. Check the data."
            )
        return {"mean": mean, "std": std}


def log_mel_sums(
    table: ClipTable,
    frontend: FrontendConfig,
    *,
    workers: int = 0,
    begun: LogMelSums | None = None,
    keep: Callable[[LogMelSums], None] | None = None,
) -> LogMelSums:
    """Read the clips once and sum up their log-mel.

    Args:
        table: the clips; `skipped` of the sums says which of them cannot be read, and why.
        frontend: whose log-mel spectrogram it is, before its `norm`. Clips beyond 1,024 frames are cut into windows.
        workers: processes that decode and transform; 0: this one does.
        begun: sums over the first clips, from an earlier run; the others are added to them.
        keep: is given the sums so far, every 64 clips.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable.
    """
    sums = begun or LogMelSums()
    chunks = _Chunks(table, build_frontend(frontend))
    with Progress("statistics", len(table), "clip", done=sums.tried) as bar:
        for chunk in load(chunks, range(sums.tried, len(table), CHUNK), workers):
            sums += chunk
            check_skipped(sums.skipped, sums.tried, len(table))
            if keep is not None:
                keep(sums)
            bar.advance(chunk.tried)
    return sums


@dataclass(frozen=True, eq=False)
class _Chunks(Dataset[LogMelSums]):
    """Item `first` is the sum over 64 clips from clip `first` on."""

    table: ClipTable
    frontend: Frontend

    def __getitem__(self, first: int) -> LogMelSums:
        sums = LogMelSums()
        for clip_id in range(first, min(first + CHUNK, len(self.table))):
            try:
                sums += clip_sums(self.table, clip_id, self.frontend)
            except AudiobatError as error:
                sums += LogMelSums(skipped={str(self.table.keys[clip_id]): str(error)})
        return sums


def clip_sums(table: ClipTable, clip_id: int, frontend: Frontend) -> LogMelSums:
    """The sums of one clip, in pieces of 1,024 hops; a last one shorter than the analysis window is left out."""
    rate = frontend.config.sample_rate
    seconds, shortest = FRAMES * frontend.config.hop_length / rate, frontend.config.win_length / rate
    sums = LogMelSums()
    low, high = math.inf, -math.inf
    with open_clip(table, clip_id) as clip:
        for piece in range(max(1, math.ceil((clip.seconds - shortest) / seconds))):  # a short clip is one piece
            samples = torch.from_numpy(clip.read(rate, piece * seconds, seconds))
            cells = frontend.raw_spectrogram(samples[None], torch.tensor([len(samples)])).double()
            sums += LogMelSums(0, 0, cells.numel(), float(cells.sum()), float(cells.square().sum()))
            low, high = min(low, float(cells.min())), max(high, float(cells.max()))
    return replace(sums, clips=1, silent=int(low == high))


def statistics(
    table: ClipTable,
    frontend: FrontendConfig,
    file: Path | None,
    part: tuple[int, int],
    workers: int,
    overwrite: bool,
) -> None:
    """Compute, or take from `file`, the statistics of the clips, and print them.

    Args:
        table: the clips.
        frontend: whose log-mel it is.
        file: a .json to write; None: print only.
        part: (r, d): sum over the r-th of d equal runs of clips, counted from 0. The part that finds all others done
            adds them up.
        workers: processes that decode and transform.
        overwrite: begin anew, whatever `file` or its parts hold.
    """
    if file is None:
        print(describe(log_mel_sums(table, frontend, workers=workers), frontend))
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "clips": len(table),
        "data_sha256": table.sha256(),
        "frontend": {name: value for name, value in to_dict(frontend).items() if name not in NOT_OF_LOG_MEL},
    }
    part_file, clips = _part_of(file, len(table), *part)
    if overwrite:
        file.unlink(missing_ok=True)
        part_file.unlink(missing_ok=True)
    if file.exists():
        whole: LogMelSums | None = _load(file, about)
    else:
        _sum_part(table, frontend, part_file, about, clips, workers)
        whole, missing = _merge(file, about, part[1])
    if whole is None:
        shown = ", ".join(f"{number + 1}/{part[1]}" for number in missing)
        print(f"# --part {shown} of the statistics are missing; whoever finds all of them beside {file} adds them up.")
    else:
        print(describe(whole, frontend))
        print(f"# written to {file}")


def _part_of(file: Path, clips: int, remainder: int, divisor: int) -> tuple[Path, range]:
    """A part's file, as `statistics.3-of-16.json`, and its clips: neighbours, which lie in the same shards."""
    own = range(clips * remainder // divisor, clips * (remainder + 1) // divisor)
    return file.with_name(f"{file.stem}.{remainder + 1}-of-{divisor}.json"), own


def _sum_part(
    table: ClipTable, frontend: FrontendConfig, file: Path, about: Mapping[str, Any], own: range, workers: int
) -> None:
    """Sum over a part's clips, on from where its file was left, and write the sums now and then and at the end."""
    begun = _load(file, about) if file.exists() else LogMelSums()
    last = monotonic()

    def keep(sums: LogMelSums) -> None:
        nonlocal last
        if monotonic() - last >= SAVE_SECONDS or sums.tried == len(own):
            _save(file, about, sums)
            last = monotonic()

    if not len(own):  # more parts than clips
        _save(file, about, begun)
    elif begun.tried < len(own):
        log_mel_sums(table.select(np.arange(own.start, own.stop)), frontend, workers=workers, begun=begun, keep=keep)


def _merge(file: Path, about: Mapping[str, Any], divisor: int) -> tuple[LogMelSums | None, list[int]]:
    """Add up the parts if all are done, write `file` and remove them; else None, and which are missing."""
    parts = [_part_of(file, int(about["clips"]), number, divisor) for number in range(divisor)]
    try:
        found = [_load(path, about) if path.exists() else None for path, _ in parts]
    except FileNotFoundError:  # another machine found all parts too, and was faster
        return _load(file, about), []
    done = {i: sums for i, sums in enumerate(found) if sums is not None and sums.tried == len(parts[i][1])}
    if len(done) < divisor:
        return (_load(file, about), []) if file.exists() else (None, [i for i in range(divisor) if i not in done])
    whole = sum(done.values(), LogMelSums())
    whole.fields()  # raises where there are none
    _save(file, about, whole, {"mean": whole.mean, "std": whole.std})
    for path, _ in parts:
        path.unlink(missing_ok=True)
    return whole, []


def _save(file: Path, about: Mapping[str, Any], sums: LogMelSums, result: Mapping[str, float] | None = None) -> None:
    """Write sums, what they are of, and the result if they are of all clips."""
    content = {**(result or {}), **about, "sums": asdict(sums)}
    write_atomic(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _load(file: Path, about: Mapping[str, Any]) -> LogMelSums:
    """The sums that `file` holds, if they are of these clips and this frontend."""
    try:
        content = read_json(file)
        found = {name: content[name] for name in about}
        sums = LogMelSums(**content["sums"])
    except (KeyError, TypeError, ValueError):
        raise AudiobatError(f"{file} holds no statistics: remove it, or give --overwrite.") from None
    for name, value in about.items():
        if found[name] != value:
            raise AudiobatError(f"{file} holds statistics of {DIFFERENCE[name]}: give --overwrite, or another OUT.")
    return sums


def describe(sums: LogMelSums, frontend: FrontendConfig) -> str:
    """Lines of YAML to paste into a recipe; all else as comments. Raises as `LogMelSums.fields` does."""
    values = {"statistics": "auto", **sums.fields()}
    lines = [f"# {frontend.kind} over {sums.clips:,} clips, {sums.cells:,} cells"]
    if sums.silent:
        lines.append(f"# silent: {sums.silent:,} of them hold one value throughout, and count")
    if sums.skipped:
        lines.append(f"# skipped: {len(sums.skipped):,} clips that cannot be read")
        lines += [f"#   {' '.join(f'{key}: {why}'.split())}" for key, why in [*sums.skipped.items()][:SKIPPED_SHOWN]]
        lines += ["#   ..."] if len(sums.skipped) > SKIPPED_SHOWN else []
    lines += ["frontend:", *(f"  {name}: {value}" for name, value in values.items())]
    if frontend.norm != "global":
        lines.append("  norm: global  # its own, minmax, takes each clip's minimum and maximum, and no statistics")
    return "\n".join(lines)
