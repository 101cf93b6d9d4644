"""`audiobat ladder`: the rungs of Tables 2 to 4, pre-trained at a scale one can afford and probed by CGP.

Every rung and seed is a run of its own below `out`; what is done stays done, so that a killed ladder goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from audiobat.config import FrontendConfig, PretrainConfig, ProbeConfig, check, from_dict, to_dict
from audiobat.config.recipes import load_recipe, merge, parse_yaml
from audiobat.config.rungs import describe_rung, rungs
from audiobat.data.prepare.statistics import log_mel_sums
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.engine.files import write_atomic
from audiobat.engine.run_folder import check_same
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record
from audiobat.evaluation.report.ladder_figure import ladder_figure
from audiobat.evaluation.report.style import save
from audiobat.evaluation.results import record_path
from audiobat.pretraining.run import pretrain
from audiobat.probing.run import probe
from audiobat.studies.ladder_table import LABELS, PAPER, Rung, markdown_table, order_line, tables

SCALES = {"nano": "bat_nano", "small": "bat_small", "base": "bat_base"}
HEADS = 12  # of the decoders in the paper's tables
STATISTICS = "statistics.yaml"
SETTINGS = "ladder.yaml"


def ladder(
    data: str,
    probe_data: str,
    config: ProbeConfig | None = None,
    *,
    out: str | Path,
    scale: Literal["nano", "small", "base"] = "nano",
    steps: int | None = None,
    device: str = "auto",
    dry_run: bool = False,
) -> list[Rung]:
    """Climb the ladder from EAT's recipe to BAT's, and print Tables 2 to 4 with our numbers beside the paper's.

    Args:
        data: clips to pre-train on.
        probe_data: clips with labels, to probe on.
        config: how CGP is trained; its `seeds` are those of the runs, so that each rung is pre-trained as often.
        out: folder to write: runs/, results/, ladder.md, figures/.
        scale: the networks, masks and batches of `bat_nano`, `bat_small` or `bat_base`.
        steps: steps of pre-training; the warm-up and the EMA's ramp are shortened with it. None: the scale's own.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        dry_run: print the rungs, what each changes, and stop.

    Raises:
        AudiobatError: a bad argument, data that cannot be used, an `out` that was climbed with other settings.
    """
    check(scale in SCALES, "--scale", scale, f"choose one of {', '.join(SCALES)}")
    config = config or ProbeConfig()
    seeds = config.seeds or (config.train.seed,)
    out = Path(out)
    table = read_clips(data)
    read_labelled_clips(probe_data)  # what can be refused before hours of training
    if dry_run:
        plural = "" if len(seeds) == 1 else "s"
        print(f"{len(rungs())} rungs at scale {scale}, {len(seeds)} seed{plural} each, on {len(table):,} clips")
        for name in rungs():
            print(describe_rung(name))
        return []
    keep_settings(out, config, {"scale": scale, "steps": steps, "data": str(data), "probe_data": str(probe_data)})
    statistics = own_statistics(out, table, scale)
    for seed in seeds:
        for name in rungs():
            climb(name, seed, data, probe_data, config, out, scale, steps, device, statistics)
    climbed = [rung_of_records(out, name, seeds) for name in rungs()]
    write_atomic(out / "ladder.md", markdown_table(climbed, scale).encode())
    names = [rung.name for rung in climbed]
    figure = ladder_figure([LABELS[n] for n in names], [r.map for r in climbed], [PAPER[n][0] for n in names])
    save(figure, out / "figures", "ladder")
    console = Console()
    for one in tables(climbed):
        console.print(one)
    console.print(order_line(climbed))
    print(f"table: {out / 'ladder.md'}, figure: {out / 'figures' / 'ladder.svg'}")
    return climbed


def keep_settings(out: Path, config: ProbeConfig, about: Mapping[str, str | int | None]) -> None:
    """Write what all rungs have in common, or raise an AudiobatError if those that are done had something else.

    Seeds are free: more of them can be climbed later.
    """
    config = dataclasses.replace(config, seeds=(), train=dataclasses.replace(config.train, seed=0))
    record = out / SETTINGS
    if record.exists():
        check_same(record, config, about, "or a new --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(record, yaml.safe_dump({**about, **to_dict(config)}, sort_keys=False).encode())


def climb(
    name: str,
    seed: int,
    data: str,
    probe_data: str,
    probe_config: ProbeConfig,
    out: Path,
    scale: str,
    steps: int | None,
    device: str,
    statistics: Mapping[str, Any],
) -> None:
    """Pre-train and probe one rung, as far as that is not done."""
    label = run_name(name, seed)
    if record_of(out, name, seed).exists():
        return
    config = rung_config(name, scale, steps, seed, data, device, statistics)
    run = pretrain(config, out / "runs" / label)
    probe_config = dataclasses.replace(probe_config, heads=("cgp",), seeds=(seed,))
    probe(run, probe_data, probe_config, out=out, device=device)


def run_name(name: str, seed: int) -> str:
    """`4_gates-seed0`."""
    return f"{name.rpartition('/')[2]}-seed{seed}"


def record_of(out: Path, name: str, seed: int) -> Path:
    """Where a rung's record is, or will be."""
    return record_path(out, run_name(name, seed), "cgp", seed)


def rung_config(
    name: str,
    scale: str,
    steps: int | None,
    seed: int,
    data: str,
    device: str,
    statistics: Mapping[str, Any],
) -> PretrainConfig:
    """The config of a scale with a rung's method: its decoder's heads as a share of the scale's own."""
    own = load_recipe(SCALES[scale])
    full = from_dict(PretrainConfig, own)
    method = load_recipe(name)
    heads = method["decoder"]["heads"] * full.decoder.heads / HEADS
    changes: dict[str, Any] = {
        "decoder": {"heads": max(1, round(heads))},
        "data": {"path": data},
        "train": {"seed": seed, "device": device},
    }
    if method["frontend"]["kind"] == "kaldi_fbank":
        changes["frontend"] = dict(statistics)
    if steps is not None:
        share = steps / full.train.steps
        changes["train"]["steps"] = steps
        changes["optim"] = {"warmup_steps": round(full.optim.warmup_steps * share)}
        changes["target"] = {"ema_steps": max(1, round(full.target.ema_steps * share))}
    return from_dict(PretrainConfig, merge(merge(own, method), changes))


def own_statistics(out: Path, table: Any, scale: str) -> Mapping[str, Any]:
    """Mean and deviation of EAT's log-mel over the clips, computed once; at base scale those of AudioSet stand."""
    if scale == "base":
        return {}
    path = out / STATISTICS
    if not path.exists():
        own = load_recipe(SCALES[scale]).get("frontend", {})
        frontend = from_dict(FrontendConfig, {**own, "kind": "kaldi_fbank"})
        fields = log_mel_sums(table, frontend).fields()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(f"{name}: {value}\n" for name, value in fields.items()).encode())
    found = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(found, dict) or set(found) != {"mean", "std"}:
        raise AudiobatError(f"{path} holds no mean and std: remove it, and it is computed again.")
    return found


def rung_of_records(out: Path, name: str, seeds: Sequence[int]) -> Rung:
    """What the records of a rung say."""
    records = [load_record(record_of(out, name, seed)) for seed in seeds]
    return Rung.of(name, records)
