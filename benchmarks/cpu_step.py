"""One bat_nano training step on a CPU: precision x attention kernel, seconds and ratios in one run.

python benchmarks/cpu_step.py [STEPS]: the figure behind `attention_for` in audiobat/engine/loop.py and behind
`precision: auto`. Rounds are interleaved and the median is shown, so that other load hits every variant alike.
"""

import statistics
import sys
import time
from types import SimpleNamespace

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.engine.optim import build_optimizer
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression

KERNELS = {"fused": SDPBackend.FLASH_ATTENTION, "plain": SDPBackend.MATH}


def main(steps: int) -> None:
    config = from_dict(PretrainConfig, load_recipe("bat_nano"))
    torch.manual_seed(0)
    model = MaskedLatentRegression(config)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = build_optimizer(trained, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.95), decay_1d=True)
    batch = SimpleNamespace(waveform=torch.randn(config.train.batch_size, 64_000) * 0.1, lengths=None)
    seconds = {(precision, kernel): [] for precision in ("fp32", "bf16") for kernel in KERNELS}
    for step in range(steps + 2):
        for (precision, kernel), taken in seconds.items():
            start = time.perf_counter()
            with sdpa_kernel(KERNELS[kernel]):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss, _ = model(batch, step)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step >= 2:  # the first ones warm up
                taken.append(time.perf_counter() - start)
    baseline = statistics.median(seconds["fp32", "fused"])
    print(f"| precision | attention | seconds a step | speed against fp32, fused | ({torch.get_num_threads()} threads)")
    print("| --- | --- | --- | --- |")
    for (precision, kernel), taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {precision} | {kernel} | {median:.3f} | {baseline / median:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
