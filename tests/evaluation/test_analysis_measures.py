"""Ranks, LiDAR, CKA, moments, views: each against a plain formula or a case whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from audiobat.config import EncoderConfig, FrontendConfig, MaskConfig, ModelConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.analysis.label_free import PATCHES, LabelFree, artefact_share, draw_patches
from audiobat.evaluation.analysis.rank import (
    Lidar,
    Moments,
    alpha_req,
    effective_rank,
    participation_ratio,
    rankme,
    spectrum_measures,
)
from audiobat.evaluation.analysis.similarity import linear_cka
from audiobat.evaluation.analysis.views import cropped_views, masked_views, views_of
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.pretraining.masks.base import seeded_generator
from audiobat.pretraining.masks.inverse_block import InverseBlockMask

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96))


def moments(vectors: torch.Tensor, batch: int = 7) -> Moments:
    found = Moments(vectors.shape[1])
    for part in vectors.split(batch):
        found.update(part)
    return found


def rotation(dim: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0]


def test_moments_of_batches_are_those_of_all_vectors_even_far_from_zero():
    torch.manual_seed(0)
    vectors = 1e6 + torch.randn(50, 5, dtype=torch.float64) * torch.tensor([1, 0.1, 2, 0.01, 1])
    found = moments(vectors)
    found.update(vectors[:0])
    assert found.count == 50
    expected = np.cov(vectors.numpy().T, bias=True)
    np.testing.assert_allclose(found.covariance.numpy(), expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.gram.numpy(), (vectors.T @ vectors).numpy(), rtol=1e-12)


def test_rankme_is_the_width_of_isotropic_features_and_one_of_a_line():
    torch.manual_seed(1)
    isotropic = torch.linalg.qr(torch.randn(60, 12, dtype=torch.float64))[0]
    assert spectrum_measures(moments(isotropic))["rankme"] == pytest.approx(12, rel=1e-4)
    line = torch.randn(60, 1, dtype=torch.float64) * torch.randn(1, 12, dtype=torch.float64)
    assert spectrum_measures(moments(line))["rankme"] == pytest.approx(1, abs=1e-3)


def test_rank_measures_of_batches_match_the_svd_of_all_vectors():
    torch.manual_seed(2)
    vectors = torch.randn(40, 8, dtype=torch.float64) * torch.linspace(0.1, 3, 8) + 2
    found = spectrum_measures(moments(vectors))
    s = np.linalg.svd(vectors.numpy(), compute_uv=False)  # RankMe does not centre
    p = s / s.sum() + 1e-7
    assert found["rankme"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    s2 = np.linalg.svd((vectors - vectors.mean(0)).numpy(), compute_uv=False) ** 2  # the others do
    q = s2 / s2.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-(q * np.log(q)).sum()), rel=1e-9)
    assert found["participation_ratio"] == pytest.approx(1 / (q**2).sum(), rel=1e-9)
    assert found["vectors"] == 40


def test_effective_rank_and_participation_ratio_of_known_eigenvalues():
    eigenvalues = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0])
    assert effective_rank(eigenvalues) == pytest.approx(2**1.75)  # 1/2, 1/4, 1/8, 1/8: 1.75 bits; a zero adds none
    assert participation_ratio(eigenvalues) == pytest.approx(64 / 22)
    assert rankme(torch.ones(5)) == pytest.approx(5, rel=1e-5)


def test_alpha_is_the_exponent_of_a_power_law_whatever_lies_outside_places_10_to_100():
    places = torch.arange(1, 161, dtype=torch.float64)
    law = places**-1.3
    assert alpha_req(law) == pytest.approx(1.3)
    other = law.clone()
    other[:9] *= 5
    other[100:] *= 0.1
    assert alpha_req(other[torch.randperm(160)]) == pytest.approx(1.3)  # in any order
    assert alpha_req(law[:14]) == pytest.approx(1.3)  # five places make a line
    assert math.isnan(alpha_req(law[:13]))
    assert math.isnan(alpha_req(torch.zeros(20)))


@pytest.mark.parametrize("within", ["varied", "as between"])
def test_lidar_of_known_scatters(within: str):
    """Clips at +-a_i and views at +-s_j along the axes have diagonal scatters, which are then turned."""
    torch.manual_seed(3)
    a = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    s = torch.tensor([0.3, 0.9, 0.2, 0.4], dtype=torch.float64) if within == "varied" else 10 * a
    turn, axes = rotation(4), torch.eye(4, dtype=torch.float64)
    lidar = Lidar(4)
    for mean in torch.cat([a[:, None] * axes, -a[:, None] * axes]):
        lidar.update((5 + mean + torch.cat([s[:, None] * axes, -s[:, None] * axes])) @ turn)
    assert lidar.clips == 8
    eigenvalues = (a**2 / 4) / (s**2 / 4 + 1e-4)
    p = (eigenvalues / eigenvalues.sum() + 1e-7).numpy()
    assert lidar.value() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    if within == "as between":
        assert lidar.value() == pytest.approx(4, rel=1e-4)  # measured by the views' spread, all directions are equal


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. (2012), Eq. 5, term by term."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def test_cka_matches_the_unbiased_estimate_written_out():
    torch.manual_seed(4)
    layers = torch.randn(3, 9, 5, dtype=torch.float64)
    layers[1] += layers[0]
    found = linear_cka(layers)
    x = layers.numpy()
    for i in range(3):
        for j in range(3):
            scale = math.sqrt(unbiased_hsic(x[i], x[i]) * unbiased_hsic(x[j], x[j]))
            assert found[i, j] == pytest.approx(unbiased_hsic(x[i], x[j]) / scale, abs=1e-10)


def test_cka_is_one_up_to_rotation_scale_and_shift_and_about_zero_for_unrelated_features():
    torch.manual_seed(5)
    x = torch.randn(150, 60, dtype=torch.float64)
    turned = 7 * x @ rotation(60) + 3
    found = linear_cka(torch.stack([x, turned, torch.randn(150, 60, dtype=torch.float64)]))
    assert found[0, 1] == pytest.approx(1)
    assert abs(found[0, 2]) < 0.05  # the plain estimate says 0.29 here
    assert found.diagonal().tolist() == pytest.approx([1, 1, 1])
    with pytest.raises(AudiobatError, match="at least 4 clips and got 3"):
        linear_cka(torch.randn(2, 3, 5))


def made_features(cls: bool = True) -> LayerFeatures:
    """2 blocks, 6 clips of 4 to 10 valid patches; what lies in padding is absurd."""
    torch.manual_seed(6)
    valid = torch.arange(10)[None] < torch.tensor([10, 8, 4, 10, 6, 7])[:, None]
    patches = torch.randn(2, 6, 10, 5) + torch.tensor([1.0, -2.0])[:, None, None, None]
    patches = torch.where(valid[None, :, :, None], patches, 1e6)
    return LayerFeatures(patches, torch.randn(2, 6, 5) if cls else None, (5, 2), valid, torch.arange(5) * 0.1)


def halves(features: LayerFeatures) -> list[LayerFeatures]:
    def part(rows: slice) -> LayerFeatures:
        cls = None if features.cls_token is None else features.cls_token[:, rows]
        return LayerFeatures(
            features.patch_tokens[:, rows], cls, features.grid, features.valid[rows], features.frame_times
        )

    return [part(slice(0, 4)), part(slice(4, 6))]


def test_label_free_measures_are_of_all_valid_patches_their_means_and_cls():
    features = made_features()
    measures = LabelFree(2, 5)
    for batch in halves(features):
        measures.update(batch)
    for i, block in enumerate(measures.blocks()):
        tokens = features.patch_tokens[i].double()
        patches = tokens[features.valid]
        means = torch.stack([tokens[b][features.valid[b]].mean(0) for b in range(6)])
        for kind, vectors in (("patches", patches), ("mean", means), ("cls", features.cls_token[i].double())):
            p = torch.linalg.svdvals(vectors)
            p = p / p.sum() + 1e-7
            assert block[kind]["rankme"] == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-5)
            spread = functional.normalize(vectors, dim=-1).std(0).mean() * math.sqrt(5)
            assert block[kind]["token_std"] == pytest.approx(float(spread), rel=1e-5)
            assert block[kind]["vectors"] == len(vectors)
        assert block["artefact_share"] == 0
    expected = linear_cka(
        torch.stack(
            [torch.stack([t[b][features.valid[b]].mean(0) for b in range(6)]) for t in features.patch_tokens.double()]
        )
    )
    np.testing.assert_allclose(measures.cka(), expected.numpy(), atol=1e-6)


def test_a_model_without_cls_has_no_measures_of_it_and_three_clips_have_no_cka():
    features = made_features(cls=False)
    measures = LabelFree(2, 5)
    measures.update(halves(features)[1])
    assert set(measures.blocks()[0]) == {"block", "patches", "mean", "artefact_share"}
    assert measures.cka() is None


def test_isotropic_tokens_have_spread_one_and_equal_ones_none():
    torch.manual_seed(7)
    many = LayerFeatures(torch.randn(1, 60, 64, 32), None, (64, 1), torch.ones(60, 64, dtype=bool), torch.arange(64))
    same = LayerFeatures(torch.ones(1, 4, 9, 32), None, (9, 1), torch.ones(4, 9, dtype=bool), torch.arange(9))
    for features, spread in ((many, 1.0), (same, 0.0)):
        measures = LabelFree(1, 32)
        measures.update(features)
        assert measures.blocks()[0]["patches"]["token_std"] == pytest.approx(spread, abs=0.02)


def test_artefacts_are_norms_over_four_standard_deviations_above_the_mean():
    norms = torch.ones(200, dtype=torch.float64)
    norms[:3] = 50
    assert artefact_share(norms) == pytest.approx(3 / 200)
    norms[:20] = 50  # a tenth is no exception: three standard deviations
    assert artefact_share(norms) == 0


def test_patches_are_drawn_from_valid_ones_as_the_seed_says():
    valid = torch.arange(200)[None] < torch.tensor([200, 40, 65])[:, None]
    drawn = draw_patches(valid, seeded_generator(torch.device("cpu"), 0, 0))
    assert drawn.sum(1).tolist() == [PATCHES, 40, PATCHES]
    assert not (drawn & ~valid).any()
    assert drawn[0, PATCHES:].any()  # not the first ones
    assert torch.equal(drawn, draw_patches(valid, seeded_generator(torch.device("cpu"), 0, 0)))
    assert not torch.equal(drawn, draw_patches(valid, seeded_generator(torch.device("cpu"), 0, 1)))


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


def test_masked_views_are_means_of_what_each_clone_sees(encoder: AudioEncoder):
    torch.manual_seed(8)
    waveform = torch.randn(int(0.9 * RATE))
    found = masked_views(encoder, waveform, 3, number=5)
    assert found.shape == (2, 3, 16)
    tokens = encoder.embed_patches(encoder.spectrogram(waveform[None])[0])
    generator = seeded_generator(torch.device("cpu"), 5)
    visible = InverseBlockMask(MaskConfig()).draw(3, (tokens.shape[1] // 2, 2), generator).visible
    assert visible.shape[1] < tokens.shape[1]
    for view, seen in enumerate(visible):
        x = torch.cat([encoder.cls_token, tokens[:, seen]], 1)  # a clone alone, block by block
        x = encoder.pre_norm(x)
        for block_number, block in enumerate(encoder.blocks):
            x = block(x)[0]
            torch.testing.assert_close(found[block_number, view], x[0, 1:].mean(0), atol=1e-5, rtol=1e-4)


def test_views_are_a_function_of_the_clips_number(encoder: AudioEncoder):
    torch.manual_seed(9)
    waveform = torch.randn(int(0.9 * RATE))
    first = views_of(encoder, waveform, 4, 1)
    torch.manual_seed(10)
    assert torch.equal(first, views_of(encoder, waveform, 4, 1))
    assert not torch.equal(first, views_of(encoder, waveform, 4, 2))
    assert not torch.equal(first[:, 0], first[:, 1])


class Ramp:
    """The sample's value, first patch at the crop's start: a view tells where its crop lay."""

    sample_rate, dim, depth = 8000, 1, 1

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        patches = waveform[None, :, :, None].double()
        length = waveform.shape[1]
        return LayerFeatures(
            patches, None, (length, 1), torch.ones(waveform.shape, dtype=torch.bool), torch.arange(length)
        )


def test_other_models_see_crops_of_half_the_clip():
    waveform = torch.arange(101, dtype=torch.float32)
    found = cropped_views(Ramp(), waveform, 200, 3)[0, :, 0]
    size = 50  # half of 101 samples
    starts = found - (size - 1) / 2
    torch.testing.assert_close(starts, starts.round(), atol=1e-3, rtol=0)
    assert starts.round().min() >= 0
    assert starts.round().max() <= 101 - size
    assert len(starts.round().unique()) > 40  # of the 52 places
    assert torch.equal(found, views_of(Ramp(), waveform, 200, 3)[0, :, 0])
    assert set(cropped_views(Ramp(), waveform[:5], 99, 3)[0, :, 0].tolist()) == {0.5, 1.5, 2.5, 3.5}  # each place
