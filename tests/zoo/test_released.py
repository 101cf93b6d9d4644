"""Every step of benchmarks/released.py on files of the real layout with random weights, served from this machine."""

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import released_day as day
from benchmark_scripts import load_script
from huggingface_hub import constants

import audiobat
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError

released = load_script("released")
HUB = {name: released.HUB[name] for name in ("BAT", "EAT")}  # SSLAM's repository is laid out as EAT's


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two repositories, ESC-50's archive, and a stand-in for torchaudio."""
    root = tmp_path_factory.mktemp("published")
    day.publish(root, HUB)
    day.esc50_archive(root / "esc50.zip", clips=50, seconds=0.5)
    day.stub_torchaudio(root / "packages")
    return root


@pytest.fixture
def host(published, tmp_path, monkeypatch):
    """The server, where the Hub's client and the script find it."""
    with day.serving(published) as (server, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(released, "HUB", HUB)
        monkeypatch.setattr(released.time, "sleep", lambda seconds: None)
        yield SimpleNamespace(server=server, esc50=f"{address}/esc50.zip", pins=released.Pins(tmp_path / "pins.json"))


def on_the_clips_that_are_there(benchmark):
    """`benchmark` on a list of the clips that the archive holds, where a probe of all 2,000 would stop."""

    def shorter(config, *, data, **words):
        folder = Path(data[0].removeprefix("ESC-50="))
        assert len(read_labelled_clips(f"esc50:{folder}")) == 2_000
        lines = ["path,label,fold"]
        for file in sorted((folder / "audio").glob("*.wav")):
            fold, _, _, target = file.stem.split("-")
            lines.append(f"{file},sound_{target},{fold}")
        clips = folder / "there.csv"
        clips.write_text("\n".join([*lines, ""]))
        return benchmark(config, data=[f"ESC-50={clips}"], **words)

    return shorter


def test_the_whole_day(host, published, tmp_path, monkeypatch, capsys):
    """From nothing but a network to the table: downloads with a broken connection, hashes, tokens, probes."""
    plan = released.esc50_config
    short = {"train": {"steps": 2, "warmup_steps": 1, "batch_size": 8}, "head": {"prototypes": 8}, "workers": 0}
    monkeypatch.setattr(released, "esc50_config", lambda *words: replace(plan(*words), probe=short))
    monkeypatch.setattr(released, "CLIPS", 2)
    monkeypatch.setattr(released, "HUB", {"BAT": HUB["BAT"]})  # EAT's own code runs in a test below
    monkeypatch.setattr(released.audiobat, "benchmark", on_the_clips_that_are_there(audiobat.benchmark))
    monkeypatch.setenv("PYTHONPATH", str(published / "packages"))
    host.server.break_at = {"model.safetensors": 1_000, "esc50.zip": 20_000}
    pins = tmp_path / "pins.json"
    words = [tmp_path / "day", "--trust-remote-code", "--own-python", sys.executable, "--device", "cpu"]
    released.main([str(word) for word in [*words, "--esc50", host.esc50, "--pins", pins]])
    printed = capsys.readouterr().out
    for name in ("BAT", "ESC-50"):
        assert f"{name}: no hash is known" in printed
    kept = json.loads(pins.read_text())
    assert kept["BAT"]["commit"] == day.COMMIT
    assert kept["ESC-50"]["commit"] == day.ESC50_COMMIT
    tokens = (tmp_path / "day/tokens.md").read_text()
    assert tokens.count("| equal |") == 3
    table = (tmp_path / "day/esc50_paper/table.md").read_text()
    for protocol, paper in (("CGP", "95.80"), ("Protobin", "-"), ("LP", "87.25")):
        (line,) = [line for line in table.splitlines() if f"| {protocol} | BAT |" in line]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[7] == paper
        assert 0 <= float(cells[4].strip("*")) <= 100
    assert released.THIRTY_EPOCHS in table
    # The same command again asks nobody for anything, and says that all is as pinned.
    host.server.asked.clear()
    monkeypatch.setattr(released, "compare_all", lambda *words: 2)
    with pytest.raises(AudiobatError, match="2 comparisons of tokens are off"):
        released.main([str(word) for word in [*words, "--esc50", host.esc50, "--pins", pins]])
    assert capsys.readouterr().out.count("as pinned") == 2
    assert not host.server.asked


def test_a_download_goes_on_where_it_was_broken_off(host, published, tmp_path):
    whole, file = (published / "esc50.zip").read_bytes(), tmp_path / "a/esc50.zip"
    host.server.break_at = {"esc50.zip": 20_000}
    released.download(host.esc50, file)
    assert file.read_bytes() == whole
    assert [ask for _, _, ask in host.server.asked] == [None, "bytes=20000-"]
    assert [path.name for path in file.parent.iterdir()] == ["esc50.zip"]


def test_a_process_that_was_stopped_leaves_a_part_that_counts_only_for_the_same_file(
    host, published, tmp_path, monkeypatch
):
    whole, file = (published / "esc50.zip").read_bytes(), tmp_path / "esc50.zip"
    host.server.break_at = {"esc50.zip": 30_000}
    monkeypatch.setattr(released, "TRIES", 1)
    with pytest.raises(AudiobatError, match="ended after 30,000 of"):
        released.download(host.esc50, file)
    monkeypatch.setattr(released, "TRIES", 2)
    released.download(host.esc50, file)
    assert host.server.asked[-1][2] == "bytes=30000-"
    assert file.read_bytes() == whole
    # Another file stands there by now: what the part holds is thrown away.
    (tmp_path / "esc50.zip.part").write_bytes(b"old" * 100)
    (tmp_path / "esc50.zip.etag").write_text('"of another file"')
    released.download(host.esc50, file)
    assert file.read_bytes() == whole
    # A part without a name of its version may be anything, and one that is longer than the file, too.
    (tmp_path / "esc50.zip.part").write_bytes(b"old" * 100)
    released.download(host.esc50, file)
    assert file.read_bytes() == whole
    (tmp_path / "esc50.zip.part").write_bytes(whole + b"x")
    (tmp_path / "esc50.zip.etag").write_text(f'"{released.hashlib.sha256(whole).hexdigest()}"')
    released.download(host.esc50, file)
    assert file.read_bytes() == whole


def test_weights_that_were_spoilt_on_the_way_are_refused(host, tmp_path):
    host.server.spoilt = {"model.safetensors"}
    with pytest.raises(AudiobatError, match=r"has not the hash that .* publishes"):
        released.fetch_model("EAT", tmp_path / "EAT", host.pins)
    host.server.spoilt = set()
    released.fetch_model("EAT", tmp_path / "EAT", host.pins)
    assert set(host.pins.known["EAT"]["files"]) == {
        *("config.json", "configuration_own.py", "modeling_own.py", "model.safetensors"),
    }


@pytest.mark.parametrize(
    "members", [{}, {"x/audio/1-1-A-1.wav": b""}, {"x/meta/esc50.csv": b""}, {"x/../../evil": b""}]
)
def test_an_archive_that_is_none_of_esc50_is_refused_before_it_is_pinned(host, tmp_path, members):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(AudiobatError, match=r"other\.zip holds no meta/esc50\.csv with audio/\*\.wav.*is it ESC-50\?"):
        released.fetch_esc50((tmp_path / "other.zip").as_uri(), tmp_path / "data/ESC-50", host.pins)
    assert not host.pins.file.exists()
    assert not list((tmp_path / "data").iterdir())
    released.fetch_esc50(host.esc50, tmp_path / "data/ESC-50", host.pins)  # the right one comes next


def test_a_repository_without_weights_is_refused_before_it_is_pinned(host, tmp_path, monkeypatch):
    monkeypatch.setattr(released, "WANTED", ("*.json", "*.py"))
    with pytest.raises(AudiobatError, match=r"has no model\.safetensors: its layout is new"):
        released.fetch_model("EAT", tmp_path / "EAT", host.pins)
    assert not host.pins.file.exists()


def test_what_was_changed_since_the_pins_were_made_is_named(host, published, tmp_path):
    folder = released.fetch_model("EAT", tmp_path / "EAT", host.pins)
    released.fetch_esc50(host.esc50, tmp_path / "ESC-50", host.pins)
    again = released.Pins(host.pins.file)
    assert again.matches("EAT", folder)
    code = folder / "modeling_own.py"
    code.write_text(code.read_text() + "# changed\n")
    assert not again.matches("EAT", folder)
    released.fetch_model("EAT", folder, again)  # comes anew, at the pinned commit
    assert again.matches("EAT", folder)
    assert (published / HUB["EAT"] / code.name).read_text() == code.read_text()
    again.known["EAT"]["files"]["modeling_own.py"] = "0" * 64
    with pytest.raises(AudiobatError, match=r"EAT of .*: modeling_own\.py is not what .*pins\.json pins"):
        released.fetch_model("EAT", folder, again)
    (tmp_path / "ESC-50/audio/1-1000-A-0.wav").unlink()
    assert not again.matches("ESC-50", tmp_path / "ESC-50")
    released.fetch_esc50(host.esc50, tmp_path / "ESC-50", again)
    assert again.matches("ESC-50", tmp_path / "ESC-50")


def test_tokens_and_spectrograms_that_differ_are_off(host, published, tmp_path, monkeypatch):
    """EAT, whose spectrogram torchaudio makes; then each of the compared arrays is changed in one place."""
    monkeypatch.setenv("PYTHONPATH", str(published / "packages"))
    folder = released.fetch_model("EAT", tmp_path / "EAT", host.pins)
    waves = [np.sin(np.arange(16_000) * 0.1).astype(np.float32)]
    lines = released.compare("EAT", folder, waves, tmp_path / "out", sys.executable)
    assert [line[-1] for line in lines] == ["equal"] * 3
    theirs = dict(np.load(tmp_path / "out/tokens/EAT_out.npz"))
    tokens, spectrogram = theirs["given_tokens_0"], theirs["spectrogram_0"]

    def verdicts(mine=tokens, pixels=spectrogram, **changes):
        return [line[-1] for line in released.token_lines("EAT", [mine], [pixels], theirs | changes)]

    def touched(array, value):
        array = array.copy()
        array[(1,) * array.ndim] += value
        return array

    off = released.OFF
    assert verdicts() == ["equal"] * 3
    assert verdicts(touched(tokens, 0.01)) == [off, "equal", off]
    assert verdicts(touched(tokens, np.nan)) == [off, "equal", off]
    assert verdicts(tokens[:, :-1]) == [off, "equal", off]
    assert verdicts(pixels=touched(spectrogram, 0.01)) == ["equal", off, "equal"]
    assert verdicts(tokens_0=touched(theirs["tokens_0"], 0.01)) == ["equal", "equal", off]
    assert verdicts(why="OSError: no such library") == ["equal", "not compared (OSError: no such library)"]


def test_code_that_fails_is_told_with_its_last_words(host, tmp_path, monkeypatch):
    folder = released.fetch_model("BAT", tmp_path / "BAT", host.pins)
    (tmp_path / "released_own_code.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.setattr(released, "HERE", tmp_path)
    with pytest.raises(AudiobatError, match=r"a_package_that_nobody_has.*BAT\.log"):
        released.compare("BAT", folder, [np.zeros(16_000, np.float32)], tmp_path / "out", sys.executable)
    with pytest.raises(AudiobatError, match=r"--own-python .*nobody does not start"):
        released.compare("BAT", folder, [np.zeros(16_000, np.float32)], tmp_path / "out", str(tmp_path / "nobody"))


def test_an_environment_is_made_once_with_the_transformers_that_the_weights_name(tmp_path, monkeypatch):
    ran = []

    def run(command):
        ran.append([str(word) for word in command])
        if "--target" in command:
            Path(command[command.index("--target") + 1]).mkdir()
        else:
            (tmp_path / "own").mkdir(exist_ok=True)
        return SimpleNamespace(returncode="broken" in ran[-1][-1])

    monkeypatch.setattr(released.subprocess, "run", run)
    config = tmp_path / "config.json"
    for named, version in (("4.48.0", "4.48.0"), ("5.0.0.dev0", released.TRANSFORMERS), (None, released.TRANSFORMERS)):
        config.write_text(json.dumps({"transformers_version": named}))
        for _ in range(2):
            python, site = released.own_environment(tmp_path / "own", config)
            assert site == tmp_path / f"own/transformers-{version}"
    assert [command[-1] for command in ran] == [
        *(str(tmp_path / "own"), released.OWN[-1], "transformers==4.48.0", f"transformers=={released.TRANSFORMERS}"),
    ]
    assert python.parts[-2:] in (("bin", "python"), ("Scripts", "python.exe"))
    with pytest.raises(AudiobatError, match="cannot be made: connect"):
        released.own_environment(tmp_path / "broken", config)
