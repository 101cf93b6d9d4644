"""FSD50K as Zenodo's archives unpack, and as its copies name the folders."""

import pytest

from audiobat.data.sources.catalog import data_sets
from audiobat.errors import AudiobatError

CLASSES = ["Accelerating_and_revving_and_vroom", "Accordion", "Music", "Animal", "Bark"]
VOCABULARY = "".join(f"{i},{name},/m/0{i}\n" for i, name in enumerate(CLASSES))
DEV = (
    "fname,labels,mids,split\n"
    '64760,"Accordion,Music","/m/01,/m/02",train\n'
    '16399,"Music","/m/02",val\n'
    '16401,"Bark,Animal","/m/04,/m/03",train\n'
)
EVAL = 'fname,labels,mids\n37199,"Accordion,Music","/m/01,/m/02"\n175151,Accelerating_and_revving_and_vroom,/m/00\n'


def lay_out(root, truth="FSD50K.ground_truth", dev="FSD50K.dev_audio", evaluation="FSD50K.eval_audio", ending=".wav"):
    for folder in (truth, dev, evaluation):
        (root / folder).mkdir(parents=True)
    (root / truth / "vocabulary.csv").write_text(VOCABULARY)
    (root / truth / "dev.csv").write_text(DEV)
    (root / truth / "eval.csv").write_text(EVAL)
    for folder, names in ((dev, ["64760", "16399", "16401"]), (evaluation, ["37199", "175151"])):
        for name in names:
            (root / folder / (name + ending)).touch()
    return root


def read(folder):
    return data_sets()["fsd50k"].read(folder)


@pytest.mark.parametrize(
    "names", [{}, {"truth": "labels", "dev": "clips/dev", "evaluation": "clips/eval"}, {"ending": ".flac"}]
)
def test_every_layout(tmp_path, names):
    table = read(lay_out(tmp_path, **names))
    assert table.keys.tolist() == ["64760", "16399", "16401", "37199", "175151"]
    assert table.classes == tuple(CLASSES)  # of vocabulary.csv, not sorted
    assert table.splits.tolist() == ["train", "valid", "train", "test", "test"]
    assert [table.labels.row(i).tolist() for i in range(5)] == [[1, 2], [2], [3, 4], [1, 2], [0]]
    assert not len(table.missing())
    assert table.path(3).endswith(f"{names.get('evaluation', 'FSD50K.eval_audio')}/37199{names.get('ending', '.wav')}")


def test_a_missing_clip_is_listed_as_missing(tmp_path):
    root = lay_out(tmp_path)
    (root / "FSD50K.dev_audio/16399.wav").unlink()
    table = read(root)
    assert len(table) == 5
    assert table.missing().tolist() == [1]


def test_no_audio_at_all(tmp_path):
    root = lay_out(tmp_path)
    for path in root.glob("*/*.wav"):
        path.unlink()
    with pytest.raises(AudiobatError, match="none of the 5 listed files is there"):
        read(root)


@pytest.mark.parametrize("folder", ["FSD50K.ground_truth", "FSD50K.dev_audio", "FSD50K.eval_audio"])
def test_a_missing_folder(tmp_path, folder):
    root = lay_out(tmp_path)
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(AudiobatError, match=rf"no folder {folder} .* unpack all"):
        read(root)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("dev.csv", DEV.replace("Bark", "Woof"), r"dev\.csv, row 4: label 'Woof' of clip 16401 is none of the 5"),
        ("dev.csv", DEV.replace(",val", ",validation"), r"dev\.csv, row 3: split is 'validation'"),
        ("dev.csv", EVAL, r"dev\.csv has no column `split`"),
        ("eval.csv", EVAL.replace("37199", "64760"), "two clips have the key 64760"),
        ("eval.csv", EVAL.replace("37199", "../../37199"), r"lists .*\.\./37199\.wav, which leaves the folder"),
        ("vocabulary.csv", VOCABULARY.replace("2,Music", "7,Music"), r"vocabulary\.csv, row 3, is not `2,name,mid`"),
        ("vocabulary.csv", "index,name,mid\n" + VOCABULARY, r"vocabulary\.csv, row 1"),
        ("vocabulary.csv", VOCABULARY.replace("Bark", "Music"), "lists a class twice"),
        ("vocabulary.csv", "", "or none"),
        ("vocabulary.csv", '0,"Bark,/m/00', "not valid CSV"),
    ],
)
def test_damaged_lists(tmp_path, name, text, words):
    root = lay_out(tmp_path)
    (root / "FSD50K.ground_truth" / name).write_text(text)
    with pytest.raises(AudiobatError, match=words):
        read(root)


def test_a_list_that_is_not_there(tmp_path):
    root = lay_out(tmp_path)
    (root / "FSD50K.ground_truth/eval.csv").unlink()
    with pytest.raises(AudiobatError, match=r"eval\.csv cannot be read"):
        read(root)
