"""Augmentation: exact properties, distributions against their formulas, what padding and neighbours may not change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audiobat.audio.augment import (
    add_noise,
    augment_spectrogram,
    augment_waveform,
    coloured_noise,
    mixup,
    roll,
    spec_augment,
)
from audiobat.config import (
    AugmentConfig,
    FinetuneConfig,
    MixupConfig,
    NoiseConfig,
    SpecAugmentConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import load_recipe, recipe_names
from audiobat.errors import AudiobatError

SEEDS = st.integers(0, 2**32)
ROLL_AND_GAIN = AugmentConfig(roll=True, gain_beta=10.0)
ALL = AugmentConfig(
    roll=True,
    gain_beta=10.0,
    noise=NoiseConfig(0.6),
    cell_noise=0.1,
    time_roll="eat",
    mixup=MixupConfig(0.7),
    spec_augment=SpecAugmentConfig(0.3, 0.3, time_masks=2),
)


def rng(seed=0):
    return np.random.default_rng(seed)


def clips(lengths, size, seed=0):
    """Waveforms [B, size] with zeros beyond `lengths`, and the lengths."""
    waveform = torch.randn(len(lengths), size, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor(lengths)
    return waveform * (torch.arange(size) < lengths[:, None]), lengths


def spectrograms(frames, size, bins, seed=0):
    """Spectrograms [B, size, bins] above zero, with zeros beyond `frames`, and the frames."""
    x = torch.rand(len(frames), size, bins, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.1
    frames = torch.tensor(frames)
    return x * (torch.arange(size) < frames[:, None])[:, :, None], frames


# Roll


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=SEEDS)
def test_roll_turns_a_clips_own_samples_alone(lengths, seed):
    waveform, counts = clips(lengths, 33, seed=1)
    turn = torch.tensor([int(rng((seed, i)).integers(n)) for i, n in enumerate(lengths)])
    rolled = roll(waveform, counts, turn)
    for before, after, n, shift in zip(waveform, rolled, lengths, turn.tolist(), strict=True):
        assert after[:n].tolist() == np.roll(before[:n].numpy(), shift).tolist()
        assert not after[n:].any()


def test_the_turn_of_a_roll_is_uniform_over_the_clips_own_length():
    n, batch = 10, 5_000
    waveform = torch.zeros(batch, 16)
    waveform[:, 0] = 1
    rolled = augment_waveform(waveform, torch.full((batch,), n), AugmentConfig(roll=True), rng())
    turns = np.bincount(rolled.argmax(1).numpy(), minlength=16)
    assert not turns[n:].any()
    assert stats.chisquare(turns[:n]).pvalue > 0.001


def landed(config, frames, size, batch=3_000, **more):
    """Where frame 0 of each clip went."""
    x = torch.zeros(batch, size, 2)
    x[:, 0] = 1
    counts = torch.full((batch,), frames)
    return (
        augment_spectrogram(x, counts, torch.zeros(batch, 1), config, rng(), **more).inputs[:, :, 0].argmax(1).numpy()
    )


def test_eats_time_roll_is_from_minus_10_to_9_for_each_clip():
    found = landed(AugmentConfig(time_roll="eat"), 30, 40)  # turns to the left come back at the clip's own end, 29
    turns = np.where(found >= 20, found - 30, found)
    assert set(turns) == set(range(-10, 10))
    assert stats.chisquare(np.bincount(turns + 10)).pvalue > 0.001


def test_the_releases_time_roll_is_one_draw_a_batch_over_all_frames():
    x = torch.arange(12.0)[None, :, None].expand(5, 12, 2)
    turns = []
    for seed in range(3_000):
        config = AugmentConfig(time_roll="released")
        rolled = augment_spectrogram(x, None, torch.zeros(5, 1), config, rng(seed)).inputs
        assert torch.equal(rolled, rolled[:1].expand(5, -1, -1))
        turns.append(int(rolled[0, :, 0].argmin()))
    wanted = np.array([2, *[1] * 11]) * 3_000 / 13  # 0 and 12 leave a clip as it is
    assert stats.chisquare(np.bincount(turns, minlength=12), wanted).pvalue > 0.001


@given(frames=st.integers(1, 12), seed=SEEDS, kind=st.sampled_from(["eat", "released"]))
def test_time_roll_wraps_clips_shorter_than_its_range(frames, seed, kind):
    x, counts = spectrograms([frames, 12], 16, 2)
    rolled = augment_spectrogram(x, counts, torch.zeros(2, 1), AugmentConfig(time_roll=kind), rng(seed)).inputs
    assert any(torch.equal(rolled[0, :frames], x[0, :frames].roll(turn, 0)) for turn in range(frames))
    assert not rolled[0, frames:].any()


def test_a_model_that_attends_to_padding_has_it_augmented_too():
    turns = landed(AugmentConfig(time_roll="eat"), 4, 40, padded=True)
    assert set(turns) == {*range(10), *range(30, 40)}
    x, frames = spectrograms([10] * 500, 40, 4)
    noisy = augment_spectrogram(x, frames, torch.zeros(500, 1), AugmentConfig(cell_noise=0.1), rng(), padded=True)
    assert (noisy.inputs != x).float().mean() > 0.99
    assert torch.equal(noisy.counts, frames)
    stripes = AugmentConfig(spec_augment=SpecAugmentConfig(0.5, 0))
    blank = augment_spectrogram(x + 1, frames, torch.zeros(500, 1), stripes, rng(), padded=True).inputs[:, :, 0] == 0
    assert stripe_widths(blank).max() == 20
    assert blank.any(0).all()


# Gain


def test_gain_is_a_half_plus_beta():
    x = torch.ones(4_000, 1)
    gains = augment_waveform(x, None, AugmentConfig(gain_beta=10.0), rng())[:, 0].numpy()
    assert stats.kstest(gains - 0.5, stats.beta(10, 10).cdf).pvalue > 0.001


# Noise


@given(lengths=st.lists(st.integers(3, 400), min_size=1, max_size=5), snr=st.floats(-20, 40), seed=SEEDS)
@settings(max_examples=40)
def test_the_ratio_is_the_one_asked_for_over_the_clips_own_samples(lengths, snr, seed):
    waveform, counts = clips(lengths, 400)
    noisy = add_noise(waveform, counts, NoiseConfig(1.0, snr_db=(snr, snr)), rng(seed))
    for before, after, n in zip(waveform.double(), noisy.double(), lengths, strict=True):
        energy = before[:n].square().sum()
        ratio = 10 * torch.log10(energy / (after - before)[:n].square().sum())
        assert ratio.item() == pytest.approx(snr, abs=0.02)
        assert not after[n:].any()


def test_ratios_are_uniform_in_decibels_over_their_range():
    waveform, counts = clips([64] * 2_000, 64)
    noisy = add_noise(waveform, counts, NoiseConfig(1.0, snr_db=(5.0, 25.0)), rng())
    ratios = 10 * torch.log10(waveform.square().sum(1) / (noisy - waveform).square().sum(1))
    assert stats.kstest(ratios.numpy(), stats.uniform(5, 20).cdf).pvalue > 0.001


@pytest.mark.parametrize("exponent", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_the_periodogram_falls_with_the_exponent(exponent):
    noise = coloured_noise(2_048, torch.full((64,), exponent), torch.Generator().manual_seed(0)).numpy()
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(0)[4:-4]
    slope = np.polyfit(np.log(np.arange(4, 4 + len(power))), np.log(power), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    assert np.abs(noise.mean(1)).max() < 1e-4 * np.abs(noise).max()


def test_each_clip_has_a_colour_of_its_own_from_the_range():
    waveform, counts = clips([4_096] * 40, 4_096)
    noise = add_noise(waveform, counts, NoiseConfig(1.0, snr_db=(0, 0), exponent=(-1.5, 1.5)), rng()) - waveform
    power = (torch.fft.rfft(noise).abs() ** 2)[:, 8:].numpy()
    octaves = np.stack([np.log(p.mean(1)) for p in np.split(power[:, :2_040], [8, 24, 56, 120, 248, 504, 1016], 1)])
    slopes = -np.polyfit(np.log([12, 24, 48, 96, 192, 384, 768, 1536]), octaves, 1)[0]
    assert slopes.min() < -1
    assert slopes.max() > 1
    assert np.abs(slopes).max() < 2


def test_silent_clips_stay_silent_and_the_others_are_chosen_by_chance():
    waveform, counts = clips([32] * 2_000, 32)
    waveform[::2] = 0
    noisy = add_noise(waveform, counts, NoiseConfig(0.3), rng())
    changed = (noisy != waveform).any(1)
    assert not changed[::2].any()
    assert stats.binomtest(int(changed[1::2].sum()), 1_000, 0.3).pvalue > 0.001


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_clips_of_a_few_samples_stay_finite(samples):
    noisy = add_noise(torch.ones(4, samples), torch.full((4,), samples), NoiseConfig(1.0), rng())
    assert noisy.isfinite().all()


def test_what_lies_in_the_padding_does_not_count():
    waveform, counts = clips([20, 50], 64)
    loud = waveform + 1e3 * (torch.arange(64) >= counts[:, None])
    config = NoiseConfig(1.0)
    added = [add_noise(x, counts, config, rng())[0, :20] for x in (waveform, loud)]
    assert torch.equal(*added)


def test_cell_noise_is_uniform_with_a_strength_for_each_clip():
    x, frames = spectrograms([50, 30, 50, 50], 50, 40)
    added = augment_spectrogram(x, frames, torch.zeros(4, 1), AugmentConfig(cell_noise=0.1), rng()).inputs - x
    assert not added[1, 30:].any()
    strengths = added.amax((1, 2))
    assert strengths.max() <= 0.1
    assert strengths.unique().numel() == 4
    cells = (added[1, :30] / strengths[1]).flatten().numpy()
    assert stats.kstest(cells, stats.uniform.cdf).pvalue > 0.001


# Mixup


def lambdas(per, beta, draws):
    """Lambdas seen in targets: clip 0 is class 0, partners are never clip 0 in reverse order."""
    found = []
    for seed in range(draws):
        targets = torch.eye(2)
        found.append(mixup(targets, None, targets, MixupConfig(1.0, beta, per), rng(seed)).targets[0, 0].item())
    return found


@pytest.mark.parametrize("beta", [0.4, 0.8, 2.0])
def test_lambda_follows_beta_per_batch(beta):
    assert stats.kstest(lambdas("batch", beta, 1_500), stats.beta(beta, beta).cdf).pvalue > 0.001


def test_lambda_follows_beta_per_sample():
    targets = torch.eye(3_000)
    mixed = mixup(targets, None, targets, MixupConfig(1.0, 0.8, "sample"), rng()).targets
    own = mixed.diagonal().numpy()
    assert stats.kstest(own, stats.beta(0.8, 0.8).cdf).pvalue > 0.001
    assert np.unique(own).size > 2_990


def test_per_batch_mixes_everyone_with_one_lambda():
    x, targets = torch.randn(5, 7), torch.rand(5, 3)
    mixed = mixup(x, None, targets, MixupConfig(1.0, 0.8, "batch"), rng(3))
    weight = rng(3)
    weight.random(1)
    weight = float(weight.beta(0.8, 0.8))
    torch.testing.assert_close(mixed.inputs, weight * x + (1 - weight) * x.flip(0))
    torch.testing.assert_close(mixed.targets, weight * targets + (1 - weight) * targets.flip(0))


@pytest.mark.parametrize("batch", [2, 7, 8])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_partners_are_the_batch_in_reverse(per, batch):
    """So that no clip of an even batch is its own partner, and of an odd batch the middle one alone."""
    x = torch.randn(batch, 6)
    mixed = mixup(x, None, torch.eye(batch), MixupConfig(1.0, 2.0, per), rng(1))
    for i, row in enumerate(mixed.targets.numpy()):
        assert set(np.flatnonzero(row)) == {i, batch - 1 - i}
        torch.testing.assert_close(mixed.inputs[i], torch.from_numpy(row) @ x)


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_mixup_happens_as_often_as_asked(per):
    targets = torch.eye(2)
    config = MixupConfig(0.9, 2.0, per)
    first = [mixup(targets, None, targets, config, rng(seed)).targets[:, 0].tolist() for seed in range(800)]
    mixed = sum(a not in (0.0, 1.0) for a, _ in first)
    assert stats.binomtest(mixed, 800, 0.9).pvalue > 0.001
    assert any((a in (0.0, 1.0)) != (b in (0.0, 1.0)) for a, b in first) == (per == "sample")


@given(batch=st.integers(1, 12), per=st.sampled_from(["sample", "batch"]), seed=SEEDS)
def test_inputs_and_targets_are_blended_alike_and_mass_is_kept(batch, per, seed):
    x = torch.eye(batch)  # so that a row of the blend holds its own weights
    mixed = mixup(x[:, :, None].expand(-1, -1, 3), None, x.to(torch.int64), MixupConfig(0.8, per=per), rng(seed))
    assert mixed.targets.dtype == torch.float32
    torch.testing.assert_close(mixed.inputs, mixed.targets[:, :, None].expand(-1, -1, 3))
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(batch))
    assert mixed.targets.min() >= 0


def test_a_blend_owns_as_much_as_its_longer_clip_and_nothing_more():
    waveform, lengths = clips([10, 40, 25, 33, 7, 18], 50)
    for seed in range(20):
        mixed = mixup(waveform, lengths, torch.eye(6), MixupConfig(0.6), rng(seed))
        for row, n, weights, before in zip(mixed.inputs, mixed.counts, mixed.targets, lengths, strict=True):
            assert n == max(lengths[weights > 0].max(), before)
            assert not row[n:].any()
            assert row[:n].all()


def test_clips_left_out_of_mixup_are_untouched():
    waveform, lengths = clips([10, 40, 25, 33], 50)
    targets = torch.rand(4, 3)
    mixed = mixup(waveform, lengths, targets, MixupConfig(0.5), rng(1))
    left = (mixed.inputs == waveform).all(1)
    assert 0 < left.sum() < 4
    assert torch.equal(mixed.targets[left], targets[left])
    assert torch.equal(mixed.counts[left], lengths[left])


def test_targets_by_frame_are_mixed_too():
    x, targets = torch.eye(4), torch.eye(4)[:, None].expand(4, 6, 4)
    mixed = mixup(x, None, targets, MixupConfig(1.0), rng())
    torch.testing.assert_close(mixed.targets, mixed.inputs[:, None].expand(4, 6, 4))


# SpecAugment


def stripe_widths(blank):
    """Lengths of the only run of True in each row; fails where there are several runs."""
    edges = torch.diff(blank.int(), prepend=torch.zeros(len(blank), 1), append=torch.zeros(len(blank), 1), dim=1)
    assert ((edges == 1).sum(1) <= 1).all()
    return blank.sum(1).numpy()


@pytest.mark.parametrize(
    ("config", "time", "frequency"),
    [
        (SpecAugmentConfig(0.2, 0.25), 6, 4),  # of 30 own frames and of 16 bins
        (SpecAugmentConfig(0.2, 0.25, "window"), 8, 4),  # of the 40 frames of all
        (SpecAugmentConfig(8, 5, "absolute"), 8, 5),
        (SpecAugmentConfig(64, 32, "absolute"), 30, 16),  # wider than the clip
    ],
)
def test_widths_are_uniform_from_none_to_the_widest_and_stay_in_the_clip(config, time, frequency):
    x, frames = spectrograms([30] * 2_000, 40, 16)
    for masked, widest, axis in (
        (spec_augment(x, frames, replace(config, frequency_width=0), rng()), time, 2),
        (spec_augment(x, frames, replace(config, time_width=0), rng()), frequency, 1),
    ):
        own = (masked != x).all(axis) if axis == 2 else (masked != x)[:, :30].all(1)
        widths = stripe_widths(own)
        assert stats.chisquare(np.bincount(widths, minlength=widest + 1)).pvalue > 0.001
        assert widths.max() == widest
        assert (masked[:, 30:] == 0).all()


def test_every_start_that_fits_is_equally_likely():
    x, frames = spectrograms([12] * 6_000, 15, 4)
    blank = (spec_augment(x, frames, SpecAugmentConfig(3, 0, "absolute"), rng()) == 0).all(2)[:, :12]
    starts = blank.int().argmax(1)[blank.sum(1) == 3].numpy()
    assert stats.chisquare(np.bincount(starts, minlength=10)).pvalue > 0.001


@given(
    frames=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    fill=st.sampled_from([0.0, -0.5, 2.0]),
    masks=st.integers(1, 3),
    seed=SEEDS,
)
def test_masks_fill_whole_stripes_of_own_frames_and_leave_padding(frames, fill, masks, seed):
    x, counts = spectrograms(frames, 20, 8)
    config = SpecAugmentConfig(0.5, 0.5, time_masks=masks, frequency_masks=masks, fill=fill)
    masked = spec_augment(x, counts, config, rng(seed))
    for before, after, n in zip(x, masked, frames, strict=True):
        changed = (before != after)[:n]
        assert (after[:n][changed] == fill).all()
        rows, columns = changed.all(1), changed.all(0)
        assert torch.equal(changed, rows[:, None] | columns)
        assert not after[n:].any()
        if not columns.all():
            assert rows.sum() <= masks * (n // 2)


def test_several_masks_differ_between_clips_and_from_each_other():
    x, frames = spectrograms([100] * 200, 100, 16)
    blank = (spec_augment(x, frames, SpecAugmentConfig(10, 0, "absolute", time_masks=2), rng()) == 0).all(2)
    runs = (torch.diff(blank.int(), prepend=torch.zeros(200, 1), dim=1) == 1).sum(1)
    assert runs.max() == 2
    assert blank.sum(1).max() > 10
    assert blank.unique(dim=0).shape[0] > 180


# The whole


def both(config, waveform, lengths, x, frames, targets, seed=5):
    return augment_waveform(waveform, lengths, config, rng(seed)), augment_spectrogram(
        x, frames, targets, config, rng(seed)
    )


def test_the_seed_decides():
    batch = (*clips([90, 60, 30, 99], 100), *spectrograms([30, 20, 10, 33], 40, 8), torch.eye(4))
    first, again, other = both(ALL, *batch), both(ALL, *batch), both(ALL, *batch, seed=6)
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1].inputs, other[1].inputs)


def test_the_global_generators_are_neither_read_nor_moved():
    batch = (*clips([90, 60], 100), *spectrograms([30, 20], 40, 8), torch.eye(2))
    torch.manual_seed(1)
    first, state = both(ALL, *batch), torch.get_rng_state()
    assert torch.equal(state, torch.random.manual_seed(1).get_state())
    torch.manual_seed(2)
    assert torch.equal(first[0], both(ALL, *batch)[0])


@given(seed=SEEDS, neighbour=st.integers(1, 100), frames=st.integers(1, 40))
@settings(max_examples=30)
def test_neighbours_change_nothing(seed, neighbour, frames):
    config = replace(ALL, mixup=MixupConfig())
    waveform, lengths = clips([90, 60, 30], 100)
    x, counts = spectrograms([30, 20, 10], 40, 8)
    other, others = clips([90, neighbour, 30], 100, seed=1)
    y, y_counts = spectrograms([30, frames, 10], 40, 8, seed=1)
    for row in (0, 2):
        other[row], y[row] = waveform[row], x[row]
    a, b = (
        both(config, *batch, torch.eye(3), seed)
        for batch in ((waveform, lengths, x, counts), (other, others, y, y_counts))
    )
    for row in (0, 2):
        assert torch.equal(a[0][row], b[0][row])
        assert torch.equal(a[1].inputs[row], b[1].inputs[row])


def test_switching_one_off_leaves_the_draws_of_the_others():
    waveform, lengths = clips([90, 60, 30], 100)
    gain_only = augment_waveform(waveform, lengths, AugmentConfig(gain_beta=10.0), rng())
    with_roll = augment_waveform(waveform, lengths, ROLL_AND_GAIN, rng())
    torch.testing.assert_close(gain_only.abs().amax(1), with_roll.abs().amax(1))
    x, frames = spectrograms([30, 20, 10], 40, 8)
    plain = replace(ALL, mixup=MixupConfig())
    for seed in range(5):
        masked = [
            augment_spectrogram(x, frames, torch.eye(3), replace(plain, time_roll=turn), rng(seed)).inputs == 0
            for turn in (None, "eat")
        ]
        assert torch.equal(*masked)


def test_masks_are_laid_over_the_blend():
    x = torch.ones(2, 10, 4)
    config = AugmentConfig(mixup=MixupConfig(1.0, per="batch"), spec_augment=SpecAugmentConfig(1.0, 0.0))
    out = augment_spectrogram(x, None, torch.eye(2), config, rng(1)).inputs
    assert set(out.unique().tolist()) == {0.0, 1.0}  # mixing masked clips would give values between


def test_masks_reach_as_far_as_the_blend():
    x, frames = spectrograms([5, 20], 25, 4)
    config = AugmentConfig(mixup=MixupConfig(1.0, 2.0, "batch"), spec_augment=SpecAugmentConfig(1.0, 0.0))
    out = torch.stack([augment_spectrogram(x, frames, torch.eye(2), config, rng(i)).inputs[0] for i in range(50)])
    blank = (out == 0).all(2).sum(0)  # of 50 draws, by frame
    assert (blank[5:20] > 0).all()
    assert (blank[5:20] < 50).all()
    assert (blank[20:] == 50).all()


def test_nothing_is_changed_unless_asked_for():
    waveform, lengths = clips([90, 60], 100)
    x, frames = spectrograms([30, 20], 40, 8)
    out, mixed = both(AugmentConfig(), waveform, lengths, x, frames, torch.eye(2))
    assert torch.equal(out, waveform)
    assert torch.equal(mixed.inputs, x)
    assert torch.equal(mixed.counts, frames)
    assert torch.equal(mixed.targets, torch.eye(2))


def test_inputs_are_not_written_to():
    batch = (*clips([90, 60], 100), *spectrograms([30, 20], 40, 8), torch.eye(2))
    kept = [t.clone() for t in batch]
    both(ALL, *batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, kept, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_device_and_shape_are_kept(dtype):
    waveform, lengths = clips([90, 60], 100)
    x, frames = spectrograms([30, 20], 40, 8)
    out, mixed = both(ALL, waveform.to(dtype), lengths, x.to(dtype), frames, torch.eye(2))
    for tensor, like in ((out, waveform), (mixed.inputs, x)):
        assert (tensor.dtype, tensor.shape, tensor.device) == (dtype, like.shape, like.device)
        assert not tensor.requires_grad
        assert tensor.isfinite().all()


def test_everything_runs_where_its_input_is():
    """The meta device refuses any operation with a tensor of the host."""
    x = torch.rand(3, 40, 8, device="meta")
    config = replace(ALL, cell_noise=0.0)  # meta has no generators
    mixed = augment_spectrogram(x, torch.tensor([40, 30, 20]), torch.rand(3, 5, device="meta"), config, rng())
    waveform = augment_waveform(torch.rand(3, 99, device="meta"), torch.tensor([9, 9, 9]), ROLL_AND_GAIN, rng())
    assert {t.device.type for t in (*mixed, waveform)} == {"meta"}


def test_full_clips_need_no_lengths():
    waveform, lengths = clips([100, 100], 100)
    x, frames = spectrograms([40, 40], 40, 8)
    with_counts, without = (
        both(ALL, waveform, lengths, x, frames, torch.eye(2)),
        both(ALL, waveform, None, x, None, torch.eye(2)),
    )
    assert torch.equal(with_counts[0], without[0])
    assert torch.equal(with_counts[1].inputs, without[1].inputs)
    assert without[1].counts is None


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if name.startswith("finetune/") and name != "finetune/demo"]
)
def test_the_recipes_settings_run(name):
    config = from_dict(FinetuneConfig, load_recipe(name)).augment
    assert from_dict(AugmentConfig, to_dict(config)) == config
    batch = (*clips([90, 60, 40], 100), *spectrograms([100, 60, 40], 128, 128), torch.eye(3))
    mixed = both(config, *batch)[1]
    assert not torch.equal(mixed.inputs, batch[2])
    assert mixed.inputs.isfinite().all()


@pytest.mark.parametrize(
    ("name", "width", "noise", "mixup"),
    [
        ("as20k", 0.2, False, True),
        ("as2m", 0.2, False, True),
        ("esc50", 0.2, False, False),
        ("spc2-12-tfds", 0.1, True, True),
    ],
)
def test_the_papers_recipes_hold_table_6(name, width, noise, mixup):
    config = from_dict(FinetuneConfig, load_recipe(f"finetune/{name}")).augment
    assert (config.spec_augment.time_width, config.spec_augment.frequency_width) == (width, width)
    assert (config.noise.probability > 0) == noise
    assert config.mixup.probability == (0.9 if mixup else 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: augment_waveform(torch.zeros(2, 3, 4), None, AugmentConfig(), rng()),
        lambda: augment_waveform(torch.zeros(2, 3), torch.tensor([3]), AugmentConfig(), rng()),
        lambda: augment_spectrogram(torch.zeros(2, 3), None, torch.eye(2), AugmentConfig(), rng()),
        lambda: augment_spectrogram(torch.zeros(2, 3, 4), None, torch.eye(3), AugmentConfig(), rng()),
        lambda: mixup(torch.zeros(2, 3), None, torch.tensor([0, 1]), MixupConfig(), rng()),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AudiobatError, match="give"):
        call()


@pytest.mark.parametrize(
    ("cls", "values", "field"),
    [
        (NoiseConfig, {"probability": 1.1}, "noise.probability"),
        (NoiseConfig, {"snr_db": (25.0, 5.0)}, "noise.snr_db"),
        (NoiseConfig, {"snr_db": (5.0, float("nan"))}, "noise.snr_db"),
        (NoiseConfig, {"exponent": (-5.0, 0.0)}, "noise.exponent"),
        (MixupConfig, {"probability": -0.1}, "mixup.probability"),
        (MixupConfig, {"beta": 0.0}, "mixup.beta"),
        (MixupConfig, {"per": "clip"}, "per is 'clip'"),
        (SpecAugmentConfig, {"time_width": 64.0}, "spec_augment.time_width"),
        (SpecAugmentConfig, {"frequency_width": 2.5, "unit": "absolute"}, "spec_augment.frequency_width"),
        (SpecAugmentConfig, {"time_width": float("inf"), "unit": "absolute"}, "spec_augment.time_width"),
        (SpecAugmentConfig, {"time_masks": 0}, "spec_augment.time_masks"),
        (SpecAugmentConfig, {"fill": float("nan")}, "spec_augment.fill"),
        (SpecAugmentConfig, {"unit": "frames"}, "unit is 'frames'"),
        (AugmentConfig, {"gain_beta": 0.0}, "gain_beta"),
        (AugmentConfig, {"cell_noise": -1.0}, "cell_noise"),
        (AugmentConfig, {"time_roll": "eet"}, "time_roll is 'eet'.*did you mean eat"),
    ],
)
def test_bad_settings_name_their_field(cls, values, field):
    with pytest.raises(AudiobatError, match=field):
        cls(**values)
