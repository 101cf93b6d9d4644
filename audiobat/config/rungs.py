"""The ladder of Tables 2 to 4, from EAT's recipe to BAT's: its rungs, the rung of a config, and what a rung changes."""

from __future__ import annotations

import dataclasses
from typing import Any

from audiobat.config.plain import flatten, from_dict
from audiobat.config.pretrain import PretrainConfig
from audiobat.config.recipes import base_of, load_recipe, recipe_names

METHOD = ("frontend", "encoder", "decoder", "mask", "target", "objective")  # the groups that rungs differ in


def rungs() -> list[str]:
    """The recipes of the ladder, from EAT's to BAT's."""
    return [name for name in recipe_names() if name.startswith("ladder/")]


def rung_of(config: PretrainConfig) -> str | None:
    """The rung with the method of `config`, whatever its data, rates and lengths; None if there is none."""
    for name in rungs():
        rung = from_dict(PretrainConfig, load_recipe(name))
        if all(getattr(rung, group) == getattr(config, group) for group in METHOD):
            return name
    return None


def changes(name: str) -> dict[str, tuple[Any, Any]]:
    """The fields in which a recipe differs from its base, `group.field` to (value in the base, value here)."""
    base = base_of(name)
    defaults = flatten(dataclasses.asdict(PretrainConfig()))
    before = defaults | (flatten(load_recipe(base)) if base else {})
    after = defaults | flatten(load_recipe(name))
    return {field: (before[field], value) for field, value in after.items() if before[field] != value}


def describe_rung(name: str) -> str:
    """`ladder/4_gates: ladder/2_mel_db with encoder.gated_attention True for False`."""
    changed = ", ".join(f"{field} {now} for {then}" for field, (then, now) in changes(name).items())
    return f"{name}: {base_of(name)} with {changed}"
