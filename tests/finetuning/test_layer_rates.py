"""Learning rates of layers: every parameter in one group, at the rate of the formula, at every step."""

from dataclasses import replace

import pytest
import torch

from audiobat.config import EncoderConfig, FinetuneOptimConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.engine.optim import lr_at, set_lr
from audiobat.finetuning.layer_rates import build_adamw, describe_rates, layer_rate, train_only_what_is_read
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger

DEPTH = 3
MODEL = ModelConfig(
    FrontendConfig(n_fft=256, win_length=256, mel_bins=16, f_max=6000.0),
    EncoderConfig(dim=16, depth=DEPTH, heads=2, patch_size=(16, 8), max_frames=64),
)
ANOTHER = replace(MODEL, encoder=replace(MODEL.encoder, block_norm="pre", final_norm=True))  # as in Audio-MAE
STEPS, WARMUP = 20, 5
OPTIM = FinetuneOptimConfig(lr=1e-3, min_lr=1e-5, warmup_steps=WARMUP, weight_decay=0.1, layer_decay=0.5)


def tagger(**head) -> Tagger:
    torch.manual_seed(0)
    made = Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig(**({"kind": "linear"} | head)), ("a", "b", "c")))
    train_only_what_is_read(made)
    return made


def peak(name: str) -> float:
    """The share of the head's rate that a parameter should get, read off its name by other means than the code's."""
    if name.startswith("head."):
        return 1.0
    for block in range(DEPTH):
        if f"blocks.{block}." in name:
            return 0.5 ** (DEPTH - block)  # the last block is one layer below the head
    return 0.5 ** (DEPTH + 1)  # patches, cls, stem norm


def rates(model: Tagger, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = group["lr"]
    return found


def peaks(model: Tagger, layer_map: str) -> dict[str, float]:
    """The highest rate of each parameter."""
    optimizer = build_adamw(model, FinetuneOptimConfig(**{**vars(OPTIM), "layer_map": layer_map}))
    set_lr(optimizer, OPTIM.lr)
    return rates(model, optimizer)


def schedule(step: int, top: float) -> float:
    return lr_at(step, peak=top, floor=OPTIM.min_lr, warmup_steps=WARMUP, total_steps=STEPS)


@pytest.mark.parametrize("step", [0, 3, WARMUP, 12, STEPS - 1])
def test_every_parameter_has_the_rate_of_its_layer(step: int):
    model = tagger()
    optimizer = build_adamw(model, OPTIM)
    set_lr(optimizer, schedule(step, OPTIM.lr))
    found = rates(model, optimizer)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, rate in found.items():
        assert rate == pytest.approx(schedule(step, OPTIM.lr) * peak(name)), name


def test_the_releases_stem_norm_learns_with_the_head_and_the_rest_of_the_stem_slowest():
    model = tagger()
    standard, released = (peaks(model, layer_map) for layer_map in ("standard", "released"))
    assert set(released) == set(standard)
    apart = {name: rate for name, rate in released.items() if rate != standard[name]}
    assert apart == {"encoder.pre_norm.weight": OPTIM.lr, "encoder.pre_norm.bias": OPTIM.lr}


@pytest.mark.parametrize("layer_map", ["standard", "released", "eat"])
def test_a_norm_behind_the_last_block_learns_with_the_head(layer_map: str):
    model = Tagger(AudioEncoder(ANOTHER), TaggerConfig(HeadConfig(kind="linear"), ("a", "b")))
    assert peaks(model, layer_map)["encoder.norm.weight"] == OPTIM.lr
    lines = list(describe_rates(model, FinetuneOptimConfig(**{**vars(OPTIM), "layer_map": layer_map})))
    shown = [int(line.split(" parameters")[0].split()[-1].replace(",", "")) for line in lines]
    assert sum(shown) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("step", [0, 3, WARMUP, 12, STEPS - 1])
def test_eats_stem_is_fast_and_its_floor_is_one_for_all(step: int):
    model = tagger()
    optim = FinetuneOptimConfig(**{**vars(OPTIM), "layer_map": "eat"})
    optimizer = build_adamw(model, optim)
    set_lr(optimizer, schedule(step, OPTIM.lr))
    for name, rate in rates(model, optimizer).items():
        share = peak(name) if "blocks." in name or name.startswith("head.") else 1.0
        assert rate == pytest.approx(schedule(step, share * OPTIM.lr)), name


def test_eats_deepest_blocks_hardly_change_their_rate():
    """With EAT's own numbers, the peaks of blocks 1 to 3 of 12 are below the floor, as is known of EAT."""
    optim = FinetuneOptimConfig(lr=5e-5, min_lr=1e-6, layer_decay=0.65, layer_map="eat")
    peaks = [0.65 ** (13 - block) * 5e-5 for block in range(1, 13)]
    assert [p < 1e-6 for p in peaks] == [True] * 3 + [False] * 9
    for block, top in enumerate(peaks, start=1):
        rate = layer_rate(block, 12, optim)
        assert rate.scale * 5e-5 + rate.shift == pytest.approx(top)
        assert rate.scale * 1e-6 + rate.shift == pytest.approx(1e-6)


@pytest.mark.parametrize("head", [{"kind": "cgp", "prototypes": 5}, {"norm": "scaled_layer"}])
@pytest.mark.parametrize(("decay_1d", "decay_head_1d"), [(True, False), (False, False), (True, True)])
def test_a_step_of_adamw_moves_each_parameter_by_its_rate_and_its_decay(head, decay_1d: bool, decay_head_1d: bool):
    """Adam's first step is its rate, whatever the gradient; decay comes on top, of the value before."""
    model = tagger(**head)
    optim = replace(OPTIM, decay_1d=decay_1d, decay_head_1d=decay_head_1d)
    optimizer = build_adamw(model, optim)
    set_lr(optimizer, optim.lr)
    for parameter in model.parameters():
        parameter.data.fill_(2.0)
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate = optim.lr * peak(name)
        if name.startswith("head."):
            decays = name == "head.classifier.weight" or (decay_head_1d and name.endswith((".bias", "norm.weight")))
        else:
            decays = decay_1d or (parameter.ndim > 1 and name != "encoder.cls_token")
        expected = 2.0 - rate - (rate * optim.weight_decay * 2.0 if decays else 0.0)
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected), rtol=1e-6, atol=0, msg=name)


def test_blocks_that_the_head_does_not_read_stay():
    model = tagger(layer=2)
    names = {id(p): n for n, p in model.named_parameters()}
    taught = {names[id(p)] for group in build_adamw(model, OPTIM).param_groups for p in group["params"]}
    assert taught == {name for name in names.values() if "blocks.2." not in name}
    everything = tagger(kind="cgp", prototypes=5, layer=2)  # it reads all blocks, whatever `layer` says
    assert all(parameter.requires_grad for parameter in everything.parameters())


def test_the_plan_lists_every_layer_once():
    model = tagger()
    lines = list(describe_rates(model, OPTIM))
    assert [line.split("  ")[1].strip() for line in lines] == ["stem", "block 1", "block 2", "block 3", "head"]
    shown = [int(line.split(" parameters")[0].split()[-1].replace(",", "")) for line in lines]
    assert sum(shown) == sum(parameter.numel() for parameter in model.parameters())
    assert [float(line.split()[-1]) for line in lines] == [6.25e-5, 1.25e-4, 2.5e-4, 5e-4, 1e-3]
