"""`audiobat ladder`: the steps from EAT's recipe to BAT's (Tables 2 to 4), at an affordable scale, under CGP.

Every rung is a recipe (`ladder/...`); every rung and seed is a run of its own below `out`. What is done stays done, so
that a ladder that was killed goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from audiobat.config import FrontendConfig, PretrainConfig, ProbeConfig, check, from_dict, to_dict
from audiobat.config.recipes import Recipe, load_recipe, make_config, merge, write_yaml
from audiobat.config.rungs import describe_rung, rungs
from audiobat.data.clip_table import ClipTable
from audiobat.data.prepare.statistics import log_mel_sums
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.engine.files import write_atomic
from audiobat.engine.run_folder import check_same, unfinished
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.style import save
from audiobat.evaluation.results import record_path
from audiobat.pretraining.run import pretrain
from audiobat.probing.run import probe
from audiobat.studies.beside import Panels, Value, beside_figure, terminal_table

SCALES = {"nano": "bat_nano", "small": "bat_small", "base": "bat_base"}
HEADS = 12  # of the decoders in the paper's tables
STATISTICS = "statistics.yaml"
SETTINGS = "ladder.yaml"
# Rung: its name in tables; the paper's mAP and F1 under CGP with 10,000 prototypes on AS-20K, in percent.
PAPER = {
    "ladder/1_eat_frontend": ("EAT's filter bank, global statistics", 34.86, 24.28),
    "ladder/2_mel_db": ("mel in dB, each clip's own range", 35.03, 24.75),
    "ladder/3_eob": ("end-of-block targets", 34.60, 25.00),
    "ladder/4_gates": ("MLP targets, gates", 35.09, 26.12),
    "ladder/5_gates_eob": ("end-of-block targets, gates", 35.42, 27.13),
    "ladder/6_vit": ("ViT decoder, half the heads, MLP x2", 37.43, 28.91),
    "ladder/7_bat": ("ViT decoder, all heads, MLP x4", 37.52, 29.11),
}
TABLES = {
    "Table 2. Frontend": ("ladder/1_eat_frontend", "ladder/2_mel_db"),
    "Table 3. Targets and gates": ("ladder/2_mel_db", "ladder/3_eob", "ladder/4_gates", "ladder/5_gates_eob"),
    "Table 4. Decoder": ("ladder/5_gates_eob", "ladder/6_vit", "ladder/7_bat"),
}
HEADINGS = ("", "mAP", "95%", "paper", "F1", "paper")


class Rung(NamedTuple):
    """A rung as it was measured: mAP and F1 under CGP over its seeds."""

    name: str
    seeds: int
    map: Value
    f1: Value


def ladder(
    data: str,
    probe_data: str,
    config: ProbeConfig | Recipe | None = None,
    *,
    out: str | Path,
    scale: Literal["nano", "small", "base"] = "nano",
    steps: int | None = None,
    device: str = "auto",
    dry_run: bool = False,
) -> list[Rung]:
    """Pre-train and probe every rung, and print Tables 2 to 4 with our numbers beside the paper's.

    Args:
        data: clips to pre-train on.
        probe_data: clips with labels, to probe on.
        config: how CGP is trained; its `seeds` are those of the runs, so that each rung is pre-trained as often.
        out: folder to write: runs/, results/, ladder.md, figures/.
        scale: the networks, masks and batches of `bat_nano`, `bat_small` or `bat_base`.
        steps: steps of pre-training; the warm-up and the EMA's ramp are shortened with it. None: the scale's own.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        dry_run: print the rungs, what each changes, and stop.

    Returns:
        The rungs from the first to the last; none in a dry run.

    Raises:
        AudiobatError: a bad argument, data that cannot be used, an `out` that holds rungs of other settings.
    """
    check(scale in SCALES, "--scale", scale, f"choose one of {', '.join(SCALES)}")
    config = make_config(ProbeConfig, config)
    seeds = config.seeds or (config.train.seed,)
    out = Path(out)
    table = read_clips(data)
    labels = config.labels
    # A mistake in it must not show after hours of pre-training.
    read_labelled_clips(probe_data, labels.column, labels.background, labels.map)
    if dry_run:
        plural = "" if len(seeds) == 1 else "s"
        print(f"{len(rungs())} rungs at scale {scale}, {len(seeds)} seed{plural} each, on {len(table):,} clips")
        print(*map(describe_rung, rungs()), sep="\n")
        return []
    about = {"scale": scale, "steps": steps, "data": str(data), "probe_data": str(probe_data)}
    # Without seeds, so that a ladder can be run again with more of them.
    shared = dataclasses.replace(config, seeds=(), train=dataclasses.replace(config.train, seed=0))
    if (out / SETTINGS).exists():
        check_same(out / SETTINGS, shared, about, "or a new --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / SETTINGS, write_yaml({**about, **to_dict(shared)}))
    statistics = own_statistics(out, table, scale)
    stopped = unfinished(out).get("model", {}).get("id")  # the run whose probe was stopped, perhaps behind its record
    for seed in seeds:  # seeds outside: a whole ladder of one seed is there before the next begins
        for name in rungs():
            run = out / "runs" / f"{Path(name).name}-seed{seed}"
            if not record_of(out, name, seed).exists() or run.name == stopped:
                pretrain(rung_config(name, scale, steps, seed, data, device, statistics), run)
                one = dataclasses.replace(config, heads=("cgp",), seeds=(seed,))
                probe(run, probe_data, one, out=out, device=device)
    measured = [rung_of_records(out, name, seeds) for name in rungs()]
    write_atomic(out / "ladder.md", markdown_table(measured, scale))
    here = [(PAPER[rung.name][0], rung.map, None) for rung in measured]
    theirs = [(PAPER[rung.name][0], None, PAPER[rung.name][1]) for rung in measured]
    metric = "mAP under CGP"
    panels: Panels = {
        ("here", metric): here,
        ("in the paper (base, AudioSet)", metric): theirs,
    }  # each on a scale of its own
    figure = save(beside_figure(panels, "From EAT's recipe to BAT's, rung by rung"), out / "figures", "ladder")
    console = Console()
    for title, lines in table_lines(measured).items():
        console.print(terminal_table(title, HEADINGS, lines, text=(0,)))
    console.print(order_line(measured))
    print(f"table: {out / 'ladder.md'}, figure: {figure}")
    return measured


def record_of(out: Path, name: str, seed: int) -> Path:
    """Where the record of a rung and seed is, or will be, such as results/4_gates-seed0_cgp_0.json."""
    return record_path(out, f"{Path(name).name}-seed{seed}", "cgp", seed)


def rung_of_records(out: Path, name: str, seeds: Sequence[int]) -> Rung:
    """A rung from its seeds' records; where clips have one label each, F1 is that of the likeliest class."""
    records = [load_record(record_of(out, name, seed)) for seed in seeds]
    f1 = "f1" if "f1" in records[0].metrics else "f1_top"
    return Rung(name, len(records), Value.of(records, "map"), Value.of(records, f1))


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


def table_lines(measured: Sequence[Rung]) -> dict[str, list[tuple[str, ...]]]:
    """The lines of Tables 2 to 4, by their titles."""
    cells = {}
    for rung in measured:
        label, paper_map, paper_f1 = PAPER[rung.name]
        numbers = (rung.map.mean, rung.map.interval, paper_map, rung.f1.mean, paper_f1)
        cells[rung.name] = (label, *(n if isinstance(n, str) else f"{n:.2f}" for n in numbers))
    return {title: [cells[name] for name in names] for title, names in TABLES.items()}


def markdown_table(measured: Sequence[Rung], scale: str) -> str:
    """Tables 2 to 4 as Markdown, with the changes of every rung."""
    of = "seeds" if measured[0].seeds > 1 else "test clips"
    lines = [
        f"# The ladder at {scale} scale",
        "",
        f"CGP on frozen features, in percent; {measured[0].seeds} seed(s), 95% intervals over {of}. The paper's "
        "numbers are of networks of base size, 400,000 steps on AudioSet and CGP on AS-20K: only their order can be "
        "compared.",
    ]
    for title, cells in table_lines(measured).items():
        lines += ["", f"## {title}", "", *pipe_table(HEADINGS, cells, labels=1)]
    lines += ["", order_line(measured), "", *(f"- {describe_rung(rung.name)}" for rung in measured), ""]
    return "\n".join(lines)


def order_line(measured: Sequence[Rung]) -> str:
    """How many of the paper's steps from rung to rung go the same way here, and which do not.

    A step whose two intervals do not touch counts as beyond them.
    """
    steps = [(a, b) for names in TABLES.values() for a, b in pairwise(names)]
    found = {rung.name: rung for rung in measured}
    against, beyond = [], 0
    for a, b in steps:
        ours, theirs = found[b].map.mean - found[a].map.mean, PAPER[b][1] - PAPER[a][1]
        if ours * theirs <= 0:
            against.append(f"{PAPER[a][0]} to {PAPER[b][0]} ({ours:+.2f} here, {theirs:+.2f} in the paper)")
        beyond += found[a].map.high < found[b].map.low or found[b].map.high < found[a].map.low
    text = f"{len(steps) - len(against)} of the paper's {len(steps)} steps go the same way here; "
    text += f"{beyond} are beyond both intervals."
    return text + (f" The others: {'; '.join(against)}." if against else "")
