"""A day with the released weights: python benchmarks/released.py OUT --trust-remote-code

Downloads the public weights of BAT, EAT and SSLAM, and ESC-50; checks hashes; compares the tokens of each model, loaded
by us, with those of the code that came with it; probes ESC-50 with CGP, Protobin and a linear probe; and prints the
columns of Table 5 with the paper's numbers beside. Each step goes on where it was stopped. docs/released.md has more.

OUT gets weights/, data/ESC-50/, own_code/, tokens/, tokens.md, and esc50_PRESET/ as `audiobat benchmark` writes it.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

import audiobat
from audiobat.audio.read import load_audio
from audiobat.config.benchmark import BenchmarkConfig
from audiobat.config.recipes import make_config
from audiobat.engine.files import check_zip, read_json, replacing, write_atomic
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.render import pipe_table
from audiobat.zoo.load import load_encoder

HERE = Path(__file__).parent
HUB = {  # repositories of the Hugging Face Hub, each with weights, settings and the code that reads them
    "BAT": "lrauch/BAT-vit-b16-pretrainedAS2M",
    "EAT": "worstchan/EAT-base_epoch30_pretrain",
    "SSLAM": "ta012/SSLAM_pretrain",
}
WANTED = ("*.json", "*.py", "model.safetensors")
ESC50 = "https://github.com/karolpiczak/ESC-50/archive/{}.zip"
MEMBERS = r"meta/esc50\.csv|audio/[\w-]+\.wav|LICENSE"  # of the archive, as they are unpacked
OWN = ("torch==2.11.0", "torchaudio==2.11.0", "timm==1.0.31", "librosa==0.11.0", "einops")  # what such code imports
TRANSFORMERS = "4.51.3"  # where a config.json does not say the version that it was saved with
CLIPS = 6  # whose tokens are compared
OFF = "OFF"
CLOSE = 1e-3  # largest difference of tokens that counts as equal, in standard deviations of tokens
TRIES, CHUNK = 5, 1 << 20
TEN_EPOCHS = "EAT is the file of 10 epochs, as in the paper."
THIRTY_EPOCHS = "EAT's weights are those of 30 epochs; the paper's line is of 10 epochs (--eat10)."


# Hashes


class Pins:
    """A JSON file of hashes: what was found at the first download, and must be found at every later one."""

    def __init__(self, file):
        self.file = Path(file)
        self.known = read_json(self.file) if self.file.exists() else {}

    def commit(self, name):
        """The commit of an earlier download; None at the first."""
        return self.known.get(name, {}).get("commit")

    def matches(self, name, folder):
        """Whether all pinned files of `name` lie in `folder` as they were."""
        return name in self.known and not self.changed(name, folder)

    def changed(self, name, folder):
        """The pinned files of `name` that are not in `folder` as they were."""
        files = self.known.get(name, {}).get("files", {})
        return [pattern for pattern, digest in files.items() if hash_of(folder, pattern) != digest]

    def check(self, name, source, commit, files):
        """Compare `files` (name: hash) with the pinned ones; what is not pinned yet is printed and kept."""
        pinned = self.known.get(name)
        if pinned is None:
            print(f"{name}: no hash is known; {self.file} keeps those found, of commit {commit}:")
            print(*(f"  {digest}  {file}" for file, digest in files.items()), sep="\n")
            self.known[name] = {"source": source, "commit": commit, "files": files}
            write_atomic(self.file, json.dumps(self.known, indent=1) + "\n")
            return
        wrong = [file for file in pinned["files"].keys() | files.keys() if pinned["files"].get(file) != files.get(file)]
        if wrong:
            raise AudiobatError(
                f"{name} of {source}: {', '.join(sorted(wrong)[:3])} is not what {self.file} pins: if its makers have "
                f"changed it, and you have read why, remove {name} there."
            )
        print(f"{name}: as pinned ({len(files)} files, commit {commit})")


def hash_of(folder, pattern):
    """The SHA-256 of a file; of a pattern such as audio/*.wav that of the lines that sha256sum prints; None of none."""
    hashes = {}
    for file in sorted(folder.glob(pattern)):
        with file.open("rb") as opened:
            hashes[file.relative_to(folder).as_posix()] = hashlib.file_digest(opened, "sha256").hexdigest()
    if "*" not in pattern:
        return hashes.get(pattern)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()).hexdigest()


# Downloads


def fetch_model(name, folder, pins):
    """The files of a repository of the Hub, at the pinned commit if there is one; checked against the Hub's hashes."""
    if pins.matches(name, folder):
        print(f"{name}: here, as pinned")
        return folder
    from huggingface_hub import HfApi, snapshot_download

    for file in pins.changed(name, folder):  # the Hub's client may take what lies there for what it has fetched
        (folder / file).unlink(missing_ok=True)
    repository = HUB[name]
    try:
        info = HfApi().model_info(repository, revision=pins.commit(name), files_metadata=True)
        snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=list(WANTED))
    except Exception as error:  # each transport raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AudiobatError(f"{repository} cannot be fetched ({reason}): connect, and start again.") from error
    found = [file for pattern in WANTED for file in sorted(folder.glob(pattern))]
    published = {sibling.rfilename: sibling.lfs.sha256 for sibling in info.siblings or () if sibling.lfs}
    hashes = {file.name: hash_of(folder, file.name) for file in found}
    if lacking := {"config.json", "model.safetensors"} - hashes.keys():  # before it is pinned
        raise AudiobatError(f"{repository} at {info.sha} has no {' and no '.join(sorted(lacking))}: its layout is new.")
    for file, digest in hashes.items():
        if published.get(file, digest) != digest:
            (folder / file).unlink()
            raise AudiobatError(f"{folder / file} has not the hash that {repository} publishes: start again.")
    pins.check(name, repository, info.sha, hashes)
    return folder


def download(url, file):
    """Fetch `url` to `file`; what a broken download has left goes on, if the server still has the same."""
    part, tag = file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.etag")
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in range(TRIES - 1, -1, -1):
        try:
            fetch_rest(url, part, tag)
            part.replace(file)
            tag.unlink(missing_ok=True)
            return
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # nothing behind the part: begin anew
                part.unlink(missing_ok=True)
            if left == 0:
                raise AudiobatError(f"{url} cannot be fetched ({error}): connect, and start again.") from error
            print(f"{url}: {error}; trying again", flush=True)
            time.sleep(1)


def fetch_rest(url, part, tag):
    """Append to `part` what is missing of `url`, or write it anew where the server has no ranges or another file."""
    held = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"Range": f"bytes={held}-", "If-Range": tag.read_text()} if held else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        goes_on = answer.status == 206
        if not goes_on:
            held = 0
            tag.unlink(missing_ok=True)
            if answer.headers.get("ETag"):
                tag.write_text(answer.headers["ETag"])
        length = answer.headers.get("Content-Length")
        whole = held + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as to, Progress(part.name, whole or 0, "byte") as progress:
            progress.skip(held)
            while chunk := answer.read(CHUNK):
                to.write(chunk)
                progress.advance(len(chunk))
    if whole is not None and part.stat().st_size != whole:  # http.client does not say so
        raise OSError(f"the connection ended after {part.stat().st_size:,} of {whole:,} bytes")


def fetch_esc50(source, folder, pins):
    """ESC-50 unpacked; archives of one commit may differ in bytes, so that their contents are pinned."""
    if pins.matches("ESC-50", folder):
        print("ESC-50: here, as pinned")
        return folder
    archive, url = folder.with_name("ESC-50.zip"), source.format(pins.commit("ESC-50") or "master")
    if not archive.exists():
        download(url, archive)
    try:
        check_zip(archive)
    except Exception as error:  # a damaged archive may fail in any way
        archive.unlink()
        raise AudiobatError(f"{archive} is damaged ({error}) and was removed: start again.") from error
    with zipfile.ZipFile(archive) as opened:
        commit = opened.comment.decode(errors="replace")  # where git writes it
        inside = {name.partition("/")[2]: name for name in opened.namelist()}  # without the folder ESC-50-COMMIT
        members = {file: name for file, name in inside.items() if re.fullmatch(MEMBERS, file)}
        if "meta/esc50.csv" not in members or not any(file.startswith("audio/") for file in members):
            archive.unlink()  # before it is pinned
            raise AudiobatError(f"{url} holds no meta/esc50.csv with audio/*.wav and was removed: is it ESC-50?")
        with replacing(folder) as beside:
            for file, name in members.items():
                (beside / file).parent.mkdir(parents=True, exist_ok=True)
                (beside / file).write_bytes(opened.read(name))
    hashes = {pattern: hash_of(folder, pattern) for pattern in ("meta/esc50.csv", "audio/*.wav")}
    pins.check("ESC-50", url, commit, hashes)
    archive.unlink()
    return folder


# Tokens, ours beside the own code's


def own_environment(folder, config):
    """A Python for a model's own code, and the folder with the transformers that config.json names; made once."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    named = str(read_json(config).get("transformers_version", ""))
    version = named if re.fullmatch(r"\d+(\.\d+)+", named) else TRANSFORMERS
    site = folder / f"transformers-{version}"
    if not (folder / "ready").exists():
        print(f"{folder}: installing {', '.join(OWN)}", flush=True)
        install([sys.executable, "-m", "venv", folder])
        install([python, "-m", "pip", "install", "-q", *OWN])
        (folder / "ready").touch()
    if not site.exists():
        print(f"{site}: installing", flush=True)
        with replacing(site) as beside:
            install([python, "-m", "pip", "install", "-q", "--target", beside, f"transformers=={version}"])
    return python, site


def install(command):
    """Run a command that prints why it fails."""
    if subprocess.run(command).returncode:
        raise AudiobatError("The environment for the models' own code cannot be made: connect, or give --own-python.")


def compared_waveforms(esc50):
    """The clips whose tokens are compared: single ones of 5 s, and two joined to 10 s, at 16 kHz."""
    files = sorted((esc50 / "audio").glob("*.wav"))
    chosen = [files[n * len(files) // (CLIPS + 1)] for n in range(CLIPS + 1)]
    waves = [load_audio(str(file), 16_000) for file in chosen]
    return [*waves[: CLIPS - 1], np.concatenate(waves[-2:])]


def compare(name, folder, waves, out, own_python):
    """Lines of the table for one model: how far its tokens are from those of its own code."""
    encoder = load_encoder(folder)
    ours, given = [], {}
    for n, wave in enumerate(waves):
        with torch.no_grad():
            samples = torch.from_numpy(wave)[None]
            features = encoder.forward_intermediates(samples)
            tokens = torch.cat([features.cls_token[:, :, None], features.patch_tokens], 2)[:, 0]  # [L, 1 + N, D]
            given |= {f"wave_{n}": wave, f"given_{n}": encoder.spectrogram(samples)[0][0].numpy()}
        ours.append(tokens.numpy())
    folder_of_tokens = out / "tokens"
    folder_of_tokens.mkdir(parents=True, exist_ok=True)
    inputs, outputs, log = (folder_of_tokens / f"{name}{end}" for end in ("_in.npz", "_out.npz", ".log"))
    np.savez(inputs, **given)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder_of_tokens / "modules")}
    python = own_python
    if python is None:
        python, environment["PYTHONPATH"] = own_environment(out / "own_code", folder / "config.json")
    command = [python, HERE / "released_own_code.py", folder, inputs, outputs]
    with log.open("w") as opened:
        try:
            code = subprocess.run(command, env=environment, stdout=opened, stderr=subprocess.STDOUT).returncode
        except OSError as error:
            raise AudiobatError(f"--own-python {python} does not start ({error.strerror}): give a Python.") from error
    if code:
        last = (log.read_text().strip().splitlines() or ["no word of why"])[-1]
        raise AudiobatError(
            f"The code of {folder} failed ({last}): {log} has the rest; install into {python} what lacks."
        )
    with np.load(outputs) as theirs:
        return token_lines(name, ours, [given[f"given_{n}"] for n in range(len(waves))], theirs)


def token_lines(name, ours, spectrograms, theirs):
    """Differences as lines (model, what, largest, that of the last block, verdict), over all clips."""

    def line(what, key, mine):
        pairs = [(one, theirs[f"{key}_{n}"]) for n, one in enumerate(mine)]
        for one, other in pairs:
            if one.shape != other.shape:
                return name, what, f"shapes {one.shape}, {other.shape}", "", OFF
        apart = [np.abs(one - other) / other.std() for one, other in pairs]
        worst, last = (max(float(d.max()) for d in part) for part in (apart, [d[-1] for d in apart]))
        shown = f"{last:.1e}" if mine is ours else ""
        return name, what, f"{worst:.1e}", shown, "equal" if worst < CLOSE else OFF  # NaN is off

    lines = [line("tokens of one spectrogram", "given_tokens", ours)]
    if "why" in theirs:
        return [*lines, (name, "tokens of one waveform", "", "", f"not compared ({theirs['why']})")]
    lines.append(line("spectrograms of one waveform", "spectrogram", spectrograms))
    return [*lines, line("tokens of one waveform", "tokens", ours)]


def compare_all(folders, esc50, out, own_python):
    """Compare all models, write OUT/tokens.md and print it; returns how many lines are not equal."""
    waves = compared_waveforms(esc50)
    lines = [line for name, folder in folders.items() for line in compare(name, folder, waves, out, own_python)]
    headings = ("Model", "Compared", "Largest difference / std", "Last block", "Verdict")
    table = "\n".join(pipe_table(headings, lines, 2))
    write_atomic(out / "tokens.md", f"# Tokens of {len(waves)} clips, ours and the own code's\n\n{table}\n")
    print(table)
    return sum(verdict == OFF for *_, verdict in lines)


# Table 5's columns of ESC-50


def esc50_config(preset, eat):
    """Table 5 as a benchmark of ESC-50 alone, with Protobin in place of fine-tuning; `eat` says which EAT it is."""
    table = make_config(BenchmarkConfig, "benchmark/table5")
    return replace(
        table,
        title=f"Table 5, ESC-50: CGP, Protobin and linear probing (LP), preset {preset}",
        models={name: replace(model, recipes={}) for name, model in table.models.items()},
        data={"ESC-50": table.data["ESC-50"]},
        protocols=("CGP", "Protobin", "LP"),
        preset=preset,
        notes=("The paper has no Protobin on ESC-50, one seed, and no intervals.", eat),
    )


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder to write, about 30 GB while it runs")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the models' own code to compare tokens")
    parser.add_argument("--own-python", help="a Python that has what that code imports; without it, one is made")
    parser.add_argument("--eat10", type=Path, help="EAT-base_epoch10_pt.pt, if you have it: the paper's EAT")
    parser.add_argument("--preset", default="paper", choices=("paper", "released", "fair"), help="of the probes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--esc50", default=ESC50, help="where ESC-50's archive is: a mirror's URL, or file:///PATH")
    parser.add_argument("--pins", type=Path, default=HERE / "released_pins.json", help="file of hashes")
    args = parser.parse_args(words)
    out, pins = args.out.resolve(), Pins(args.pins)
    folders = {name: fetch_model(name, out / "weights" / name, pins) for name in HUB}
    esc50 = fetch_esc50(args.esc50, out / "data/ESC-50", pins)
    off = 0
    if args.trust_remote_code:
        off = compare_all(folders, esc50, out, args.own_python)
    else:
        print(f"Tokens are not compared: read the code in {out / 'weights'}, then add --trust-remote-code.")
    weights = folders | ({"EAT": args.eat10} if args.eat10 else {})
    audiobat.benchmark(
        esc50_config(args.preset, TEN_EPOCHS if args.eat10 else THIRTY_EPOCHS),
        out=out / f"esc50_{args.preset}",
        models=[f"{name}={path}" for name, path in weights.items()],
        data=[f"ESC-50={esc50}"],
        device=args.device,
    )
    if off:
        raise AudiobatError(f"{off} comparisons of tokens are off: see {out / 'tokens.md'}.")


if __name__ == "__main__":
    try:
        main()
    except AudiobatError as error:
        sys.exit(f"released.py: {error}")
