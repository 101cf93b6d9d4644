"""`audiobat pretrain` or `finetune` with `--grid.FIELD`: a run for each combination of values, compared at the end.

In: fields of the config with the values to try. Out: a run folder each below `out`, one after the other; what is done
stays done, so that a grid that was killed goes on. A run that fails is told, and the others go on.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from audiobat.config import FinetuneConfig, PretrainConfig, check, from_dict, to_dict
from audiobat.config.plain import nest
from audiobat.config.recipes import Recipe, make_config, merge
from audiobat.engine.checkpoint import latest
from audiobat.engine.memory import ran_out
from audiobat.engine.ranks import find_place
from audiobat.engine.run_folder import check_same
from audiobat.errors import AudiobatError, counted
from audiobat.evaluation.compare import compare
from audiobat.evaluation.report.run import report
from audiobat.evaluation.run_logs import find_runs, load_logs, table_of
from audiobat.finetuning.run import finetune
from audiobat.pretraining.run import pretrain
from audiobat.studies.beside import terminal_table

CONFIGS: Mapping[str, type[PretrainConfig] | type[FinetuneConfig]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
}


def grid(
    verb: str,
    values: Mapping[str, Sequence[Any]],
    *,
    out: str | Path,
    config: PretrainConfig | FinetuneConfig | Recipe | None = None,
    **arguments: Any,
) -> list[Path]:
    """Run `verb` with each combination of values of config fields, and compare the runs.

    Args:
        verb: `pretrain` or `finetune`.
        values: by the field's name, such as `optim.lr`, the values to try.
        out: folder of the runs, and of `report/`, a page about all of them.
        config: what the runs have in common.
        arguments: others of the verb, the same for each run; `overwrite` starts every run again.

    Returns:
        The folders of the runs that are done.

    Raises:
        AudiobatError: before any run, an unknown field or value; after all, that some failed. On several ranks a run
            that fails ends the job.
        Stopped: a signal came; the same call goes on from there.
    """
    check(verb in CONFIGS, "verb", verb, "use pretrain or finetune")
    out, config_class = Path(out), CONFIGS[verb]
    configs = combinations(values, to_dict(make_config(config_class, {} if config is None else config)), config_class)
    if (out / "config.yaml").exists():
        raise AudiobatError(f"{out} holds a run, and a grid makes one for each combination: give a new --out.")
    place = find_place(os.environ)
    run: Callable[..., Any] = pretrain if verb == "pretrain" else finetune
    failed: list[str] = []
    for number, (name, own) in enumerate(configs.items(), start=1):
        if place.rank == 0:
            print(f"run {number} of {len(configs)}: {name}", file=sys.stderr, flush=True)
        if not arguments.get("overwrite") and isinstance(own, PretrainConfig) and is_done(out / name, own):
            continue
        try:
            run(config=own, out=out / name, **arguments)
        except Exception as error:
            sentence = str(error) if isinstance(error, AudiobatError) else ran_out(error)
            if sentence is None or place.world_size > 1:  # the other ranks end with this one
                raise
            failed.append(name)
            print(f"run {name} failed: {sentence}", file=sys.stderr, flush=True)
        gc.collect()
        torch.cuda.empty_cache()  # the next run has all of the memory
    done = [out / name for name in configs if name not in failed]
    if place.rank == 0 and not arguments.get("dry_run"):
        show(done, out, configs)
    if failed:
        raise AudiobatError(
            f"{counted(len(failed), 'run')} of {len(configs)} failed: {', '.join(failed)}. The others are done; the "
            "same command tries these again."
        )
    return done


def combinations(
    values: Mapping[str, Sequence[Any]],
    fields: Mapping[str, Any],
    config_class: type[PretrainConfig] | type[FinetuneConfig],
) -> dict[str, PretrainConfig | FinetuneConfig]:
    """The config of each combination, by the name of its run.

    Raises AudiobatError for an unknown field, a value that it cannot have, alone or beside others, or one named twice.
    """
    check(len(values) > 0, "grid", dict(values), "name a field and its values")
    for field, some in values.items():
        tried = [repr(value) for value in some]
        check(len(tried) > 0 and len(set(tried)) == len(tried), f"grid.{field}", list(some), "name each value once")
    ends = [field.rpartition(".")[2] for field in values]
    shown = [field if ends.count(end) > 1 else end for field, end in zip(values, ends, strict=True)]
    found: dict[str, PretrainConfig | FinetuneConfig] = {}
    for chosen in product(*values.values()):
        changed = dict(fields)
        for field, value in zip(values, chosen, strict=True):
            changed = merge(changed, nest(field, value))
        name = "-".join(f"{field}_{plain(value)}" for field, value in zip(shown, chosen, strict=True))
        check(name not in found, "grid", name, "two combinations would have this name: change a value")
        found[name] = from_dict(config_class, changed)
    return found


def plain(value: object) -> str:
    """A value as a part of a folder's name."""
    text = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^\w.+]+", "-", "null" if value is None else text).strip("-")


def is_done(folder: Path, config: PretrainConfig) -> bool:
    """Whether the pre-training in `folder` has come to its end; AudiobatError if it is of another config."""
    last = latest(folder)
    if last is None or int(last.name.rpartition("_")[2]) < config.train.steps:
        return False
    check_same(folder / "config.yaml", config, {})
    return True


def show(done: Sequence[Path], out: Path, configs: Mapping[str, PretrainConfig | FinetuneConfig]) -> None:
    """Print a table of the runs, the comparison of the records that they have, and write OUT/report."""
    logs = load_logs(folder for run in done for folder in find_runs(run))
    if not logs:
        return
    headings, lines = table_of(logs)
    told = [0, *range(headings.index("steps"), len(headings))]  # the names of runs tell their settings
    cells = [[line[place] for place in told] for line in lines]
    Console().print(terminal_table("", [headings[place] for place in told], cells, text=(0,)))
    kept = [
        record
        for run in done
        if isinstance(config := configs[run.name], FinetuneConfig)
        for record in run.glob(f"results/*_finetune_{config.select.which}_*.json")
    ]
    try:
        if len(kept) > 1:
            compare(kept)
        report(done, out / "report", overwrite=True)
    except AudiobatError as error:  # such as runs that differ in what their records do not tell
        print(f"The runs are not compared: {error}", file=sys.stderr)
