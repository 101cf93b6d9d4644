"""Speech Commands v2 (Warden, 2018) as its archives unpack, to the clip table of one of three named tasks.

Results on "SPC-2" are of four tasks that cannot be compared, so none goes by that name here: see AMBIGUOUS.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from audiobat.audio.read import audio_duration
from audiobat.data.build import Clip, table_of_clips
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.public.text_files import AGAIN, find_folder, read_lines
from audiobat.errors import AudiobatError

KEYWORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
OTHERS = (
    *("backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy", "house", "learn"),
    *("marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "visual", "wow", "zero"),
)
WORDS = tuple(sorted(KEYWORDS + OTHERS))
SILENCE, UNKNOWN = "_silence_", "_unknown_"
TWELVE = (*KEYWORDS, SILENCE, UNKNOWN)
NOISE = "_background_noise_"
# One recording of noise validates in TFDS. Of the six, running_tap and exercise_bike both have the 121 pieces that its
# counts ask for; that it is this one is our reading.
TFDS_VALID_NOISE = "running_tap.wav"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}  # all else trains
TEST_SET = "speech_commands_test_set_v0.02"
RECORDING = re.compile(r"\w+_nohash_\d+\.wav", re.ASCII)
ANY_WAV = re.compile(r"\w[\w.-]*\.wav", re.ASCII)
Counts = tuple[int, int, int]  # train, valid, test
COUNTS_35: Counts = (84_843, 9_981, 11_005)
COUNTS_TFDS: Counts = (85_511, 10_102, 4_890)
COUNTS_FOLDER: Counts = (85_162, 10_021, 11_044)  # the official lists' and 319 / 40 / 39 pieces of noise


def _word(path: str, label: str, split: str) -> Clip:
    """A recording of up to 1 s; its group is the speaker's hash."""
    name = path.rsplit("/", 1)[1]
    group = name.split("_nohash_")[0].rsplit("_", 1)[-1] if "_nohash_" in name else name
    return Clip(path, path, (label,), split, group=group)


def read_35(folder: Path) -> ClipTable:
    """`spc2-35`: 35 words, split by the official lists."""
    root = _root(folder)
    return _table("spc2-35", {"": root}, list(_words(root)), WORDS, COUNTS_35)


def read_12_tfds(folder: Path) -> ClipTable:
    """`spc2-12-tfds`: 10 keywords, silence and unknown, as TensorFlow Datasets builds the splits.

    Train and valid: all 35 words by the official lists, and pieces of background noise of 1 s every 0.5 s, one
    recording's for valid. Test: the balanced test set, an archive of its own.
    """
    root = _root(folder)
    test_root = _test_root(folder, root)
    clips = [_twelve(clip) for clip in _words(root) if clip.split != "test"]
    clips += _noise(root, _tfds_begins)
    for label in TWELVE:
        clips += [_word(f"{TEST_SET}/{label}/{name}", label, "test") for name in _files(test_root / label, ANY_WAV)]
    return _table("spc2-12-tfds", {"": root, TEST_SET: test_root}, clips, TWELVE, COUNTS_TFDS)


def read_12_folder(folder: Path) -> ClipTable:
    """`spc2-12-folder`: 10 keywords, silence and unknown as in BAT's released loader.

    All 35 words by the official lists, so that most of each split is unknown; silence is the background noise in
    pieces of 1 s, of each recording the first 80% for train, then 10% for valid and 10% for test (that the cut goes by
    time is our reading; its counts are the loader's).
    """
    root = _root(folder)
    clips = [_twelve(clip) for clip in _words(root)] + list(_noise(root, _folder_begins))
    return _table("spc2-12-folder", {"": root}, clips, TWELVE, COUNTS_FOLDER)


def _root(folder: Path) -> Path:
    """The folder of the word folders, as the archive unpacks: `folder` or one in it."""
    root = find_folder(folder, LISTS["valid"])
    gone = [word for word in WORDS if not (root / word).is_dir()]
    if gone:
        raise AudiobatError(
            f"{root} lacks {len(gone)} of the 35 word folders, such as {gone[0]}: "
            "unpack speech_commands_v0.02.tar.gz again (v0.01 has 30 words and is another data set)."
        )
    return root


def _words(root: Path) -> Iterator[Clip]:
    """All recordings of words, by word and name: those that are there, and those that a list names."""
    listed: dict[str, str] = {}
    for split, name in LISTS.items():
        for path in read_lines(root / name):
            word, _, file = path.partition("/")
            if word not in WORDS or not RECORDING.fullmatch(file):
                raise AudiobatError(f"{root / name} names {path}, no recording of one of the 35 words: {AGAIN}.")
            if listed.setdefault(path, split) != split:
                raise AudiobatError(f"{root} lists {path} in {LISTS['valid']} and in {name}: {AGAIN}.")
    there = {f"{word}/{name}" for word in WORDS for name in _files(root / word, RECORDING)}
    for path in sorted(there | listed.keys()):
        yield _word(path, path.split("/")[0], listed.get(path, "train"))


def _twelve(clip: Clip) -> Clip:
    """The clip with one of the 12 labels."""
    return clip if clip.labels[0] in KEYWORDS else clip._replace(labels=(UNKNOWN,))


def _noise(root: Path, begins: Callable[[str, float], Iterator[tuple[str, float]]]) -> Iterator[Clip]:
    """Pieces of 1 s of the background noise; `begins` gives (split, begin) from a recording's name and length."""
    names = _files(root / NOISE, ANY_WAV)
    if TFDS_VALID_NOISE not in names:
        raise AudiobatError(f"{root / NOISE} has no {TFDS_VALID_NOISE}: {AGAIN}.")
    for name in names:
        seconds, _ = audio_duration(root / NOISE / name)
        for split, begin in begins(name, seconds):
            path = f"{NOISE}/{name}"
            yield Clip(path, f"{path}@{begin}", (SILENCE,), split, begin, 1.0, group=name)


def _tfds_begins(name: str, seconds: float) -> Iterator[tuple[str, float]]:
    """Every half second, while more than the piece is left: 668 train and 121 valid, the surplus over the lists."""
    begin = 0.0
    while begin + 1.0 < seconds:
        yield "valid" if name == TFDS_VALID_NOISE else "train", begin
        begin += 0.5


def _folder_begins(name: str, seconds: float) -> Iterator[tuple[str, float]]:
    """Every second, whole pieces only: 319 train, 40 valid and 39 test of the six recordings."""
    pieces = int(seconds)
    train, valid = round(0.8 * pieces), round(0.9 * pieces)
    for i in range(pieces):
        yield "train" if i < train else "valid" if i < valid else "test", float(i)


def _test_root(folder: Path, root: Path) -> Path:
    """The folder of the test archive, which has `_silence_` and `_unknown_` folders: in `folder`, or beside `root`.

    Never `root` itself: were both archives unpacked into one folder, the keywords that train would test too.
    """
    places = {folder, *folder.glob("*/"), *root.parent.glob("*/")} - {root}
    for place in sorted(places, key=lambda path: (path.name != TEST_SET, path)):
        if (place / SILENCE).is_dir() and (place / UNKNOWN).is_dir():
            return place
    raise AudiobatError(
        f"{folder} has no test set beside the words: unpack {TEST_SET}.tar.gz into {root.parent / TEST_SET}."
    )


def _files(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names in a folder that match, sorted."""
    try:
        return sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
    except OSError as error:
        raise AudiobatError(f"Folder {folder} cannot be read ({error.strerror}): {AGAIN}.") from error


def _table(
    task: str, places: dict[str, Path], clips: list[Clip], classes: tuple[str, ...], official: Counts
) -> ClipTable:
    """The table, if each split has clips; says so if they are not the official number.

    `places` says where paths that begin with a name lie, "" being all others.
    """
    root = places[""]
    found = Counter(clip.split for clip in clips)
    counts = tuple(found[split] for split in SPLITS)
    if 0 in counts:
        raise AudiobatError(f"{task}: split {SPLITS[counts.index(0)]} of {root} has no clips: {AGAIN}.")
    if counts != official:
        shown = [" / ".join(f"{count:,}" for count in triple) for triple in (counts, official)]
        warnings.warn(
            f"{task} in {root} has {shown[0]} clips to train / valid / test, the original {shown[1]}: "
            "unpack the archive again before you compare results.",
            stacklevel=3,
        )
    top = Path(os.path.commonpath(list(places.values())))
    within = {name: place.relative_to(top).as_posix() for name, place in places.items()}
    placed = []  # where clips lie; their keys do not depend on the names of the user's folders
    for clip in clips:
        first, _, rest = clip.path.partition("/")
        path = f"{within[first]}/{rest}" if first in within else f"{within['']}/{clip.path}"
        placed.append(clip._replace(path=os.path.normpath(path)))
    return table_of_clips(top, placed, classes)


AMBIGUOUS = {
    name: (
        f"{name} may be any of four tasks on Speech Commands v2 whose accuracies cannot be compared (clips to train / "
        "valid / test): say spc2-35 (35 words, official lists, 84,843 / 9,981 / 11,005, as EAT, SSLAM, AudioMAE and "
        "BEANS), spc2-12-tfds (10 keywords, silence, unknown, balanced test, 85,511 / 10,102 / 4,890) or "
        "spc2-12-folder (the same 12 classes by folders, 85,162 / 10,021 / 11,044, most of them unknown, as BAT's "
        "released code); the fourth, 84,848 / 9,982 / 4,890 of Hugging Face and the paper's Table 7, has the test set "
        "of spc2-12-tfds and, for silence, five and one uncut recordings of noise."
    )
    for name in (
        *("sc", "sc2", "sc-2", "sc_2", "scv2", "spc", "spc2", "spc-2", "spc_2", "spcv2", "spc2-12", "speech-commands"),
        *("speechcommands", "speechcommands_v2", "speechcommandsv2", "speech_commands", "speech_commands_v2"),
        *("speech_commands_v0.02", "speech-commands-v2"),
    )
}

WORDS_FROM = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz, unpacked into a folder of its own"
TEST_FROM = f"http://download.tensorflow.org/data/{TEST_SET}.tar.gz into {TEST_SET} beside it"
WORDS_LAYOUT = "35 word folders, validation_list.txt and testing_list.txt"

DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="spc2-35",
        title="Speech Commands v2, 35 words, official lists",
        where=WORDS_FROM,
        licence="CC BY 4.0",
        layout=WORDS_LAYOUT,
        read=read_35,
    ),
    DataSet(
        name="spc2-12-tfds",
        title="Speech Commands v2, 10 keywords, silence and unknown, splits as in TensorFlow Datasets",
        where=f"{WORDS_FROM}; {TEST_FROM}",
        licence="CC BY 4.0",
        layout=f"{WORDS_LAYOUT}, {NOISE}; {TEST_SET} with 12 folders in FOLDER or beside it",
        read=read_12_tfds,
    ),
    DataSet(
        name="spc2-12-folder",
        title="Speech Commands v2, 10 keywords, silence and unknown, official lists, as BAT's released code",
        where=WORDS_FROM,
        licence="CC BY 4.0",
        layout=f"{WORDS_LAYOUT}, {NOISE}",
        read=read_12_folder,
    ),
)
