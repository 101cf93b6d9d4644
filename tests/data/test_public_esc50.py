"""ESC-50 from a tree with the repository's own header, and every way to get it wrong."""

import numpy as np
import pytest

from audiobat.data.sources.public.esc50 import DATA_SETS, read_esc50
from audiobat.errors import AudiobatError

HEADER = "filename,fold,target,category,esc10,src_file,take"
AGAINST_THE_ALPHABET = [f"sound_{99 - target}" for target in range(50)]


def official_rows():
    """2,000 rows, sorted by file name as in the repository: 5 folds, 50 targets, 8 clips of each from 4 recordings."""
    rows = [
        (f"{fold}-{1000 * fold + 10 * target + k // 2}-{'AB'[k % 2]}-{target}.wav", fold, target, k)
        for fold in range(1, 6)
        for target in range(50)
        for k in range(8)
    ]
    return [
        f"{name},{fold},{target},{AGAINST_THE_ALPHABET[target]},{target < 10},{name.split('-')[1]},{'AB'[k % 2]}"
        for name, fold, target, k in sorted(rows)
    ]


def write(root, rows, header=HEADER, end="\n", encoding="utf-8", audio=True):
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    (root / "meta/esc50.csv").write_bytes(end.join([header, *rows, ""]).encode(encoding))
    for row in rows if audio else []:
        (root / "audio" / row.split(",")[0]).touch()
    return root


def test_clips_classes_folds_and_groups(tmp_path):
    table = read_esc50(write(tmp_path / "ESC-50-master", official_rows()))
    assert len(table) == 2000
    assert table.classes == tuple(AGAINST_THE_ALPHABET)  # by target, not by name
    assert table.single_label
    for row in (0, 7, 1234, 1999):
        name = table.keys[row].removeprefix("audio/")
        fold, source, take, target = name.removesuffix(".wav").split("-")
        assert table.path(row) == str(tmp_path / "ESC-50-master/audio" / name)
        assert table.labels.row(row).tolist() == [int(target)]
        assert table.folds[row] == int(fold)
        assert table.columns["group"][row] == source
        assert table.columns["take"][row] == take
        assert table.columns["esc10"][row] == str(int(target) < 10)
    assert np.bincount(table.folds).tolist() == [0, *[400] * 5]
    assert (table.seconds == 5).all()
    assert len(table.missing()) == 0


def test_the_folder_above_gives_the_same_table(tmp_path):
    root = write(tmp_path / "ESC-50-master", official_rows())
    inside, above = read_esc50(root), DATA_SETS[0].read(tmp_path)
    assert above.sha256() == inside.sha256()
    assert above.path(3) == inside.path(3)


@pytest.mark.parametrize(("end", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig"), ("\r\n", "utf-8-sig")])
def test_windows_line_ends_and_bom_change_nothing(tmp_path, end, encoding):
    plain = read_esc50(write(tmp_path / "plain", official_rows()))
    assert (
        read_esc50(write(tmp_path / "windows", official_rows(), end=end, encoding=encoding)).sha256() == plain.sha256()
    )


def test_missing_files_stay_listed(tmp_path):
    root = write(tmp_path, official_rows())
    gone = [3, 1500]
    for row in gone:
        (root / "audio" / official_rows()[row].split(",")[0]).unlink()
    table = read_esc50(root)
    assert len(table) == 2000
    assert table.missing().tolist() == gone


def replaced(row, **values):
    parts = dict(zip(HEADER.split(","), row.split(","), strict=True))
    return ",".join((parts | values).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "lists 1,999 clips, ESC-50 has 2,000"),
        (lambda rows: [replaced(rows[0], fold="6"), *rows[1:]], "row 2: fold is '6', not one of 1 to 5"),
        (lambda rows: [replaced(rows[0], target="x"), *rows[1:]], "row 2: target is 'x'"),
        (
            lambda rows: [*rows[:9], replaced(rows[9], target="7"), *rows[10:]],
            r"row \d+: target 7 is sound_92 and sound_9\d",
        ),
        (lambda rows: [row.replace("sound_50", "sound_51") for row in rows], "49 categories, ESC-50 has 50"),
        (lambda rows: [rows[0] + ",more", *rows[1:]], "row 2, has 8 values for 7 columns"),
        (lambda rows: [*rows[:1999], rows[0]], "two clips have the key audio/"),
        (lambda rows: ['"' + rows[0], *rows[1:]], "not valid CSV"),
        (lambda rows: [], "lists nothing"),
        (
            lambda rows: [replaced(rows[0], filename="../../a.wav"), *rows[1:]],
            r"lists audio/\.\./\.\./a\.wav, which leaves the folder",
        ),
    ],
)
def test_a_csv_that_is_not_the_official_one(tmp_path, change, words):
    with pytest.raises(AudiobatError, match=words):
        read_esc50(write(tmp_path, change(official_rows()), audio=False))


def test_wrong_folders(tmp_path):
    with pytest.raises(AudiobatError, match=r"has no meta/esc50\.csv: name the folder"):
        read_esc50(tmp_path)
    with pytest.raises(AudiobatError, match="no column `filename`"):
        read_esc50(write(tmp_path / "one", official_rows(), header="a,b"))
    write(tmp_path / "two", official_rows(), audio=False)
    with pytest.raises(AudiobatError, match="none of the 2,000 listed files is there"):
        read_esc50(tmp_path / "two")
    with pytest.raises(AudiobatError, match="several: one, two: name one"):
        read_esc50(tmp_path)
    write(tmp_path / "three", ["caf\xe9"], encoding="latin-1", audio=False)
    with pytest.raises(AudiobatError, match="not UTF-8"):
        read_esc50(tmp_path / "three")
