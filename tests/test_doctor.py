"""`doctor`: true facts, and a mark where something needs a mend."""

from pathlib import Path

import torch

from audiobat import hub
from audiobat.commands.doctor import doctor
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.encoder import AudioEncoder


def test_doctor_names_what_it_finds(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hub, "WEIGHTS", tmp_path)
    frontend = FrontendConfig(n_fft=256, win_length=256, mel_bins=16)
    encoder = AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=8, depth=1, heads=2)))
    hub.save_release(tmp_path / "good", encoder)
    hub.save_release(tmp_path / "rotten", encoder)
    (tmp_path / "rotten" / "model.safetensors").write_bytes(b"x")
    doctor()
    lines = {line.split(maxsplit=1)[0]: line for line in capsys.readouterr().out.splitlines() if "weights" not in line}
    assert torch.__version__ in lines["torch"]
    assert lines["precision"].split()[1] in ("fp32", "bf16")
    assert "flac" in lines["reads"]
    assert "GiB free" in lines["disk"]
    doctor()
    weights = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "weights"]
    assert f"good: ok, 0.00M parameters, sha256 {hub.weights_sha256(encoder)[:12]}" in weights[0]
    assert "! rotten:" in weights[1]
