"""Features of clips of many lengths, each in a batch with the others: every block's patches and cls token."""

from collections.abc import Iterator

import torch

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.models.encoder import AudioEncoder

from ..plain import features as plain
from ..plain import frontends, networks
from ..precision import precision
from .base import Row, difference
from .material import batch_of, sounds, stir

DIM, HEADS, COLUMNS, PATCH_SAMPLES = 24, 2, 5, 16 * 160
WINDOW = COLUMNS * PATCH_SAMPLES - 1  # the most samples whose frames are not more than a window's
SHORT = (1_000, PATCH_SAMPLES - 1, PATCH_SAMPLES, 7_000, WINDOW)
LONG = (WINDOW + 1, WINDOW + PATCH_SAMPLES, WINDOW + PATCH_SAMPLES + 1, 20_000, 2 * WINDOW + 1, 2 * WINDOW + 9_000)


def rows_of(what: str, source: str, lengths: tuple[int, ...], released: bool) -> Iterator[Row]:
    layout = {"pad": "grid", "positions": "released"} if released else {}
    config = EncoderConfig(dim=DIM, depth=2, heads=HEADS, mlp_ratio=2.0, max_frames=COLUMNS * 16, **layout)
    gaps = []
    for dtype in (torch.float64, torch.float32):
        with precision(dtype), torch.no_grad():
            encoder = AudioEncoder(ModelConfig(FrontendConfig(), config)).eval()
            stir(encoder)
            batch = batch_of(sounds(lengths))
            found = encoder.forward_intermediates(batch.waveform, batch.lengths)
        weights = {name: p.detach().double() for name, p in encoder.named_parameters()}
        patches, cls = [], []
        for i, waveform in enumerate(sounds(lengths)):
            spectrogram = torch.from_numpy(frontends.mel_db_minmax(waveform))
            if released:
                table = networks.released_positions(COLUMNS, 8, DIM)
                wanted = plain.released(spectrogram, weights, table, HEADS, COLUMNS)
            else:
                wanted = plain.alone(spectrogram, weights, networks.positions(COLUMNS, 8, DIM), HEADS)
            patches.append(difference(found.patch_tokens[:, i, found.valid[i]], wanted[0]))
            cls.append(difference(found.cls_token[:, i], wanted[1]))
        gaps.append((max(patches), max(cls)))
    for n, compared in enumerate(("patches of every block", "cls tokens of every block")):
        yield Row(what, source, f"{compared}, {len(lengths)} lengths", gaps[0][n], gaps[1][n])


def rows() -> Iterator[Row]:
    yield from rows_of("BAT", "paper, Sections 3 and 5", SHORT, released=False)
    yield from rows_of("BAT's release", "BAT's release", SHORT, released=True)
    yield from rows_of("BAT's release, clips longer than a window", "BAT's release", LONG, released=True)
