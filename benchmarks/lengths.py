"""What a step of pre-training costs for clips of different lengths, beside clips that fill their crops.

python benchmarks/lengths.py [ROUNDS]: the forward and backward pass, one thread, the least CPU time of interleaved
rounds. `together` is the default, `apart` is `objective.apart`, and `padded` has all clips as long as a crop, padding
hidden by a mask. The last column is the time for each second of audio, as a share of that of full clips; clips of 10 s
end one column of 64 before a full crop.
"""

import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import torch

from audiobat.config import (
    DecoderConfig,
    EncoderConfig,
    PretrainConfig,
    from_dict,
)
from audiobat.config.recipes import load_recipe
from audiobat.pretraining.lengths import Part, apart, together
from audiobat.pretraining.objectives import masked_latent_regression
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression

RATE = 16_000
SMALL = PretrainConfig(
    encoder=EncoderConfig(dim=192, depth=6, heads=3), decoder=DecoderConfig(depth=3, heads=3)
)  # of the table of README's first section
SIZES = {"dim 192, 6 + 3 blocks, 4 clips x 16": (SMALL, 4), "bat_nano, 32 clips x 4": (None, 32)}


WAYS = {
    "together": lambda encoder, batch: [together(encoder, batch)],
    "apart": apart,
    "padded": lambda encoder, batch: [Part(batch.waveform, batch.lengths, is_even=False)],
}


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    print("| sizes | clips | seconds of audio | CPU seconds a step | time for a second of audio, full clips: 1 |")
    print("| --- | --- | --- | --- | --- |")
    for name, (config, clips) in SIZES.items():
        measure(name, config or from_dict(PretrainConfig, load_recipe("bat_nano")), clips, rounds)


def measure(name: str, config: PretrainConfig, clips: int, rounds: int) -> None:
    torch.manual_seed(0)
    model = MaskedLatentRegression(replace(config, objective=replace(config.objective, apart=True)))
    full = int(config.data.clip_seconds * RATE)
    waveform = torch.randn(clips, full) * 0.1
    spread = torch.linspace(0.2, 1.0, clips).mul(full).long()
    common = torch.full((clips,), int(full * 10 / 10.24))
    nearly = torch.where(torch.arange(clips) == 0, full // 2, full)
    lengths_of = {"10 of 10.24 of a crop": common, "one of half a crop": nearly, "0.2 to 1 crop": spread}
    cases = {"full": (None, apart)}
    cases |= {f"{kind}, {way}": (lengths, WAYS[way]) for kind, lengths in lengths_of.items() for way in WAYS}
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for step in range(rounds + 1):
        for case, (lengths, parts) in cases.items():
            masked_latent_regression.apart = parts
            start = time.process_time()
            loss, _ = model(SimpleNamespace(waveform=waveform, lengths=lengths), step)
            loss.backward()
            if step:  # the first one warms up
                seconds[case].append(time.process_time() - start)
            model.zero_grad()
    one = min(seconds["full"]) / (clips * full)
    for case, (lengths, _) in cases.items():
        samples = clips * full if lengths is None else int(lengths.sum())
        least = min(seconds[case])
        print(f"| {name} | {case} | {samples / RATE:.1f} | {least:.3f} | {least / samples / one:.2f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
