"""Visual query tuning against the model's own blocks: a query that no token can see, appended to a frozen sequence."""

import math

import pytest
import torch
from torch.nn import functional as F

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.heads import block_inputs, parameter_groups
from audiobat.models.heads.vqt import VisualQueryTuning

CLASSES, QUERIES, DIM, DEPTH = 3, 2, 16, 2
HOP = 160


def encoder_of(gated: bool = True, pad: str = "mask", norm: str = "post") -> AudioEncoder:
    """Patches of 4 frames x 4 mels, two rows, and windows of 6 columns; norms and biases off their starts."""
    torch.manual_seed(0)
    encoder = AudioEncoder(
        ModelConfig(
            FrontendConfig(mel_bins=8),
            EncoderConfig(
                DIM,
                DEPTH,
                4,
                patch_size=(4, 4),
                max_frames=24,
                gated_attention=gated,
                pad=pad,
                block_norm=norm,
                final_norm=norm == "pre",
            ),
        )
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def head_of(encoder: AudioEncoder) -> VisualQueryTuning:
    torch.manual_seed(1)
    head = VisualQueryTuning(encoder, CLASSES, QUERIES).eval()
    torch.nn.init.normal_(head.queries)
    return head


def logits_of(head: VisualQueryTuning, waveform: torch.Tensor, lengths: torch.Tensor | None = None):
    """Logits of clips, and of their patch columns."""
    features = block_inputs(head.encoder, waveform, lengths)
    return head(features), head.frames(features)


def waveform_of(frames: int, clips: int = 2) -> torch.Tensor:
    return torch.randn(clips, frames * HOP - 1, generator=torch.Generator().manual_seed(2), dtype=torch.float32)


def slow_answer(block, query, tokens):
    """What the whole block makes of `query` [D] behind tokens [n, D], where nobody attends to the query."""
    sequence = torch.cat([tokens, query[None]])[None]
    seen = torch.ones(1, len(tokens) + 1, dtype=torch.bool)
    seen[0, -1] = False
    return block(sequence, seen)[0][0, -1]


def stem(encoder, waveform):
    """What goes into each block for one clip [S] of one window, [1 + n, D] each, from its own samples alone."""
    spectrogram, _ = encoder.spectrogram(waveform[None])
    patches = encoder.embed_patches(spectrogram)
    x = torch.cat([encoder.cls_token, patches], 1)
    x = x if encoder.config.encoder.block_norm == "pre" else encoder.pre_norm(x)
    inputs = []
    for block in encoder.blocks:
        inputs.append(x[0])
        x, _ = block(x)
    return inputs, encoder.norm(x)[0]


def slow_clip(head, encoder, waveform):
    inputs, last = stem(encoder, waveform)
    answers = [
        slow_answer(block, query, tokens)
        for block, own, tokens in zip(encoder.blocks, head.queries, inputs, strict=True)
        for query in own
    ]
    line = torch.cat([F.normalize(v, dim=0) for v in [*answers, last[0]]])
    return head.classifier.weight @ line + head.classifier.bias


def slow_frames(head, encoder, waveform):
    inputs, last = stem(encoder, waveform)
    frames = []
    for t in range((len(last) - 1) // 2):
        column = slice(1 + 2 * t, 3 + 2 * t)  # behind cls
        answers = [
            slow_answer(block, query, tokens[column])
            for block, own, tokens in zip(encoder.blocks, head.queries, inputs, strict=True)
            for query in own
        ]
        line = torch.cat([F.normalize(v, dim=0) for v in [*answers, last[column].mean(0)]])
        frames.append(head.classifier.weight @ line + head.classifier.bias)
    return torch.stack(frames)


def gradients_of(logits, head):
    weights = torch.randn(logits.shape, dtype=logits.dtype, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((logits * weights).sum(), list(head.parameters()))


@pytest.mark.parametrize(("gated", "norm"), [(False, "post"), (True, "post"), (True, "pre"), (False, "pre")])
def test_logits_and_gradients_are_those_of_a_query_that_no_token_sees(gated, norm):
    encoder = encoder_of(gated, norm=norm)
    head, waveform = head_of(encoder), waveform_of(16)
    for got, slow in zip(logits_of(head, waveform), (slow_clip, slow_frames), strict=True):
        wanted = torch.stack([slow(head, encoder, one) for one in waveform])
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
        for one, other in zip(gradients_of(got, head), gradients_of(wanted, head), strict=True):
            assert other.abs().max() > 1e-3
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_padded_clip_answers_as_it_does_alone():
    encoder = encoder_of()
    head, waveform = head_of(encoder), waveform_of(16)
    lengths = torch.tensor([waveform.shape[1], 8 * HOP - 1])
    waveform[1, 8 * HOP - 1 :] = 5.0  # garbage beyond the clip's end
    clips, frames = logits_of(head, waveform, lengths)
    short = waveform[1, : 8 * HOP - 1]
    torch.testing.assert_close(clips[0], slow_clip(head, encoder, waveform[0]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(clips[1], slow_clip(head, encoder, short), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(frames[1, :2], slow_frames(head, encoder, short), atol=1e-5, rtol=1e-4)
    assert frames.shape == (2, 4, CLASSES)
    assert torch.equal(frames[1, 2:], torch.zeros(2, CLASSES, dtype=torch.float32))


def test_queries_never_look_at_padding_that_the_model_itself_looks_at():
    encoder = encoder_of(pad="grid")  # every clip fills the window, and its tokens attend to all of it
    head, waveform = head_of(encoder), waveform_of(12, clips=1)
    inputs, last = stem(encoder, waveform[0])
    assert len(last) == 1 + 6 * 2
    answers = [
        slow_answer(block, query, tokens[: 1 + 3 * 2])
        for block, own, tokens in zip(encoder.blocks, head.queries, inputs, strict=True)
        for query in own
    ]
    line = torch.cat([F.normalize(v, dim=0) for v in [*answers, last[0]]])
    torch.testing.assert_close(logits_of(head, waveform)[0][0], head.classifier(line), atol=1e-5, rtol=1e-4)


def test_a_long_clip_averages_the_answers_of_its_windows_by_the_patches_that_they_hold():
    encoder = encoder_of()
    head, waveform = head_of(encoder), waveform_of(100)  # 25 columns: four windows of six and one of a column
    lengths = torch.tensor([waveform.shape[1], 30 * HOP - 1])  # the second clip ends in its second window
    features = encoder.forward_intermediates(waveform, lengths)
    assert features.grid == (25, 2)
    inputs = []
    hooks = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in encoder.blocks]
    encoder.forward_intermediates(waveform, lengths)
    for hook in hooks:
        hook.remove()
    clips, frames = logits_of(head, waveform, lengths)
    assert frames.shape == (2, 25, CLASSES)
    for b, windows in ((0, 5), (1, 2)):
        answers = []
        for block, own, tokens in zip(encoder.blocks, head.queries, inputs, strict=True):
            for query in own:
                parts, held = [], []
                for w in range(windows):
                    real = features.valid[b, 12 * w : 12 * w + 12].nonzero().flatten() + 1
                    parts.append(slow_answer(block, query, torch.cat([tokens[5 * b + w][:1], tokens[5 * b + w][real]])))
                    held.append(len(real))
                answers.append(sum(n * part for n, part in zip(held, parts, strict=True)) / sum(held))
        line = torch.cat([F.normalize(v, dim=0) for v in [*answers, features.cls_token[-1, b]]])
        torch.testing.assert_close(clips[b], head.classifier(line), atol=1e-5, rtol=1e-4)
    column = inputs[0].view(2, 5, 13, DIM)[0, 1, 1 + 2 * 2 : 1 + 2 * 3]  # column 8 of the first clip
    first = F.normalize(slow_answer(encoder.blocks[0], head.queries[0, 0], column), dim=0)
    with torch.no_grad():
        head.classifier.weight.zero_()
        head.classifier.weight[0, :DIM] = first
    probed = logits_of(head, waveform, lengths)[1][0, :, 0] - head.classifier.bias[0]
    assert probed[8].item() == pytest.approx(1.0)
    assert probed.argmax() == 8
    assert torch.equal(frames[1].abs().sum(-1) > 0, features.valid[1].view(25, 2).any(1))


def test_the_encoder_stays_what_it_was():
    encoder = encoder_of().train()
    for block in encoder.blocks:
        block.drop_path.rate = 0.9  # would show in the answers of a model in train mode
    head, waveform = head_of(encoder), waveform_of(16)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    logits, _ = logits_of(head, waveform)
    logits.sum().backward()
    assert torch.equal(logits_of(head, waveform)[0], logits)
    assert encoder.training
    assert encoder.blocks[0].training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.blocks[0]._forward_pre_hooks


def test_no_hook_outlives_an_error():
    encoder = encoder_of()
    with pytest.raises((RuntimeError, AudiobatError, IndexError)):
        block_inputs(encoder, torch.zeros(0, 0, dtype=torch.float32))
    assert not encoder.blocks[0]._forward_pre_hooks


def test_the_head_is_its_queries_and_its_classifier():
    torch.manual_seed(0)
    head = VisualQueryTuning(encoder_of(), CLASSES)
    width = (DEPTH * 10 + 1) * DIM
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {
        "queries": (DEPTH, 10, DIM),
        "classifier.weight": (CLASSES, width),
        "classifier.bias": (CLASSES,),
    }
    reach = math.sqrt(6 / (3 * 4 * 4 + DIM))
    assert 0.9 * reach < head.queries.abs().max() <= reach
    assert abs(head.queries.mean().item()) < 0.1 * reach
    decayed, spared = parameter_groups(head, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(head.classifier.weight)]
    assert len(spared["params"]) == 2
    assert head.penalty().item() == 0
    encoder = encoder_of()
    one, other = head_of(encoder), VisualQueryTuning(encoder, CLASSES, QUERIES)
    other.load_state_dict(one.state_dict())
    assert set(one.state_dict()) == set(shapes)
    assert torch.equal(logits_of(one, waveform_of(16))[0], logits_of(other, waveform_of(16))[0])


def test_an_encoder_without_such_blocks_is_refused():
    with pytest.raises(AudiobatError, match=r"vqt .* Linear has none"):
        VisualQueryTuning(torch.nn.Linear(2, 2), CLASSES)


def test_features_without_the_inputs_of_blocks_are_refused():
    encoder = encoder_of()
    with pytest.raises(AudiobatError, match=r"give it `block_inputs\(encoder, waveform\)`"):
        head_of(encoder)(encoder.forward_intermediates(waveform_of(16)))


def test_inputs_of_blocks_are_whole_where_a_few_clips_run_at_a_time(monkeypatch):
    torch.manual_seed(0)
    model = AudioEncoder(
        ModelConfig(FrontendConfig(n_fft=256, win_length=256, mel_bins=16), EncoderConfig(dim=16, depth=2, heads=2))
    )
    waveform = torch.randn(5, 4_000)
    whole = block_inputs(model, waveform)
    monkeypatch.setattr("audiobat.models.encoder.rows_at_once", lambda *_: 2)
    parts = block_inputs(model, waveform)
    assert len(whole.inputs) == len(parts.inputs) == 2
    for found, wanted in zip(parts.inputs, whole.inputs, strict=True):
        torch.testing.assert_close(found, wanted)
