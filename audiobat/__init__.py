"""audiobat: pre-train audio transformers by masked latent regression and judge them by convex gated probing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiobat.commands.analyze import analyze
    from audiobat.commands.benchmark import benchmark
    from audiobat.commands.embed import embed
    from audiobat.commands.export import export
    from audiobat.commands.finetune import finetune
    from audiobat.commands.ladder import ladder
    from audiobat.commands.predict import predict
    from audiobat.commands.pretrain import pretrain
    from audiobat.commands.probe import probe
    from audiobat.commands.push import push
    from audiobat.models import load

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "analyze",
    "benchmark",
    "embed",
    "export",
    "finetune",
    "ladder",
    "load",
    "predict",
    "pretrain",
    "probe",
    "push",
]

_HOMES = {
    "analyze": "audiobat.commands.analyze",
    "benchmark": "audiobat.commands.benchmark",
    "embed": "audiobat.commands.embed",
    "export": "audiobat.commands.export",
    "finetune": "audiobat.commands.finetune",
    "ladder": "audiobat.commands.ladder",
    "load": "audiobat.models",
    "predict": "audiobat.commands.predict",
    "pretrain": "audiobat.commands.pretrain",
    "probe": "audiobat.commands.probe",
    "push": "audiobat.commands.push",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import audiobat` alone must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'audiobat' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
