"""A few hundred damaged files through the audio door; and the fuzzer itself, which must see what it looks for."""

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from audiobat.audio.read import load_audio
from audiobat.errors import AudiobatError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_decoders.py"


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_decoders", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_files_give_samples_or_an_error(fuzzer: ModuleType, tmp_path: Path) -> None:
    counts, _, peak = fuzzer.fuzz(600, 1, tmp_path)
    outcomes = {outcome: sum(n for (_, o, _), n in counts.items() if o == outcome) for _, outcome, _ in counts}
    assert set(outcomes) == {"ok", "refused"}, list(tmp_path.iterdir())
    assert min(outcomes.values()) > 100  # both sides of the door are tried
    assert peak < fuzzer.MEMORY / 2
    assert {how for how, _, _ in counts} == set(fuzzer.HOW)


def test_the_seeds_are_whole_recordings_of_many_formats(fuzzer: ModuleType) -> None:
    seeds = fuzzer.make_seeds(np.random.default_rng(0))
    assert {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".caf", ".w64", ".m4a", ".webm"} <= {name for name, _ in seeds}
    for _, data in seeds:
        assert len(load_audio(data, fuzzer.RATE)) > 500


def misbehave(data: bytes, extension: str) -> None:
    if data[0] % 8 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if data[0] % 8 == 1:
        time.sleep(300)
    if data[0] % 8 == 2:
        raise KeyError("x")
    if data[0] % 8 == 3:
        np.ones(2**29)
    if data[0] % 8 == 4:
        raise AudiobatError("/tmp/x.wav lasts 3.5 s: it is short.")


def test_crashes_hangs_exceptions_and_breaches_are_seen_kept_and_survived(
    fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = iter([bytes([number]) for number in (5, 0, 1, 2, 3, 4, 7, 0, 6)])
    monkeypatch.setattr(fuzzer, "make_input", lambda rng, seeds: ("random", next(inputs), ".wav"))
    counts, slowest, _ = fuzzer.fuzz(9, 0, tmp_path, check=misbehave, seconds=3.0)
    seen = {(outcome, reason): count for (_, outcome, reason), count in counts.items() if outcome != "breach"}
    assert seen == {
        ("ok", ""): 3,
        ("crash", "exit code -9"): 2,
        ("hang", "no answer in 3 s"): 1,
        ("exception", "KeyError('x')"): 1,
        ("refused", "lasts N s"): 1,
    }
    assert sum(outcome == "breach" for _, outcome, _ in counts) == 1
    assert 3.0 <= slowest < 60.0
    kept = {path.name: path.read_bytes()[0] for path in tmp_path.iterdir()}
    assert kept == {
        "crash_0_1.wav": 0,
        "hang_0_2.wav": 1,
        "exception_0_3.wav": 2,
        "breach_0_4.wav": 3,
        "crash_0_7.wav": 0,
    }


def test_the_exit_code_tells(fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz_decoders.py", "--inputs", "8", "--keep", str(tmp_path)])
    assert fuzzer.main() == 0
    monkeypatch.setattr(fuzzer, "open_it", lambda data, extension: 1 / 0)
    assert fuzzer.main() == 1


def test_one_seed_gives_one_stream(fuzzer: ModuleType) -> None:
    def stream(seed: int) -> list[tuple[str, bytes, str]]:
        rng = np.random.default_rng(seed)
        return [fuzzer.make_input(rng, [(".wav", bytes(range(100))), (".mp3", bytes(50))]) for _ in range(50)]

    assert stream(3) == stream(3) != stream(4)
