"""Releases on the hub, against a stand-in of its client that keeps repositories in a folder: no network is asked."""

import fnmatch
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import test_convert_eat as eat
import torch
from huggingface_hub import errors

import audiobat
from audiobat.cli import command as cli
from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import hf_hub as sharing
from audiobat.zoo import release as release_io
from audiobat.zoo.card import is_licensed, without_licence
from audiobat.zoo.convert import convert_file
from audiobat.zoo.load import load_encoder

MODEL = ModelConfig(
    FrontendConfig(n_fft=256, win_length=256, mel_bins=16),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64),
)


class Hub:
    """Repositories in `root`/OWNER/NAME/REVISION, what was fetched in `cache`; `down` is what every question raises."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.down: Exception | None = None
        self.asked: list[dict] = []
        self.made: dict[str, bool] = {}
        self.user: str | None = "owner"

    def model_info(self, repo_id, *, revision=None, timeout=None):
        self.asked.append({"model_info": repo_id, "timeout": timeout})
        if self.down:
            raise self.down
        repo = self.root / repo_id
        if not repo.is_dir():
            raise http_error(errors.RepositoryNotFoundError, "404")
        if (repo / "gated").exists():
            raise http_error(errors.GatedRepoError, "403")
        if not (repo / (revision or "main")).is_dir():
            raise http_error(errors.RevisionNotFoundError, "404")
        return SimpleNamespace(sha=revision or "main")

    def snapshot_download(
        self, repo_id, *, revision=None, allow_patterns, etag_timeout, local_files_only=False, **unknown
    ):
        assert not unknown
        self.asked.append({"snapshot_download": repo_id, "local": local_files_only})
        there = self.cache / repo_id / (revision or "main")
        if not local_files_only:
            if self.down:
                raise self.down
            shutil.rmtree(there, ignore_errors=True)
            there.mkdir(parents=True)
            for file in (self.root / repo_id / (revision or "main")).iterdir():
                if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                    shutil.copyfile(file, there / file.name)
        if not there.is_dir():
            raise errors.LocalEntryNotFoundError("not here")
        return str(there)

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        if self.user is None:
            raise errors.LocalTokenNotFoundError("no token")
        if repo_id.split("/")[0] != self.user:
            raise http_error(errors.HfHubHTTPError, "403 Forbidden: you have no rights\nfor this\nnamespace")
        if not exist_ok and repo_id in self.made:
            raise http_error(errors.HfHubHTTPError, "409")
        self.made.setdefault(repo_id, private)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        if self.down:
            raise self.down
        for file in Path(folder_path).rglob("*"):
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (self.root / repo_id / "main").mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, self.root / repo_id / "main" / file.name)
        return SimpleNamespace(repo_url=f"hub/{repo_id}")


def http_error(kind, text: str) -> Exception:
    """An error of the client, made without a response of a server."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


@pytest.fixture
def there(tmp_path: Path, monkeypatch) -> Hub:
    made = Hub(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


@pytest.fixture
def tagger() -> Tagger:
    torch.manual_seed(0)
    return Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig(kind="linear"), ("ant", "bee"))).eval()


def test_a_model_goes_there_and_comes_back(there: Hub, tagger: Tagger, tmp_path: Path):
    assert audiobat.push(tagger, "owner/bugs", private=True) == "hub/owner/bugs"
    assert there.made == {"owner/bugs": True}
    assert weights_sha256(release_io.load_tagger("hub:owner/bugs")) == weights_sha256(tagger)
    assert weights_sha256(Tagger.from_pretrained("hub:owner/bugs")) == weights_sha256(tagger)
    for load in (audiobat.load, release_io.load, load_encoder, AudioEncoder.from_pretrained):
        assert weights_sha256(load("hub:owner/bugs")) == weights_sha256(tagger.encoder)
    assert 'audiobat.load("bugs")' in (there.root / "owner/bugs/main/README.md").read_text()
    assert audiobat.push(tagger.encoder, "owner/plain") == "hub/owner/plain"
    assert there.made["owner/plain"] is False


def test_a_folder_goes_there_with_its_own_files_alone(there: Hub, tagger: Tagger, tmp_path: Path, capsys):
    release_io.save_release(tmp_path / "bugs", tagger, files={"layers.png": b"png"})
    (tmp_path / "bugs" / "passwords.txt").write_text("secret")
    (tmp_path / "bugs" / "checkpoints").mkdir()
    (tmp_path / "bugs" / "checkpoints" / "config.json").write_text("{}")
    audiobat.push(tmp_path / "bugs", "owner/bugs")
    sent = sorted(path.name for path in (there.root / "owner/bugs/main").iterdir())
    assert sent == ["README.md", "config.json", "head.safetensors", "layers.png", "model.safetensors"]
    card = (there.root / "owner/bugs/main/README.md").read_text()
    assert "license:" not in card.split("---")[1], "the hub refuses a licence that it does not know"
    assert "license: '[your licence]'" in (tmp_path / "bugs" / "README.md").read_text(), "the user's own file stays"
    assert "names no licence" in capsys.readouterr().out
    text = (tmp_path / "bugs" / "README.md").read_text().replace("'[your licence]'", "mit")
    assert is_licensed(text)
    (tmp_path / "bugs" / "README.md").write_text(text)
    audiobat.push(tmp_path / "bugs", "owner/bugs")
    assert (there.root / "owner/bugs/main/README.md").read_text() == text
    assert "licence" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "licensed"),
    [
        ("license: '[your licence]'", False),
        ("license: [your licence]", False),  # as 0.1 wrote it, and as one writes it without quotes
        ("license:\n- your licence", False),
        ("license: mit", True),
        ("license: [mit]", True),
        ("tags: [audio]", True),  # the user took it out
    ],
)
def test_a_licence_is_open_until_the_user_writes_one(line: str, licensed: bool):
    card = f"---\nlibrary_name: audiobat\n{line}\n---\n\n# bugs\n\nlicense: [your licence]\n"
    assert is_licensed(card) == licensed
    without = without_licence(card)
    assert is_licensed(without)
    assert "license" not in without.split("---")[1]
    assert without.endswith("\n# bugs\n\nlicense: [your licence]\n")


@pytest.mark.parametrize("front", ["license: [mit", "- mit", "{"])
def test_a_broken_front_matter_is_one_sentence(there: Hub, tagger: Tagger, tmp_path: Path, front: str):
    release_io.save_release(tmp_path / "bugs", tagger)
    (tmp_path / "bugs" / "README.md").write_text(f"---\n{front}\n---\n# bugs\n")
    with pytest.raises(AudiobatError, match=r"^README\.md: the lines between its --- are no fields in YAML") as caught:
        audiobat.push(tmp_path / "bugs", "owner/bugs")
    assert "\n" not in str(caught.value)
    assert not there.made


def test_only_the_files_of_a_release_are_fetched_and_nothing_is_run(there: Hub, tagger: Tagger, tmp_path: Path):
    audiobat.push(tagger.encoder, "owner/bugs")
    for name in ("modeling.py", "pytorch_model.bin", "setup.py"):
        (there.root / "owner/bugs/main" / name).write_text("raise SystemExit('run')")
    config = there.root / "owner/bugs/main/config.json"
    audiobat.load("hub:owner/bugs")
    fetched = sorted(path.name for path in (there.cache / "owner/bugs/main").iterdir())
    assert fetched == ["README.md", "config.json", "model.safetensors"]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "modeling.Evil"}}))
    with pytest.raises(AudiobatError, match=r"config\.json: it was made for transformers"):
        audiobat.load("hub:owner/bugs")


def test_a_revision(there: Hub, tagger: Tagger):
    audiobat.push(tagger.encoder, "owner/bugs")
    shutil.copytree(there.root / "owner/bugs/main", there.root / "owner/bugs/v1")
    torch.manual_seed(1)
    audiobat.push(AudioEncoder(MODEL), "owner/bugs")
    assert weights_sha256(audiobat.load("hub:owner/bugs@v1")) == weights_sha256(tagger.encoder)
    assert weights_sha256(audiobat.load("hub:owner/bugs")) != weights_sha256(tagger.encoder)
    with pytest.raises(AudiobatError, match="hub:owner/bugs has no revision v2: leave @v2 out"):
        audiobat.load("hub:owner/bugs@v2")


def test_folders_of_others_load_from_there_too(there: Hub, tmp_path: Path):
    source = eat.hugging_face_folder(tmp_path / "h", head=True)
    shutil.copytree(source, there.root / "them/eat/main")
    assert weights_sha256(audiobat.load("hub:them/eat")) == weights_sha256(convert_file(source).encoder)
    out = audiobat.export("hub:them/eat", "release", tmp_path / "out")
    assert weights_sha256(release_io.load_tagger(out)) == weights_sha256(convert_file(source).tagger())


def test_export_and_push_in_one_command(there: Hub, tagger: Tagger, tmp_path: Path, capsys):
    release_io.save_release(tmp_path / "mine", tagger)
    words = ["export", "--model", str(tmp_path / "mine"), "--to", "release", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--push", "owner/bugs", "--private"]) == 0
    assert "pushed: hub/owner/bugs" in capsys.readouterr().out
    assert there.made == {"owner/bugs": True}
    assert weights_sha256(release_io.load_tagger("hub:owner/bugs")) == weights_sha256(tagger)
    out = audiobat.export("hub:owner/bugs", "release", tmp_path / "again")
    assert "read from hub:owner/bugs/model.safetensors" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), TimeoutError("slow\nvery slow"), errors.OfflineModeIsEnabled("offline")]
)
def test_without_a_network(there: Hub, tagger: Tagger, error: Exception):
    audiobat.push(tagger.encoder, "owner/bugs")
    audiobat.load("hub:owner/bugs")
    there.down = error
    there.asked.clear()
    assert weights_sha256(audiobat.load("hub:owner/bugs")) == weights_sha256(tagger.encoder), "as it came before"
    with pytest.raises(
        AudiobatError, match=rf"cannot be reached \({type(error).__name__}: .*hub:owner/other"
    ) as caught:
        audiobat.load("hub:owner/other")
    assert "\n" not in str(caught.value)
    assert "very slow" not in str(caught.value)
    questions = [a for a in there.asked if "model_info" in a]
    assert all(0 < question["timeout"] <= 5 for question in questions)
    assert len(questions) == 2, "each is asked once"
    assert all(a["local"] for a in there.asked if "snapshot_download" in a), "and no download is tried"
    with pytest.raises(AudiobatError, match=r"owner/bugs cannot be written on the hub"):
        audiobat.push(tagger.encoder, "owner/bugs")


def test_the_real_client_gives_up_at_once(tmp_path: Path, monkeypatch):
    """The client itself, sent to a closed port of this machine: no retries, one sentence."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert huggingface_hub.HfApi().endpoint == "http://127.0.0.1:9"
    with pytest.raises(AudiobatError, match="The hub cannot be reached"):
        audiobat.load("hub:owner/bugs")


def test_what_the_hub_refuses(there: Hub, tagger: Tagger):
    with pytest.raises(
        AudiobatError, match=r"hub:owner/none is not on the hub, or is private: check the name, or log in"
    ):
        audiobat.load("hub:owner/none")
    (there.root / "owner/gated").mkdir(parents=True)
    (there.root / "owner/gated/gated").touch()
    with pytest.raises(AudiobatError, match="hub:owner/gated is given to those who accept its terms"):
        audiobat.load("hub:owner/gated")
    with pytest.raises(AudiobatError, match=r"their/bugs cannot be written on the hub .*403") as caught:
        audiobat.push(tagger, "their/bugs")
    assert "\n" not in str(caught.value)
    there.user = None
    with pytest.raises(AudiobatError, match=r"Nobody is logged in to the hub.*hf auth login"):
        audiobat.push(tagger, "owner/bugs")


@pytest.mark.parametrize(
    "name",
    ["", "bugs", "owner/", "/bugs", "a/b/c", "../../etc/passwd", "owner/..", "owner/a b", "-x/y", "owner/b\n", "o/é"],
)
def test_names_that_are_none(there: Hub, tagger: Tagger, name: str):
    with pytest.raises(AudiobatError, match="is no name on the hub: give OWNER/NAME"):
        audiobat.load(f"hub:{name}")
    with pytest.raises(AudiobatError, match="is no name on the hub: give OWNER/NAME"):
        audiobat.push(tagger, name)
    assert not there.asked


@pytest.mark.parametrize("revision", ["", "..", "../x", "a/../b", "x y", "-f", "é"])
def test_revisions_that_are_none(there: Hub, revision: str):
    with pytest.raises(AudiobatError, match="is no revision of hub:owner/bugs"):
        audiobat.load(f"hub:owner/bugs@{revision}")
    assert not there.asked


def test_nothing_broken_is_shared(there: Hub, tagger: Tagger, tmp_path: Path):
    release_io.save_release(tmp_path / "bugs", tagger)
    file = tmp_path / "bugs" / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(AudiobatError, match=r"head\.safetensors cannot be read"):
        audiobat.push(tmp_path / "bugs", "owner/bugs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match="empty is no release: make one with `audiobat export --to release`"):
        audiobat.push(tmp_path / "empty", "owner/bugs")
    assert not there.made


def test_a_folder_for_transformers_goes_with_its_code(there: Hub, tmp_path: Path):
    folder = tmp_path / "t"
    folder.mkdir()
    for name in ("modeling_audiobat.py", "model.safetensors", "preprocessor_config.json", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "config.json").write_text('{"auto_map": {}}')
    audiobat.push(folder, "owner/t")
    sent = {path.name for path in (there.root / "owner/t/main").iterdir()}
    assert sent == {"modeling_audiobat.py", "model.safetensors", "preprocessor_config.json", "config.json"}


def test_the_files_of_a_release_are_those_that_one_holds(tagger: Tagger, tmp_path: Path):
    release_io.save_release(tmp_path / "bugs", tagger, files={"layers.png": b""})
    assert {path.name for path in (tmp_path / "bugs").iterdir()} | {"code/*.py"} == set(sharing.FILES)
