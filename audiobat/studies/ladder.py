"""`audiobat ladder`: the steps from EAT's recipe to BAT's (Tables 2 to 4), at an affordable scale, under CGP.

Every rung is a recipe (`ladder/...`); every rung and seed is a run of its own below `out`. What is done stays done, so
that a ladder that was killed goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from audiobat.config import FrontendConfig, PretrainConfig, ProbeConfig, check, from_dict, to_dict
from audiobat.config.recipes import Recipe, load_recipe, make_config, merge, write_yaml
from audiobat.config.rungs import describe_rung, rungs
from audiobat.data.clip_table import ClipTable
from audiobat.data.prepare.statistics import log_mel_sums
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.engine.files import write_atomic
from audiobat.engine.run_folder import check_same, unfinished
from audiobat.errors import AudiobatError, counted
from audiobat.evaluation.report.style import save
from audiobat.pretraining.run import pretrain
from audiobat.probing.run import probe
from audiobat.studies.beside import Panels, beside_figure, terminal_table
from audiobat.studies.ladder_plan import power_lines, spread_of, time_lines
from audiobat.studies.ladder_steps import (
    HEADINGS,
    PAPER,
    STEP_HEADINGS,
    Rung,
    markdown_table,
    missing,
    rung_of_records,
    step_lines,
    steps_figure,
    steps_of_records,
    table_lines,
    verdict_line,
)

SCALES = {"nano": "bat_nano", "small": "bat_small", "base": "bat_base"}
HEADS = 12  # of the decoders in the paper's tables
STATISTICS = "statistics.yaml"
SETTINGS = "ladder.yaml"


def ladder(
    data: str,
    probe_data: str,
    config: ProbeConfig | Recipe | None = None,
    *,
    out: str | Path,
    scale: Literal["nano", "small", "base"] = "nano",
    steps: int | None = None,
    probes: int = 1,
    device: str = "auto",
    dry_run: bool = False,
    calibrate: bool = False,
) -> list[Rung]:
    """Pre-train and probe every rung, and print Tables 2 to 4 with our numbers beside the paper's.

    Args:
        data: clips to pre-train on.
        probe_data: clips with labels, to probe on.
        config: how CGP is trained; its `seeds` are those of the runs, so that each rung is pre-trained as often.
        out: folder to write: runs/, results/, ladder.md, figures/.
        scale: the networks, masks and batches of `bat_nano`, `bat_small` or `bat_base`.
        steps: steps of pre-training; the warm-up and the EMA's ramp are shortened with it. None: the scale's own.
        probes: heads with seeds of their own on each run, on the same features; their mean is the run's number.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        dry_run: print the rungs, what each changes, how many seeds a difference needs, and stop.
        calibrate: with `dry_run`, train a few steps of each rung, keep nothing, and print the hours of the ladder.

    Returns:
        The rungs from the first to the last; none in a dry run.

    Raises:
        AudiobatError: a bad argument, data that cannot be used, an `out` that holds rungs of other settings.
    """
    check(scale in SCALES, "--scale", scale, f"choose one of {', '.join(SCALES)}")
    check(probes >= 1, "probes", probes, "use 1 or more")
    check(dry_run or not calibrate, "calibrate", calibrate, "it goes with --dry-run only")
    config = make_config(ProbeConfig, config)
    seeds = config.seeds or (config.train.seed,)
    out, data = Path(out), str(data)  # a Path, too, from Python
    table = read_clips(data)
    labels = config.labels
    # A mistake in it must not show after hours of pre-training.
    read_labelled_clips(probe_data, labels.column, labels.background, labels.map)
    unit = {"mean": 0.0, "std": 1.0}  # no statistics yet, and they change neither what is allowed nor the time
    plans = {name: rung_config(name, scale, steps, seeds[0], data, device, unit) for name in rungs()}
    if dry_run:
        each = f"{counted(len(seeds), 'seed')} each, on {counted(len(table), 'clip')}"
        print(f"{len(rungs())} rungs at scale {scale}, {each}")
        print(*map(describe_rung, rungs()), *power_lines(spread_of(out, probes), len(seeds)), sep="\n")
        if calibrate:
            for line in time_lines(plans, len(seeds)):
                print(line, flush=True)
        return []
    about = {"scale": scale, "steps": steps, "data": data, "probe_data": str(probe_data)}
    # Without seeds, so that a ladder can be run again with more of them.
    shared = dataclasses.replace(config, seeds=(), train=dataclasses.replace(config.train, seed=0))
    if (out / SETTINGS).exists():
        check_same(out / SETTINGS, shared, about, "or a new --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / SETTINGS, write_yaml({**about, **to_dict(shared)}))
    statistics = own_statistics(out, table, scale)
    one = dataclasses.replace(config, heads=("cgp",))
    stopped = unfinished(out)  # a probe, perhaps behind its records, that goes on as it began
    if "model" in stopped and (run := out / "runs" / stopped["model"]["id"]).is_dir():
        probe(
            run, probe_data, dataclasses.replace(one, seeds=tuple(stopped["config"]["seeds"])), out=out, device=device
        )
    for seed in seeds:  # seeds outside: a whole ladder of one seed is there before the next begins
        for name in rungs():
            if wanted := missing(out, name, seed, probes):
                run = out / "runs" / f"{Path(name).name}-seed{seed}"
                pretrain(rung_config(name, scale, steps, seed, data, device, statistics), run)
                probe(run, probe_data, dataclasses.replace(one, seeds=wanted), out=out, device=device)
    measured = [rung_of_records(out, name, seeds, probes) for name in rungs()]
    steps_here = steps_of_records(out, seeds, probes)
    write_atomic(out / "ladder.md", markdown_table(measured, steps_here, scale))
    here = [(PAPER[rung.name][0], rung.map, None) for rung in measured]
    theirs = [(PAPER[rung.name][0], None, PAPER[rung.name][1]) for rung in measured]
    metric = "mAP under CGP"
    panels: Panels = {
        ("here", metric): here,
        ("in the paper (base, AudioSet)", metric): theirs,
    }  # each on a scale of its own
    save(beside_figure(panels, "From EAT's recipe to BAT's, rung by rung"), out / "figures", "ladder")
    figure = save(steps_figure(steps_here, scale), out / "figures", "steps")
    console = Console()
    for title, lines in table_lines(measured).items():
        console.print(terminal_table(title, HEADINGS, lines, text=(0,)))
    console.print(terminal_table("Steps", STEP_HEADINGS, step_lines(steps_here), text=(0, 5)))
    console.print(verdict_line(steps_here))
    print(f"table: {out / 'ladder.md'}, figure: {figure}")
    return measured


def rung_config(
    name: str, scale: str, steps: int | None, seed: int, data: str, device: str, statistics: Mapping[str, Any]
) -> PretrainConfig:
    """The config of a scale with a rung's method; a rung's decoder has the same share of the scale's heads as of 12."""
    own = load_recipe(SCALES[scale])
    full = from_dict(PretrainConfig, own)
    method = load_recipe(name)
    heads = method["decoder"]["heads"] * full.decoder.heads / HEADS
    changes: dict[str, Any] = {
        "decoder": {"heads": max(1, round(heads))},
        "data": {"path": data},
        "train": {"seed": seed, "device": device},
    }
    if method["frontend"]["kind"] == "kaldi_fbank":  # its standardisation needs the statistics of these clips
        changes["frontend"] = dict(statistics)
    if steps is not None:
        share = steps / full.train.steps
        changes["train"]["steps"] = steps
        changes["optim"] = {"warmup_steps": round(full.optim.warmup_steps * share)}
        changes["target"] = {"ema_steps": max(1, round(full.target.ema_steps * share))}
    return from_dict(PretrainConfig, merge(merge(own, method), changes))


def own_statistics(out: Path, table: ClipTable, scale: str) -> Mapping[str, Any]:
    """Mean and deviation of EAT's log-mel over the clips, computed once; at base scale AudioSet's are kept."""
    if scale == "base":
        return {}
    path = out / STATISTICS
    if not path.exists():
        own = load_recipe(SCALES[scale]).get("frontend", {})
        frontend = from_dict(FrontendConfig, {**own, "kind": "kaldi_fbank"})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, write_yaml(log_mel_sums(table, frontend).fields()))
    found = load_recipe(path)
    if set(found) != {"mean", "std"}:
        raise AudiobatError(f"{path} holds no mean and std: remove it, and it is computed again.")
    return found
