"""The recogniser of frames: padding has no say, columns become frames, blocks are mixed."""

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from audiobat.models.features import LayerFeatures
from audiobat.probing.asr.head import BothWays, Recogniser
from audiobat.probing.columns import column_means


def features(seed: int = 0, columns: int = 5, rows: int = 3) -> LayerFeatures:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 2, columns * rows, 4, generator=generator)
    valid = torch.ones(2, columns * rows, dtype=torch.bool)
    return LayerFeatures(tokens, None, (columns, rows), valid, torch.arange(columns) * 0.16)


def recogniser(upsample: int = 4) -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(4, 2, 6, upsample, hidden=8).eval()


def test_a_column_becomes_frames_of_log_probabilities():
    log_probs, frames = recogniser(upsample=4)(features())
    assert log_probs.shape == (2, 20, 6)
    assert frames.tolist() == [20, 20]
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 20))


def test_padding_behind_a_clip_or_between_its_columns_has_no_say():
    head, whole = recogniser(), features()
    for padded in (torch.tensor([3, 4]), torch.tensor([1, 2])):  # columns of the second clip
        valid = whole.valid.clone().unflatten(1, whole.grid)
        valid[1, padded] = False
        tokens = whole.patch_tokens.clone().unflatten(2, whole.grid)
        tokens[:, 1, padded] = 1e4
        found, frames = head(LayerFeatures(tokens.flatten(2, 3), None, whole.grid, valid.flatten(1), whole.frame_times))
        assert frames.tolist() == [20, 12]
        kept = [i for i in range(5) if i not in padded.tolist()]
        alone = whole.patch_tokens.unflatten(2, whole.grid)[:, 1:2, kept].flatten(2, 3)
        some = LayerFeatures(alone, None, (3, 3), torch.ones(1, 9, dtype=torch.bool), whole.frame_times[:3])
        torch.testing.assert_close(found[1, :12], head(some)[0][0])
        torch.testing.assert_close(found[:1], head(whole)[0][:1])


def test_both_directions_are_those_of_packed_sequences():
    torch.manual_seed(0)
    layers, frames, lengths = BothWays(3, 5, 2), torch.randn(4, 9, 3), torch.tensor([9, 4, 1, 7])
    packing = torch.nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True)
    for number in (0, 1):
        for ours, suffix in ((layers.onward[number], ""), (layers.back[number], "_reverse")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(packing, f"{name}_l{number}{suffix}").data = getattr(ours, f"{name}_l0").data
    packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    wanted = pad_packed_sequence(packing(packed)[0], batch_first=True)[0]
    found = layers(frames, lengths)
    for clip, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[clip, :length], wanted[clip, :length])


def test_a_column_is_the_mean_of_its_valid_patches():
    whole = features()
    valid = whole.valid.clone()
    valid[0, 4] = False  # column 1, row 1
    means = column_means(LayerFeatures(whole.patch_tokens, None, whole.grid, valid, whole.frame_times))
    assert means.grid == (5, 1)
    torch.testing.assert_close(means.patch_tokens[:, 0, 1], whole.patch_tokens[:, 0, [3, 5]].mean(1))
    torch.testing.assert_close(means.patch_tokens[:, 1, 4], whole.patch_tokens[:, 1, 12:].mean(1))
    torch.testing.assert_close(recogniser()(column_means(whole))[0], recogniser()(whole)[0])


def test_the_gate_decides_which_block_is_heard():
    head, whole = recogniser(), features()
    head.gate.data = torch.tensor([0.0, 50.0])
    torch.testing.assert_close(head.gate_weights, torch.tensor([0.0, 1.0]))
    other = LayerFeatures(whole.patch_tokens.clone(), None, whole.grid, whole.valid, whole.frame_times)
    other.patch_tokens[0] = 0.0
    torch.testing.assert_close(head(other)[0], head(whole)[0])
