"""`doctor`: true facts, a mark where something needs a fix, and every rule that an encoder may break."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiobat.cli.command import main
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.zoo import release as release_io
from audiobat.zoo.adapters import custom
from audiobat.zoo.doctor.encoder import CHECKS
from audiobat.zoo.doctor.run import doctor


def test_doctor_names_what_it_finds(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(release_io, "WEIGHTS", tmp_path)
    frontend = FrontendConfig(n_fft=256, win_length=256, mel_bins=16)
    encoder = AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=8, depth=1, heads=2)))
    release_io.save_release(tmp_path / "good", encoder)
    release_io.save_release(tmp_path / "rotten", encoder)
    (tmp_path / "rotten" / "model.safetensors").write_bytes(b"x")
    doctor()
    lines = {line.split(maxsplit=1)[0]: line for line in capsys.readouterr().out.splitlines() if "weights" not in line}
    assert torch.__version__ in lines["torch"]
    assert lines["precision"].split()[1] in ("fp32", "bf16")
    assert "flac" in lines["reads"]
    assert "GiB free" in lines["disk"]
    doctor()
    weights = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "weights"]
    assert f"good: ok, 0.00M parameters, sha256 {weights_sha256(encoder)[:12]}" in weights[0]
    assert "! rotten:" in weights[1]


class Good(torch.nn.Module):
    """An encoder that keeps every rule: 10 ms frames, two layers, a cls token."""

    sample_rate, dim, depth = 8000, 4, 2

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(80, 4)
        self.eval()

    def forward_intermediates(self, waveform, lengths=None):
        frames = waveform.unfold(1, 80, 80)  # [B, T, 80]
        columns = frames.shape[1]
        lengths = torch.full((len(waveform),), waveform.shape[1]) if lengths is None else lengths
        valid = torch.arange(columns) < (lengths // 80)[:, None].clamp(min=1)
        first = self.project(frames)
        patches = torch.stack([first, first.tanh()])
        cls = (patches * valid[:, :, None]).sum(2) / valid.sum(1)[:, None]
        return LayerFeatures(patches, cls, (columns, 1), valid, torch.arange(columns) * 0.01)


class Ill(Good):
    """`Good`, whose answer `spoil(self, features, waveform, lengths)` changes."""

    def __init__(self, spoil, **attributes):
        super().__init__()
        self.spoil = spoil
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward_intermediates(self, waveform, lengths=None):
        features = super().forward_intermediates(waveform, lengths)
        return self.spoil(features, waveform, lengths) if self.spoil else features


def louder(features, waveform, _):
    return replace(features, patch_tokens=features.patch_tokens / waveform.abs().max())


def unmasked_cls(features, *_):
    return replace(features, cls_token=features.patch_tokens.mean(2))


def standardised(features, waveform, _):
    return replace(features, patch_tokens=features.patch_tokens / waveform.std(1)[None, :, None, None])


def capped(features, *_):
    keep = slice(0, 1000)  # ten seconds
    return LayerFeatures(
        features.patch_tokens[:, :, keep],
        features.cls_token,
        (min(features.grid[0], 1000), 1),
        features.valid[:, keep],
        features.frame_times[keep],
    )


def one_token(features, *_):
    """The mean of ten seconds, however long the clip is."""
    keep = slice(0, 1000)
    own = features.valid[:, keep, None].float()
    token = (features.patch_tokens[:, :, keep] * own).sum(2, keepdim=True) / own.sum(1, keepdim=True)
    return LayerFeatures(token, features.cls_token * 0, (1, 1), features.valid[:, :1], features.frame_times[:1])


def needs_lengths(features, waveform, lengths):
    return features if lengths is not None else replace(features, patch_tokens=features.patch_tokens + 1)


def with_holes(features, *_):
    valid = features.valid.clone()
    valid[:, 3] = False
    return replace(features, valid=valid)


def too_short(features, waveform, lengths):
    return replace(features, valid=features.valid & (waveform.shape[1] >= 1600))


def in_place(features, waveform, _):
    waveform.mul_(0.5)
    return features


def keeps_gradient(self, waveform, lengths=None):
    with torch.enable_grad():
        return Good.forward_intermediates(self, waveform, lengths)


SPOILED = {  # the checks that must fail, and the encoder
    "a rate in kHz": (["attributes"], Ill(None, sample_rate=16)),
    "a dim that is a tensor": (["attributes"], Ill(None, dim=torch.tensor(4))),
    "a dim that is another": (["shapes"], Ill(None, dim=5)),
    "tokens without layers": (["shapes"], Ill(lambda f, *_: replace(f, patch_tokens=f.patch_tokens[0]))),
    "no LayerFeatures": (["shapes"], Ill(lambda f, *_: f.patch_tokens)),
    "whole numbers": (["types and device"], Ill(lambda f, *_: replace(f, valid=f.valid.float()))),
    "layers that are one": (
        ["sound and layers"],
        Ill(lambda f, *_: replace(f, patch_tokens=f.patch_tokens[:1].expand(2, -1, -1, -1))),
    ),
    "division by the maximum": (["silence", "sound and layers", "padding", "batch independence"], Ill(louder)),
    "division by the deviation": (["silence", "sound and layers", "padding"], Ill(standardised)),
    "a mean over padding": (["padding"], Ill(unmasked_cls)),
    "ten seconds and no more": (["30 s clip"], Ill(capped)),
    "ten seconds in one token": (["30 s clip"], Ill(one_token)),
    "lengths or else": (["lengths=None"], Ill(needs_lengths)),
    "dropout": (
        ["determinism"],
        Ill(lambda f, *_: replace(f, cls_token=torch.nn.functional.dropout(f.cls_token, 0.5))),
    ),
    "holes": (["valid"], Ill(with_holes)),
    "all valid": (["padding", "valid"], Ill(lambda f, *_: replace(f, valid=torch.ones_like(f.valid)))),
    "short clips without a token": (["0.1 s clip"], Ill(too_short)),
    "times in milliseconds": (["frame_times"], Ill(lambda f, *_: replace(f, frame_times=1000 * f.frame_times))),
    "times in frames": (["frame_times"], Ill(lambda f, *_: replace(f, frame_times=100 * f.frame_times))),
    "times backwards": (["frame_times"], Ill(lambda f, *_: replace(f, frame_times=f.frame_times.flip(0)))),
    "a spoiled waveform": (["no gradient"], Ill(in_place)),
    "a gradient": (["no gradient"], type("Graph", (Good,), {"forward_intermediates": keeps_gradient})()),
    "training mode": (["determinism"], Good().train()),
}


def test_an_encoder_that_keeps_the_rules_passes_every_check(capsys):
    doctor(Good(), device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) == 15
    assert all(line.endswith("  ok") for line in lines)


@pytest.mark.parametrize("kind", SPOILED)
def test_each_broken_rule_is_named_with_its_mend(kind: str, capsys):
    wanted, encoder = SPOILED[kind]
    with pytest.raises(AudiobatError, match=r"fails [0-9]+ of 15 checks"):
        doctor(encoder, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    failed = {line.split("  FAILED: ")[0].strip(): line for line in lines if "FAILED" in line}
    assert set(wanted) <= set(failed)
    assert all("; " in failed[name] or "raises" in failed[name] for name in wanted)  # what is wrong; the hint


def test_a_crash_is_a_fault_and_the_first_two_stop_the_rest(capsys):
    encoder = Good()
    encoder.forward_intermediates = lambda waveform, lengths=None: 1 / 0
    with pytest.raises(AudiobatError, match=r"fails 1 of 15 checks \(shapes\)"):
        doctor(encoder, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "raises ZeroDivisionError: division by zero" in lines[1]


def test_the_command_line_exits_with_2_on_a_fault_and_0_without(tmp_path: Path, capsys):
    lines = inspect.cleandoc(custom.__doc__).splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    ") or not line)
    (tmp_path / "mine.py").write_text(code)
    assert main(["doctor", "--model", f"{tmp_path / 'mine.py'}:MyEncoder", "--device", "cpu"]) == 0
    (tmp_path / "mine.py").write_text(code.replace("lengths // 320", "lengths // 1"))
    assert main(["doctor", "--model", f"{tmp_path / 'mine.py'}:MyEncoder", "--device", "cpu"]) == 2
    told = capsys.readouterr()
    assert "padding  FAILED: padding changes a clip" in told.out
    assert "audiobat: The encoder fails" in told.err


def test_bat_nano_keeps_the_rules():
    doctor("bat_nano", device="cpu")
