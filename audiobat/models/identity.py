"""What tells one encoder from another, so that what was computed with one is never taken for what another gives.

In: an encoder. Out: its class, sizes, config and the digest of its weights, as plain values. Code is not among them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from torch import nn

from audiobat.config.plain import to_dict
from audiobat.config.user_files import to_share
from audiobat.engine.tensors import weights_sha256
from audiobat.models.features import Encoder


def encoder_facts(encoder: Encoder) -> dict[str, Any]:
    """All that the features of an encoder depend on besides the audio and the code, as far as it is known."""
    config = getattr(encoder, "config", None)
    return {
        "class": type(encoder).__qualname__,
        "encoder": [encoder.sample_rate, encoder.dim, encoder.depth],
        "config": to_share(to_dict(config))[0] if dataclasses.is_dataclass(config) else str(config),
        "weights": weights_sha256(encoder) if isinstance(encoder, nn.Module) else None,
    }


def digest_of(facts: dict[str, Any]) -> str:
    """A digest of plain values: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
