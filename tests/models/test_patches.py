"""Patches: token order, positions against their formula, valid patches."""

import math

import torch

from audiobat.models.patches import PatchEmbed, pad_frames, sincos_positions, valid_patches


def test_tokens_are_time_major_with_frequency_fastest():
    embed = PatchEmbed(4, (2, 3))
    spectrogram = torch.randn(1, 8, 9)  # a grid of 4 x 3 patches
    tokens = embed(spectrogram)
    for t in range(4):
        for f in range(3):
            patch = spectrogram[0, 2 * t : 2 * t + 2, 3 * f : 3 * f + 3]
            expected = embed.proj.weight.flatten(1) @ patch.flatten() + embed.proj.bias
            torch.testing.assert_close(tokens[0, 3 * t + f], expected)


def test_positions_follow_the_formula():
    dim, columns, rows = 16, 5, 3
    table = sincos_positions((columns, rows), dim)
    assert table.shape == (1, 15, dim)
    quarter = dim // 4
    for t in range(columns):
        for f in range(rows):
            for k in range(quarter):
                rate = 10_000 ** (-k / quarter)
                row = table[0, t * rows + f]
                expected = [math.sin(f * rate), math.cos(f * rate), math.sin(t * rate), math.cos(t * rate)]
                found = [row[k], row[quarter + k], row[2 * quarter + k], row[3 * quarter + k]]
                torch.testing.assert_close(torch.stack(found), torch.tensor(expected), atol=1e-6, rtol=0)


def test_shorter_clips_use_a_prefix_of_the_table():
    assert torch.equal(sincos_positions((64, 8), 32)[:, : 20 * 8], sincos_positions((20, 8), 32))


def test_a_patch_is_valid_if_any_frame_of_it_is_within_a_window_and_behind_it_if_all_are():
    valid = valid_patches(torch.tensor([1, 4, 5, 12, 13, 15, 16, 19]), (4, 2), 4, table=3)
    columns = [1, 1, 2, 3, 3, 3, 4, 4]
    assert valid.tolist() == [[True] * (2 * n) + [False] * (8 - 2 * n) for n in columns]


def test_padding_extends_with_the_given_floor():
    padded = pad_frames(torch.ones(2, 3, 4), 5, 0.25)
    assert padded.shape == (2, 5, 4)
    assert (padded[:, :3] == 1).all()
    assert (padded[:, 3:] == 0.25).all()


def test_the_releases_positions_have_the_axes_swapped():
    dim, columns, rows = 16, 64, 8
    table = sincos_positions((columns, rows), dim, "released")[0]
    quarter = dim // 4
    for row in (0, 1, 7, 63, 64, 65, 300, 511):
        for k in range(quarter):
            rate = 10_000 ** (-k / quarter)
            first, second = (row % columns) * rate, (row // columns) * rate
            expected = [math.sin(first), math.cos(first), math.sin(second), math.cos(second)]
            torch.testing.assert_close(table[row, k::quarter], torch.tensor(expected), atol=1e-6, rtol=0)
    correct = sincos_positions((columns, rows), dim)[0]
    assert torch.equal(table[0], correct[0])
    assert 1.99 < (table - correct).abs().max() <= 2.0
    assert len(table.unique(dim=0)) == columns * rows  # scrambled, but none twice


def test_patches_start_as_the_paper_or_as_pytorch_has_them():
    torch.manual_seed(0)
    paper, torchs = PatchEmbed(768, (16, 16)), PatchEmbed(768, (16, 16), "torch")
    assert not paper.proj.bias.any()
    bound = math.sqrt(6 / (768 + 256))  # Xavier, uniform
    assert 0.99 * bound < paper.proj.weight.abs().max() <= bound
    for values in (torchs.proj.weight, torchs.proj.bias):  # uniform within 1 / sqrt(256)
        assert 0.98 / 16 < values.abs().max() <= 1 / 16
        assert abs(values.std().item() - 1 / 16 / math.sqrt(3)) < 2e-3
