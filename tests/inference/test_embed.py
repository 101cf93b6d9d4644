"""`embed`: rows that equal the encoder's own, tables of three types, and runs that are killed, broken or repeated."""

import csv
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from audiobat.audio.read import load_audio
from audiobat.cli.command import main
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data import clip, embeddings, windows
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference import embed as embed_module
from audiobat.inference import journal, window_pass
from audiobat.inference.embed import embed
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.zoo import release as release_io

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
WINDOW = 0.95  # 96 frames of 10 ms, the first and last of them centred on the ends


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight recordings of 0.3 to 3.1 s, two of them at other rates, one in stereo, in two folders."""
    rng = np.random.default_rng(0)
    for i, seconds in enumerate((0.3, 3.1, 1.0, 1.7, 1.15, 2.1, 0.5, 1.2)):
        rate = {2: 16_000, 5: 11_025}.get(i, RATE)
        samples = (
            rng.normal(size=(int(seconds * rate), 2 if i == 3 else 1))
            * np.linspace(0.05, 0.3, int(seconds * rate))[:, None]
        )
        path = tmp_path / "clips" / ("b" if i % 2 else "a") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.clip(-1, 1), rate)
    return tmp_path / "clips"


def read(path: Path) -> dict[str, np.ndarray]:
    """Any of the three tables as path, start, end and embedding."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("path", "start", "end", "embedding")}
    if path.suffix == ".parquet":
        frame = pyarrow.parquet.read_table(path)
        columns = {name: frame[name].to_numpy() for name in frame.column_names}
    else:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([r[name] if name == "path" else float(r[name]) for r in rows]) for name in rows[0]}
    vectors = [columns.pop(f"e{i}").astype(np.float32) for i in range(8)]
    assert set(columns) == {"path", "start", "end"}
    return {**columns, "embedding": np.stack(vectors, axis=1)}


def test_rows_are_the_encoders_own_vectors_of_the_windows(folder: Path, encoder: AudioEncoder, tmp_path: Path):
    out = embed(encoder, folder, tmp_path / "out.npz", layer=1, pool="mean", batch_size=5)
    rows = read(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "out.npz"]
    assert list(dict.fromkeys(rows["path"].tolist())) == sorted(f"{'ba'[1 - i % 2]}/{i}.wav" for i in range(8))
    seen = {}
    for path, start, end, vector in zip(*rows.values(), strict=True):
        whole = load_audio(folder / path, RATE)
        assert start == pytest.approx(seen.get(path, 0.0), abs=1e-9)  # no gap and no overlap
        assert end - start == pytest.approx(min(WINDOW, len(whole) / RATE - start), abs=1e-9)
        seen[path] = end
        alone = encoder.embed(whole[round(start * RATE) : round(end * RATE)], RATE, pool="mean", layer=1)
        np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)
    left = {path: soundfile.info(folder / path).duration - end for path, end in seen.items()}
    assert left.pop("a/2.wav") == pytest.approx(0.05)  # less than a patch behind a window makes no row
    assert left == pytest.approx(dict.fromkeys(left, 0.0), abs=1 / RATE)
    assert len(rows["path"]) == 1 + 4 + 1 + 2 + 2 + 3 + 1 + 2
    assert rows["embedding"].std(0).min() > 1e-3


def test_the_table_says_what_made_it(folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch):
    release_io.save_release(tmp_path / "model", encoder)
    monkeypatch.chdir(tmp_path)
    table = embeddings.read_embeddings(embed("model", "clips", "out.csv", hop_seconds=0.5))
    assert dict(table.meta) == {
        "model": str(tmp_path / "model"),
        "weights": weights_sha256(encoder),
        "layer": 2,
        "pool": "mean",
        "sample_rate": RATE,
        "window_seconds": WINDOW,
        "hop_seconds": 0.5,
        "data": str(tmp_path / "clips"),
        "root": str(tmp_path / "clips"),
    }
    assert Path(table.audio(0)) == folder / "a/0.wav"
    single = embeddings.read_embeddings(embed("model", "clips/a/0.wav", "one.npz", layer=1))
    assert (single.audio(0), single.meta["layer"]) == (str(folder / "a/0.wav"), 1)


def test_blocks_behind_the_one_that_is_read_do_not_run(folder: Path, encoder: AudioEncoder, tmp_path: Path):
    ran = []
    hooks = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(encoder.blocks, 1)]
    try:
        embed(encoder, folder, tmp_path / "out.npz", layer=1)
    finally:
        for hook in hooks:
            hook.remove()
    assert set(ran) == {1}
    by_number = read(embed(encoder, folder, tmp_path / "two.npz", layer=2))
    last = read(embed(encoder, folder, tmp_path / "last.npz"))
    np.testing.assert_array_equal(by_number["embedding"], last["embedding"])


class OneMean:
    """An encoder of somebody else's: three blocks, 1, 2 and 3 times the sum of a clip; it knows no indices."""

    sample_rate, dim, depth = RATE, 8, 3

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        total = waveform.sum(1)[:, None, None].expand(-1, 1, 8)  # [B, 1, D]; padding is zeros
        valid = torch.ones(len(waveform), 1, dtype=torch.bool)
        return LayerFeatures(torch.stack([total, 2 * total, 3 * total]), None, (1, 1), valid, torch.zeros(1))


@pytest.mark.parametrize(("layer", "factor"), [(1, 1), (2, 2), (-1, 3)])
def test_an_encoder_that_knows_no_indices_is_read_at_the_layer(folder: Path, tmp_path: Path, layer: int, factor: int):
    rows = read(embed(OneMean(), folder, tmp_path / "out.npz", layer=layer, window_seconds=9.0))
    sums = [load_audio(folder / path, RATE).sum() for path in rows["path"]]
    np.testing.assert_allclose(rows["embedding"][:, 0], factor * np.array(sums), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seconds", [0.1, 1.9, 99.0])
def test_short_clips_run_beside_short_ones_and_come_in_the_order_of_the_folder(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch, seconds: float
):
    """Recordings of 0.3 to 3.1 s, in windows of 0.95 s at most: in `seconds` of audio at once, a window at least."""
    monkeypatch.setattr(window_pass, "CPU_SECONDS", seconds / torch.get_num_threads())
    seen: list[torch.Tensor] = []
    run = encoder.forward_intermediates
    monkeypatch.setattr(
        encoder, "forward_intermediates", lambda *given: seen.append(given[1]) or run(*given), raising=False
    )
    rows = read(embed(encoder, folder, tmp_path / "out.npz", batch_size=4))
    monkeypatch.undo()
    assert rows["path"].tolist() == sorted(rows["path"].tolist())
    for path, start, end, vector in zip(*rows.values(), strict=True):
        alone = encoder.embed(load_audio(folder / path, RATE)[round(start * RATE) : round(end * RATE)], RATE)
        np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)
    assert max(len(lengths) for lengths in seen) == {0.1: 1, 1.9: 3, 99.0: 4}[seconds]
    assert all(len(lengths) == 1 or len(lengths) * int(lengths[0]) <= seconds * RATE for lengths in seen)
    later = torch.cat(seen)[4:]  # the first pool is a batch of four, so that the model starts early; then all others
    assert len(later) == 12
    assert bool((later.diff() <= 0).all())  # the longest first


def test_batches_hold_little_padding_and_are_small_on_a_cpu():
    lengths = np.random.default_rng(0).integers(RATE, 10 * RATE, 128).tolist()
    settings = window_pass.Windows(RATE, 10.0, 10.0, 16, 0)
    at_once = window_pass.CPU_SECONDS * torch.get_num_threads() * RATE
    for device in ("cpu", "cuda"):
        found = list(window_pass.batches(lengths, settings, torch.device(device)))
        assert sorted(i for batch in found for i in batch) == list(range(128))
        padded = [len(batch) * lengths[batch[0]] for batch in found]
        assert all(lengths[i] <= lengths[batch[0]] for batch in found for i in batch)
        assert sum(padded) < 1.15 * sum(lengths)
        if device == "cuda":
            assert {len(batch) for batch in found} == {16}
        else:
            assert max(padded) <= at_once
            full = zip(found[:-1], padded, strict=False)
            assert all(len(batch) == 16 or size + lengths[batch[0]] > at_once for batch, size in full)


def test_the_default_window_fits_the_position_table(encoder: AudioEncoder):
    window = window_pass.Windows.of(encoder, None, None, 1, 0).window_seconds
    assert window == WINDOW

    def columns(samples: int) -> int:
        return encoder.forward_intermediates(torch.randn(1, samples)).grid[0]

    assert columns(int(window * RATE)) == 6
    assert columns(int((window + 0.16) * RATE)) == 6
    assert columns(int((window + 0.17) * RATE)) == 7  # a whole patch more than the table holds costs a second window


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".npz"])
def test_every_type_of_table_holds_the_same(folder: Path, encoder: AudioEncoder, tmp_path: Path, ending: str):
    one = read(embed(encoder, folder, tmp_path / f"one{ending}", window_seconds=0.5, hop_seconds=0.25))
    two = read(embed(encoder, folder, tmp_path / "two.npz", window_seconds=0.5, hop_seconds=0.25))
    for name in two:
        np.testing.assert_array_equal(one[name], two[name])
    assert (np.diff(one["start"][one["path"] == "b/1.wav"]) == 0.25).all()


def test_folder_file_list_and_csv_give_the_same_vectors(folder: Path, encoder: AudioEncoder, tmp_path: Path):
    (folder / "some.txt").write_text("b/1.wav\n\na/2.wav\n")
    (folder / "some.csv").write_text("path,label\nb/1.wav,x\na/2.wav,y\n")
    whole = read(embed(encoder, folder, tmp_path / "all.npz"))
    listed = read(embed(encoder, folder / "some.txt", tmp_path / "txt.npz"))
    tabled = read(embed(encoder, folder / "some.csv", tmp_path / "csv.npz"))
    single = read(embed(encoder, folder / "b/1.wav", tmp_path / "one.npz"))
    assert listed["path"].tolist() == ["b/1.wav"] * 4 + ["a/2.wav"]
    for name in listed:
        np.testing.assert_array_equal(listed[name], tabled[name])
    assert set(single["path"]) == {str(folder / "b/1.wav")}
    for rows in (listed, single):
        mine = rows["embedding"][:4]
        np.testing.assert_allclose(mine, whole["embedding"][whole["path"] == "b/1.wav"], atol=1e-5)


class Killed(BaseException):
    """The end of a process, as far as code can feel it."""


def test_the_same_files_in_tars_give_the_same_table(folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, name in enumerate("ab"):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in sorted((folder / name).iterdir()):
                tar.add(path, f"{name}/{path.name}")
    loose = embed(encoder, folder, tmp_path / "loose.csv")
    inside = embed(encoder, f"{tmp_path}/{{0..1}}.tar", tmp_path / "inside.csv")
    assert inside.read_bytes() == loose.read_bytes()


@pytest.fixture
def small_parts(monkeypatch):
    """A part for each batch."""
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)


def kill_at(monkeypatch, call: int, where: object, name: str):
    """Let `where.name` run `call` times, then end the run."""
    calls = iter(range(call))
    whole = getattr(where, name)

    def dying(*args, **kwargs):
        if next(calls, None) is None:
            raise Killed
        return whole(*args, **kwargs)

    monkeypatch.setattr(where, name, dying)


@pytest.mark.parametrize(
    ("where", "call"),
    [
        *(("forward_intermediates", n) for n in (0, 2, 3, 6)),
        *(("open_clip", n) for n in (0, 3, 7)),
        *(("write_atomic", n) for n in (0, 1, 2, 5)),
        ("write_embeddings", 0),
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_table(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch, small_parts, where: str, call: int
):
    whole = embed(encoder, folder, tmp_path / "whole.npz", batch_size=2)
    out = tmp_path / "out.npz"
    with monkeypatch.context() as patch:
        homes = {"forward_intermediates": encoder, "open_clip": windows, "write_atomic": journal}
        home = homes.get(where, embed_module)
        kill_at(patch, call, home, where)
        with pytest.raises(Killed):
            embed(encoder, folder, out, batch_size=2)
    assert not out.exists()
    parts = tmp_path / "out.npz.parts"
    finished = sum(1 for _ in parts.glob("*.npz"))
    being_written = "00000007.npz.tmp" if (parts / "settings.json").exists() else "settings.json.tmp"
    (parts / being_written).write_bytes(b"half")
    (tmp_path / "out.npz.tmp").write_bytes(b"half")

    computed = []
    compute = window_pass.compute
    monkeypatch.setattr(window_pass, "compute", lambda *given: computed.extend(given[1]) or compute(*given))
    embed(encoder, folder, out, batch_size=2)
    assert out.read_bytes() == whole.read_bytes()
    assert len(computed) == 16 - 2 * finished  # nothing is done twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "out.npz", "whole.npz"]


def test_a_killed_process_goes_on_to_the_same_table(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch, small_parts
):
    """The same with a real process and a signal that nobody can catch."""
    release_io.save_release(tmp_path / "model", encoder)
    code = """if True:
        import os, signal, sys
        from audiobat.inference import window_pass
        window_pass.PART_SECONDS, window_pass.POOL_BATCHES, whole, count = 0.0, 1, window_pass.compute, 0
        def compute(*args):
            global count
            count += 1
            if count > int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args)
        window_pass.compute = compute
        from audiobat.cli.command import main
        sys.exit(main(["embed", "--model", "model", "--data", "clips", "--out", sys.argv[1], "--batch-size", "2"]))
    """

    def run(out: str, batches: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", code, out, str(batches)], cwd=tmp_path, capture_output=True
        ).returncode

    assert run("out.parquet", 5) == -9
    assert len(list((tmp_path / "out.parquet.parts").glob("*.npz"))) == 5
    assert run("out.parquet", 99) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "--model", "model", "--data", "clips", "--out", "whole.parquet", "--batch-size", "2"]) == 0
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_parts_of_other_settings_are_not_mixed_in(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch, small_parts
):
    with monkeypatch.context() as patch:
        kill_at(patch, 3, encoder, "forward_intermediates")
        with pytest.raises(Killed):
            embed(encoder, folder, tmp_path / "out.npz", batch_size=2)
    with pytest.raises(AudiobatError, match=r"out\.npz\.parts was begun with another layer and pool: .*--overwrite"):
        embed(encoder, folder, tmp_path / "out.npz", layer=1, pool="cls")
    torch.manual_seed(1)
    with pytest.raises(AudiobatError, match="another model"):
        embed(AudioEncoder(MODEL), folder, tmp_path / "out.npz")
    out = embed(encoder, folder, tmp_path / "out.npz", layer=1, overwrite=True, batch_size=2)
    assert out.read_bytes() == embed(encoder, folder, tmp_path / "new.npz", layer=1, batch_size=2).read_bytes()


def test_an_existing_table_is_replaced_only_when_asked(folder: Path, encoder: AudioEncoder, tmp_path: Path):
    out = tmp_path / "out.csv"
    out.write_text("precious")
    with pytest.raises(AudiobatError, match=r"out\.csv exists: .*--overwrite"):
        embed(encoder, folder, out)
    assert out.read_text() == "precious"
    embed(encoder, folder, out, overwrite=True)
    assert out.read_text().startswith("path,start,end,e0")


def many(folder: Path, count: int) -> None:
    for i in range(count):
        soundfile.write(folder / f"more_{i:02}.wav", np.random.default_rng(i).normal(size=900) * 0.1, RATE)


def break_files(folder: Path) -> dict[str, str]:
    """Two files that fail, one at its header and one at its third window; and the reasons that are listed."""
    (folder / "a" / "text.wav").write_text("no audio")
    samples = np.zeros(4 * RATE, dtype=np.float32)
    samples[3 * RATE] = np.nan
    soundfile.write(folder / "b" / "nan.wav", samples, RATE, subtype="FLOAT")
    return {"a/text.wav": "cannot be read as audio", "b/nan.wav": "NaN"}


def test_broken_files_are_listed_and_leave_no_rows(folder: Path, encoder: AudioEncoder, tmp_path: Path):
    many(folder, 40)
    before = read(embed(encoder, folder, tmp_path / "before.npz", batch_size=1))
    reasons = break_files(folder)
    rows = read(embed(encoder, folder, tmp_path / "out.npz", batch_size=1))
    for name in rows:
        np.testing.assert_array_equal(rows[name], before[name])
    with (tmp_path / "out.npz.skipped.csv").open(newline="") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed.keys() == reasons.keys()
    assert all(word in listed[name] for name, word in reasons.items())
    for name in reasons:
        (folder / name).unlink()
    embed(encoder, folder, tmp_path / "out.npz", overwrite=True)
    assert not (tmp_path / "out.npz.skipped.csv").exists()


@pytest.mark.parametrize("refused", [False, True])
def test_a_run_without_a_readable_file_makes_no_table_and_mending_them_lets_it_go_on(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, small_parts, ordinary_user, refused: bool
):
    many(tmp_path, 1)
    shutil.rmtree(folder)
    for name in "ab":
        (folder / name).mkdir(parents=True)
    if refused:
        for name in ("a/text.wav", "b/nan.wav"):
            shutil.copy(tmp_path / "more_00.wav", folder / name)
            (folder / name).chmod(0)
    else:
        break_files(folder)
    with pytest.raises(AudiobatError, match=r"None of the clips can be read: .* one is a/text\.wav: "):
        embed(encoder, folder, tmp_path / "out.npz", batch_size=1)
    assert len((tmp_path / "out.npz.skipped.csv").read_text().splitlines()) == 3
    assert not (tmp_path / "out.npz").exists()
    kept = list((tmp_path / "out.npz.parts").glob("*.npz"))
    assert kept
    for name in ("a/text.wav", "b/nan.wav"):
        (folder / name).chmod(0o600)
        if not refused:
            shutil.copy(tmp_path / "more_00.wav", folder / name)
    rows = read(embed(encoder, folder, tmp_path / "out.npz", batch_size=1))
    fresh = read(embed(encoder, folder, tmp_path / "fresh.npz", batch_size=1))
    for name in fresh:
        np.testing.assert_array_equal(rows[name], fresh[name])
    assert not (tmp_path / "out.npz.skipped.csv").exists()


def test_the_closing_lines_tell_what_the_table_has_and_lacks(
    folder: Path, encoder: AudioEncoder, tmp_path: Path, small_parts, monkeypatch, capsys
):
    """Also where the run was killed: files of several parts, one silent as far as its last window, are told rightly."""
    break_files(folder)
    soundfile.write(folder / "dead.wav", np.full(3 * RATE, 0.25), RATE)  # a constant offset
    late = np.zeros(3 * RATE)
    late[22_000:22_100] = 0.5  # in the third window
    soundfile.write(folder / "late.wav", late, RATE)
    release_io.save_release(tmp_path / "model", encoder)
    out = tmp_path / "out.csv"
    argv = ["embed", "--model", str(tmp_path / "model"), "--data", str(folder), "--out", str(out), "--batch-size", "1"]
    with monkeypatch.context() as patch:
        kill_at(patch, 17, window_pass, "compute")
        with pytest.raises(Killed):
            main(argv)
    assert main(argv) == 3
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 22 rows of 10 files",
        f"skipped: 2 of 12 files cannot be read, as {out}.skipped.csv tells one by one",
        "silent: 1 file: dead.wav",
        "shorter than a window of 0.95 s: 2 files: a/0.wav, a/6.wav",
    ]
    for name in ("a/text.wav", "b/nan.wav"):
        (folder / name).unlink()
    (folder / "list.csv").write_text("path,seconds\ndead.wav,0.2\nlate.wav,3\n")
    assert main([*argv[:4], str(folder / "list.csv"), *argv[5:], "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 6 rows of 2 files",
        "silent: 1 file: dead.wav",
        "of another length than the list's `seconds`, and read to the end: 1 file: dead.wav",
    ]
    (folder / "list.csv").unlink()
    assert main([*argv, "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{out}: 22 rows of 10 files"
    (folder / "b" / "nan.wav").write_bytes(b"no sound")
    for number in range(20):
        soundfile.write(folder / f"more_{number}.wav", np.full(RATE // 2, 0.25), RATE)
    assert main([*argv, "--overwrite"]) == 0  # one of many: the list and the lines tell of it
    assert "skipped: 1 of 31 files cannot be read" in capsys.readouterr().out


def test_clips_that_cannot_be_read_are_refused_every_time(encoder: AudioEncoder, tmp_path: Path):
    (tmp_path / "noise.wav").write_text("no audio")
    for _ in range(2):  # the second run finds nothing left to do, and no table to write
        with pytest.raises(AudiobatError, match="None of the clips can be read"):
            embed(encoder, tmp_path / "noise.wav", tmp_path / "out.csv")
        assert not (tmp_path / "out.csv").exists()


def test_a_long_recording_is_read_block_by_block(encoder: AudioEncoder, tmp_path: Path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(size=60 * RATE) * 0.1, RATE)
    longest = []
    read_span = clip.OpenClip.read

    def watched(*args):
        samples = read_span(*args)
        longest.append(len(samples))
        return samples

    monkeypatch.setattr(clip.OpenClip, "read", watched)
    monkeypatch.setattr(clip, "READ_SAMPLES", 2 * RATE)
    rows = read(embed(encoder, tmp_path / "long.wav", tmp_path / "out.npz"))
    assert len(rows["path"]) == 63  # 60 / 0.95; a rest of 0.15 s fills no patch
    assert longest == [2 * RATE] * 30


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_neither_threads_nor_batches_change_a_row(folder: Path, encoder: AudioEncoder, tmp_path: Path, workers: int):
    one = read(embed(encoder, folder, tmp_path / "one.npz", batch_size=1, workers=0, hop_seconds=0.3))
    two = read(
        embed(encoder, folder, tmp_path / "two.npz", batch_size=1 + 5 * workers, workers=workers, hop_seconds=0.3)
    )
    for name in ("path", "start", "end"):
        np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_allclose(one["embedding"], two["embedding"], atol=1e-5)


def test_bad_arguments_say_what_to_change(folder: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch):
    out = tmp_path / "o.npz"

    def fails(words: str, data: object = folder, out: Path = out, **arguments) -> None:
        with pytest.raises(AudiobatError, match=words):
            embed(encoder, data, out, **arguments)
        assert not (tmp_path / "o.npz.parts").exists()

    fails("layer is 3: use 1 to 2, or -1", layer=3)
    fails("layer is 0", layer=0)
    fails("pool is 'max'", pool="max")
    fails("window_seconds is 0", window_seconds=0)
    fails(r"hop_seconds is 0\.96", hop_seconds=0.96)
    fails("batch_size is 0", batch_size=0)
    fails(r"o\.txt ends in \.txt: use one of \.parquet, \.npz, \.csv", out=tmp_path / "o.txt")
    fails("no folder, CSV, Parquet or tar file", data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    fails("has no audio files", data=tmp_path / "empty")
    (tmp_path / "empty.txt").write_text("\n")
    fails(r"empty\.txt lists no files", data=tmp_path / "empty.txt")
    (tmp_path / "README.txt").write_text("Recordings of a wood\nMay 2024\n")
    fails(r"README\.txt is a list of files, none of which is there", data=tmp_path / "README.txt")
    monkeypatch.setattr(embeddings.importlib.util, "find_spec", lambda name: None)
    fails(r"needs pyarrow: pip install 'audiobat\[parquet\]'", out=tmp_path / "o.parquet")


def test_a_list_of_a_windows_editor_is_read_and_another_encoding_is_named(folder: Path, tmp_path: Path):
    files = tmp_path / "files.txt"
    files.write_bytes(b"\xef\xbb\xbfclips/a/0.wav\r\nclips/b/1.wav\r\n")
    assert window_pass.list_clips(files).keys.tolist() == ["clips/a/0.wav", "clips/b/1.wav"]
    files.write_bytes(b"caf\xe9.wav\n")
    with pytest.raises(AudiobatError, match=r"files\.txt is not UTF-8 text \(byte 3\)"):
        window_pass.list_clips(files)


def test_a_folder_in_the_place_of_the_table_is_refused_before_any_work(folder: Path, encoder, tmp_path: Path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(AudiobatError, match="is a folder: name a file"):
        embed(encoder, folder, tmp_path / "out.csv", overwrite=True)
    assert not (tmp_path / "out.csv.parts").exists()


def test_a_recording_without_samples_is_said_to_have_none(folder: Path, encoder, tmp_path: Path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    with pytest.raises(AudiobatError, match=r"none\.wav has no samples"):
        embed(encoder, tmp_path / "none.wav", tmp_path / "out.csv")
