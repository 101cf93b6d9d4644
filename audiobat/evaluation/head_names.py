"""Kinds of heads and tasks as tables name and order them; a title is on the kind's own class.

A user's own is named by its class as its kind gives it: none of its code runs to show a record.
"""

from __future__ import annotations

from functools import lru_cache

from audiobat.config.registry import find, kinds
from audiobat.evaluation.record import ResultRecord
from audiobat.models.heads import head_class

FINETUNE = "finetune"  # the kind in records of fine-tuning, whatever the head
ORDER = (  # of tables, the paper's Table 1 first; a kind that is not here follows, by its title
    *(FINETUNE, "cgp", "protobin", "linear", "linear_cgp", "attentive", "ep", "head2toe", "vqt"),
    *("proto_classwise", "knn", "mean_time_keep_freq"),
)


@lru_cache
def head_title(kind: str) -> str:
    """`CGP` for cgp, `MyHead` for `my_head.py:MyHead`."""
    if kind == FINETUNE:
        return "Fine-tuning"
    for seam in ("head", "task"):
        if kind in kinds(seam):
            title: str = find(seam, kind).title
            return title
    return kind.rpartition(":")[2]


def head_order(kind: str) -> tuple[int, str]:
    """A sort key that puts kinds in the order of tables."""
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), head_title(kind).lower())


def has_prototypes(kind: str) -> bool:
    """Whether the number of prototypes is a setting of a kind; a kind that is not built in may have any setting."""
    return kind not in (*kinds("head"), *kinds("task"), FINETUNE) or (
        kind in kinds("head") and head_class(kind).has_prototypes
    )


def head_label(record: ResultRecord) -> str:
    """`CGP`, or `Linear, block 3` where it is not the last; heads that are not in Table 1 by their kind."""
    kind, layer = str(record.head["kind"]), record.head.get("layer", -1)
    name = head_title(kind) if kind in ("cgp", "protobin", "linear") else kind.rpartition(":")[2]
    return name if kind == "cgp" or layer == -1 else f"{name}, block {layer}"
