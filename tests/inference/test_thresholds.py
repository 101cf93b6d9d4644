"""Thresholds of each class: from a number, a mapping or a file, in a release, its card and its exports."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from small_tagger import CLASSES, RATE, make_tagger, read_csv, sound

import audiobat
from audiobat.config import TaggerConfig
from audiobat.errors import AudiobatError
from audiobat.inference.predict import predict
from audiobat.inference.thresholds import pick_thresholds
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import load_tagger, save_release

OWN = (0.1, 0.2, 0.3, 0.4)


def with_thresholds(task: str, thresholds=OWN, **settings) -> Tagger:
    tagger = make_tagger(task, **settings)
    tagger.config = replace(tagger.config, thresholds=thresholds)
    return tagger


def test_a_number_is_for_all_classes_and_a_file_for_those_that_it_names(tmp_path):
    def picked(given) -> list[float]:
        return pick_thresholds(given, CLASSES, OWN).tolist()

    (tmp_path / "flat.json").write_text(json.dumps({"rain": 0.9, 'a "bell"': 1}))
    (tmp_path / "among.json").write_text(json.dumps({"format": "x", "thresholds": {"rain": 0.9}}))
    (tmp_path / "table.csv").write_text('\ufefflabel,threshold,hits\n"cat, black",0.25,3\nrain,1e-1,\n')
    assert picked(None) == list(OWN)
    for number in (0.6, "0.6", np.float32(0.6)):
        np.testing.assert_allclose(picked(number), [0.6] * 4, rtol=1e-7)
    assert picked({"dog": 0}) == [0.0, 0.2, 0.3, 0.4]
    assert picked(tmp_path / "flat.json") == [0.1, 0.2, 0.9, 1.0]
    assert picked(str(tmp_path / "among.json")) == [0.1, 0.2, 0.9, 0.4]
    assert picked(str(tmp_path / "table.csv")) == [0.1, 0.25, 0.1, 0.4]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", '{"dgo": 0.5}', "names 'dgo', which is no class of the model (did you mean dog?)"),
        ("a.json", '{"dog": 1.5}', "a.json: 'dog' is 1.5: use 0 to 1"),
        ("a.json", '{"dog": NaN}', "is nan: use 0 to 1"),
        ("a.json", '{"dog": null}', "is None: use 0 to 1"),
        ("a.json", '{"dog": true}', "is True: use 0 to 1"),
        ("a.json", '{"dog": [1]}', "is [1]: use 0 to 1"),
        ("a.json", '{"thresholds": [0.5]}', "its thresholds are no object"),
        ("a.json", '{"dog"', "cannot be read as JSON"),
        ("a.csv", "class,value\ndog,0.5\n", "has no columns label and threshold"),
        ("a.csv", "label,threshold\ndog,high\n", "a.csv: 'dog' is 'high': use 0 to 1"),
        ("a.csv", "label,threshold\ndog\n", "is None: use 0 to 1"),
        ("a.csv", "", "has no columns"),
        ("a.txt", "0.5", "give a number, or a .json or .csv file"),
        (None, "", "no such file"),
    ],
)
def test_what_is_no_threshold_is_told(tmp_path, name, text, sentence):
    if name is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(AudiobatError) as told:
        pick_thresholds(str(tmp_path / (name or "none.json")), CLASSES, OWN)
    assert sentence in str(told.value)


@pytest.mark.parametrize("task", ["clip", "frame"])
def test_a_release_brings_its_thresholds_and_a_flag_overrides_them(tmp_path, task):
    soundfile.write(tmp_path / "a.wav", sound(np.random.default_rng(0), 9, RATE), RATE)
    save_release(tmp_path / "own", with_thresholds(task, (0.3, 1.0, 0.6, 0.5)))
    save_release(tmp_path / "bare", make_tagger(task))
    assert load_tagger(tmp_path / "own").config.thresholds == (0.3, 1.0, 0.6, 0.5)

    def rows(model: str, **settings) -> list:
        number[0] += 1
        return read_csv(predict(tmp_path / model, tmp_path / "a.wav", tmp_path / f"{number[0]}.csv", **settings))

    number = [0]
    own = rows("own")
    one_by_one = []
    for label, value in zip(CLASSES, (0.3, 1.0, 0.6, 0.5), strict=True):
        one_by_one += [row for row in rows("bare", threshold=value) if row[3] == label]
    assert sorted(own) == sorted(one_by_one)
    found = {row[3] for row in own}
    assert "cat, black" not in found
    assert len(found) > 1
    assert rows("own", threshold=0.45) == rows("bare", threshold=0.45) != own
    other = rows("own", threshold={"cat, black": 0.0})
    assert [row for row in other if row[3] != "cat, black"] == own
    assert len(other) > len(own)
    assert rows("bare", threshold={}) == rows("bare")
    if task == "clip":
        assert rows("own", top=2) == rows("bare", top=2), "the best labels, however low their scores"
    predict(tmp_path / "own", tmp_path / "a.wav", tmp_path / "kept.csv", scores=tmp_path / "kept.npz")
    again = predict(None, tmp_path / "kept.npz", tmp_path / "again.csv")
    assert read_csv(again) == own, "the file of scores has them"


def test_thresholds_that_do_not_fit_the_classes_are_refused():
    for wrong in ((0.5,), (0.5, 0.5, 0.5, 1.5), (0.5, 0.5, 0.5, float("nan"))):
        with pytest.raises(AudiobatError, match="give one for each class, from 0 to 1, or none"):
            TaggerConfig(make_tagger().config.head, CLASSES, thresholds=wrong)


def test_export_shows_thresholds_and_sets_others(tmp_path, capsys):
    save_release(tmp_path / "own", with_thresholds("frame"))
    save_release(tmp_path / "bare", make_tagger("frame"))
    card = (tmp_path / "own" / "README.md").read_text()
    assert "above its own threshold: dog 0.1, cat, black 0.2, rain 0.3" in card
    assert "threshold" not in (tmp_path / "bare" / "README.md").read_text()
    audiobat.export(tmp_path / "own", "release", tmp_path / "copy")
    assert load_tagger(tmp_path / "copy").config.thresholds == OWN
    assert "thresholds: 0.1 to 0.4, one for each class" in capsys.readouterr().out

    (tmp_path / "t.csv").write_text("label,threshold\ndog,0.75\n")
    audiobat.export(tmp_path / "bare", "release", tmp_path / "set", thresholds=tmp_path / "t.csv")
    assert load_tagger(tmp_path / "set").config.thresholds == (0.75, 0.3, 0.3, 0.3)
    assert "dog 0.75, cat, black 0.3" in (tmp_path / "set" / "README.md").read_text()
    audiobat.export(tmp_path / "own", "release", tmp_path / "flat", thresholds=0.5)
    assert load_tagger(tmp_path / "flat").config.thresholds == (0.5,) * 4
    with pytest.raises(AudiobatError, match=r"thresholds is 1.5: use 0 to 1"):
        audiobat.export(tmp_path / "own", "release", tmp_path / "no", thresholds=1.5)
    save_release(tmp_path / "encoder", make_tagger().encoder)
    with pytest.raises(AudiobatError, match="thresholds belong to a head"):
        audiobat.export(tmp_path / "encoder", "release", tmp_path / "no", thresholds=0.5)
    assert not (tmp_path / "no").exists()
