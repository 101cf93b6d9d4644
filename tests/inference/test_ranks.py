"""`embed` and `predict` on several ranks: the table of one process, also after kills, and with more ranks than clips.

Run as a program, with a folder of recordings and models, it makes the tables that the tests compare.
"""

import csv
import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rank_processes import fork, free_ports, run_program, run_ranks

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.data.build import clip_table
from audiobat.data.windows import Window
from audiobat.engine.ranks import Ranks
from audiobat.errors import AudiobatError
from audiobat.inference import journal, window_pass
from audiobat.inference.embed import embed
from audiobat.inference.predict import predict
from audiobat.inference.tally import Tally
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import save_release

RATE = 8_000
MODEL = ModelConfig(
    FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16),
    EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96),
)
CLASSES = ("low", "mid", "top")
LONG, BROKEN = 3, 7  # of the recordings, the one of many windows and the one that is no audio
SECONDS = [9.0 if n == LONG else 0.2 + 0.09 * n for n in range(23)]
WINDOW = 0.95  # seconds
COMPUTE = window_pass.compute
HANG = 120  # seconds after which a rank that waits for another dies


def write_clips(folder: Path) -> None:
    """24 recordings, one of which is no audio: fewer than 5%; and two alone."""
    rng = np.random.default_rng(0)
    for name in ("clips", "two"):
        (folder / name).mkdir()
    for n, seconds in enumerate(SECONDS):
        count = int(seconds * RATE)
        loudness = np.repeat(rng.uniform(0, 0.3, 100), count // 100 + 1)[:count]
        samples = (rng.normal(size=count) * loudness).clip(-1, 1)
        for name in ("clips", "two") if n < 2 else ("clips",):
            soundfile.write(folder / name / f"{n:02}.wav", samples, RATE)
    (folder / "clips" / f"{BROKEN:02}x.wav").write_text("no audio")


def write_model(folder: Path) -> None:
    """A tagger of frames whose scores pass the threshold now and then."""
    torch.manual_seed(0)
    tagger = Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig(kind="linear", pool="mean"), CLASSES, "frame", True))
    clips = torch.randn(8, 7_600) * 0.1
    with torch.no_grad():
        logits = tagger.eval().frames(clips)[0].flatten(0, 1)
        scale = 1.5 / logits.std(0)
        tagger.head.classifier.weight.mul_(scale[:, None])
        tagger.head.classifier.bias.copy_(-logits.mean(0) * scale)
    save_release(folder, tagger)


def make(verb: str, name: str, folder: Path, world: int) -> None:
    """The table NAME_WORLD of one of the verbs, with a part for each batch."""
    signal.alarm(HANG)
    window_pass.PART_SECONDS, window_pass.POOL_BATCHES, journal.SHARES = 0.0, 1, 8
    log = folder / f"{name}_{world}.computed.{os.environ['RANK']}"
    log.touch()
    compute = COMPUTE
    window_pass.compute = lambda task, pool, *rest: watched(pool, log) or compute(task, pool, *rest)
    data = folder / ("two" if name in ("two", "kept") else "clips")
    if verb == "embed":
        embed(folder / "model", data, folder / f"{name}_{world}.npz", batch_size=3, device="cpu")
    else:
        out = folder / f"{name}_{world}.csv"
        kept = folder / f"{name}_{world}.npz" if name == "kept" else None
        predict(folder / "model", data, out, scores=kept, batch_size=3, hop_seconds=0.5, device="cpu")


def watched(pool: list[Window], log: Path) -> None:
    """Write down the windows that this rank computes."""
    with log.open("a") as file:
        file.writelines(f"{window.clip_id}/{window.number}\n" for window in pool)


def killed(verb: str, name: str, folder: Path, world: int) -> None:
    """As `make`, but each rank kills itself with its next part once there are 5."""
    add = journal.Share.add

    def dying(self, *part):
        add(self, *part)
        if len(list((folder / f"{name}_{world}.csv.parts").glob("*.npz"))) >= 5:
            os.kill(os.getpid(), signal.SIGKILL)

    journal.Share.add = dying
    make(verb, name, folder, world)


def kill_and_go_on(name: str, folder: Path, world: int, other: int) -> None:
    """Kill `predict` on `world` ranks, then go on with `other`: OUT is named by the latter."""
    task, ports = partial(killed, "predict", name, folder), free_ports(1)
    processes = [fork(rank, world, [task], ports) for rank in range(world)]
    codes = [os.waitpid(process, 0)[1] for process in processes]
    assert signal.SIGKILL in codes, codes
    parts = folder / f"{name}_{world}.csv.parts"
    begun = [json.loads(np.load(path)["meta"].tobytes())["first"] for path in parts.glob("*.npz")]
    kept = [f"{clip_id}/{number}" for clip_id, number in begun]  # the first window of each part
    (folder / f"{name}.kept").write_text(" ".join(kept))
    parts.rename(folder / f"{name}_{other}.csv.parts")
    run_ranks([partial(make, "predict", name, folder)], [other])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_clips(folder)
    write_model(folder / "model")
    run_program(__file__, folder)
    return folder


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def same_events(one: Path, two: Path) -> None:
    """The same events; scores as far as other batches may change them."""
    assert [row[:4] for row in table(one)] == [row[:4] for row in table(two)]
    scores = [[float(row[4]) for row in table(path)] for path in (one, two)]
    np.testing.assert_allclose(*scores, atol=3e-6)


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_make_the_events_of_one(runs, world):
    alone, together = runs / "events_1.csv", runs / f"events_{world}.csv"
    same_events(together, alone)
    assert together.read_bytes() == (runs / "events_2.csv").read_bytes()
    long = [row for row in table(together) if row[0] == f"{LONG:02}.wav"]
    starts = np.arange(0, SECONDS[LONG], 0.5) + WINDOW  # of windows, where the one before ends
    crossing = [row for row in long if any(float(row[1]) < start < float(row[2]) for start in starts)]
    assert len({row[0] for row in table(together)}) > 15
    assert crossing


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(("name", "clips"), [("vectors", 23), ("two", 2)])
def test_several_ranks_make_the_vectors_of_one(runs, name, clips, world):
    alone, together = (dict(np.load(runs / f"{name}_{n}.npz")) for n in (1, world))
    assert len(set(alone["path"])) == clips
    for column in ("path", "start", "end"):
        np.testing.assert_array_equal(together[column], alone[column])
    np.testing.assert_allclose(together["embedding"], alone["embedding"], atol=1e-6)
    assert (runs / f"{name}_{world}.npz").read_bytes() == (runs / f"{name}_2.npz").read_bytes()


def test_several_ranks_keep_the_scores_of_one(runs, tmp_path):
    alone, *together = (dict(np.load(runs / f"kept_{world}.npz")) for world in (1, 2, 3))
    for stored in together:
        np.testing.assert_allclose(stored.pop("scores"), alone["scores"], atol=3e-6)
        for name, values in stored.items():
            np.testing.assert_array_equal(values, alone[name])
    assert (runs / "kept_2.npz").read_bytes() == (runs / "kept_3.npz").read_bytes()
    again = predict(None, runs / "kept_2.npz", tmp_path / "again.csv")
    assert again.read_bytes() == (runs / "kept_2.csv").read_bytes()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("name", ["events", "vectors", "two"])
def test_no_window_is_computed_twice(runs, name, world):
    logs = [log.read_text().split() for log in runs.glob(f"{name}_{world}.computed.*")]
    assert len(logs) == world
    counts = Counter(window for log in logs for window in log)
    assert set(counts.values()) == {1}
    if name != "events":
        assert len(counts) == len(np.load(runs / f"{name}_{world}.npz")["path"])


def test_what_cannot_be_read_is_listed_whichever_rank_found_it(runs):
    for name in (
        "events_2.csv",
        "events_3.csv",
        "vectors_2.npz",
        "vectors_3.npz",
        "three_two_2.csv",
        "one_three_3.csv",
    ):
        skipped = runs / f"{name}.skipped.csv"
        assert [row[0] for row in table(skipped)] == [f"{BROKEN:02}x.wav"]
        assert skipped.read_bytes() == (runs / "events_1.csv.skipped.csv").read_bytes()


@pytest.mark.parametrize(("name", "other"), [("three_two", 2), ("three_one", 1), ("one_three", 3)])
def test_another_number_of_ranks_goes_on_after_a_kill(runs, name, other):
    done = runs / f"{name}_{other}.csv"
    same_events(done, runs / "events_1.csv")
    if name != "one_three":  # shares of several ranks stay what they are
        assert done.read_bytes() == (runs / "events_2.csv").read_bytes()
    kept = set((runs / f"{name}.kept").read_text().split())
    logs = [log.read_text().split() for log in runs.glob(f"{name}_{other}.computed.*")]
    computed = [window for log in logs for window in log]
    assert len(kept) >= 5
    assert not kept & set(computed)
    assert len(computed) == len(set(computed))


def test_nothing_is_left_beside_the_tables(runs):
    assert not [path.name for path in runs.iterdir() if path.suffix in (".parts", ".tmp")]


def test_shares_depend_on_the_clips_alone_and_go_on_from_what_one_process_has_done(tmp_path):
    def opened(world: int, where: str, clips: int = 1_000) -> journal.Journal:
        table = clip_table(tmp_path, [f"{n}.wav" for n in range(clips)])
        ranks = Ranks(torch.device("cpu"), 0, world)
        object.__setattr__(ranks, "gather", lambda value: [value])  # the other ranks are not here
        return journal.Journal(tmp_path / where, table, {}, False, ranks)

    assert opened(1, "one").firsts == [0]
    assert opened(4, "four").firsts == opened(2, "two").firsts == opened(1, "two").firsts == list(range(0, 1_000, 15))
    assert opened(2, "many", 40_000).firsts == list(range(0, 40_000, 256))
    assert opened(8, "few", 3).firsts == [0, 1, 2]
    opened(1, "one").share(0).add({}, {}, (29, 4), journal.Seen())  # it stopped within clip 29
    divided = opened(2, "one")
    assert divided.firsts == [0, *range(30, 1_000, 15)]
    assert (divided.share(0).next, divided.share(0).end) == ((29, 4), 30)
    assert (divided.share(1).next, divided.share(1).end) == ((30, 0), 45)


def test_unreadable_clips_of_all_ranks_count_together(tmp_path):
    clips = clip_table(tmp_path, [f"{n}.wav" for n in range(39)])
    store = torch.distributed.HashStore()

    class Together(Ranks):
        def shared(self):
            return store

    tallies = [Tally(clips, Together(torch.device("cpu"), rank, 2), tmp_path / "skipped.csv") for rank in (0, 1)]
    assert [tallies[rank].take() for rank in (0, 1, 1)] == [0, 1, 2]
    tallies[0].add(18, 30, dict.fromkeys(range(18), "no audio"))
    tallies[1].add(18, 30, {})
    assert (tallies[1].clips, tallies[1].windows, len(tallies[1].unreadable)) == (36, 60, 18)
    tallies[1].add(2, 0, dict.fromkeys((30, 31), "no samples"))
    assert len(table(tmp_path / "skipped.csv")) == 20
    tallies[0].add(0, 0, dict.fromkeys((*range(18, 30), *range(32, 38)), "no audio"))
    with pytest.raises(AudiobatError, match="None of the clips can be read"):
        tallies[0].add(1, 0, {38: "no audio"})
    with pytest.raises(AudiobatError, match="None of the clips can be read"):  # and so the other rank hears of it
        tallies[1].add(0, 0, {})


if __name__ == "__main__":
    place = Path(sys.argv[1])
    tables = [("predict", "events"), ("embed", "vectors"), ("embed", "two"), ("predict", "kept")]
    run_ranks([partial(make, verb, name, place) for verb, name in tables], (1, 2, 3))
    kill_and_go_on("three_two", place, 3, 2)
    kill_and_go_on("three_one", place, 3, 1)
    kill_and_go_on("one_three", place, 1, 3)
