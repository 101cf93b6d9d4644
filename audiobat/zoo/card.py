"""The model card of a release: from a model and what is known of how it was made to the text of README.md.

What nobody recorded says so; the licence is left to the user.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import yaml

from audiobat.config import to_dict
from audiobat.config.user_files import user_classes
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder, BaseEncoder
from audiobat.models.tagger import Tagger

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD, FIGURE = "README.md", "layers.png"  # two files of a release
OPEN = "[your licence]"  # the user replaces it
UNKNOWN = "not recorded"
SHOWN = 30  # classes or tensors that a list names; config.json names all classes
Library = Literal["audiobat", "transformers"]


@dataclass(frozen=True)
class Result:
    """A metric of a head, as a mean over seeds; None where it is undefined."""

    data: str
    head: str
    metric: str
    value: float | None
    low: float | None  # 95% interval over test clips
    high: float | None
    seeds: tuple[int, ...]
    clips: int | None  # in the test
    definition: str


@dataclass(frozen=True)
class Facts:
    """What is known of how a model was made; None or () where nothing was recorded."""

    origin: str = ""  # in a few words, such as `pre-trained without labels`
    data: str | None = None
    data_sha256: str | None = None  # of the clip table
    clips: int | None = None
    recipe: str | None = None
    steps: int | None = None
    seed: int | None = None
    settings: tuple[tuple[str, str, str], ...] = ()  # name, value, default: those that differ
    software: tuple[tuple[str, str], ...] = ()  # name, version
    results: tuple[Result, ...] = ()
    results_note: str = ""  # how sure their intervals are, and how many classes are rare
    figure: bool = False  # whether FIGURE lies beside the card
    sources: tuple[tuple[str, str], ...] = ()  # files that the weights were read from, and their sha256
    left: tuple[str, ...] = ()  # tensors of those files that the model does not use


def write_card(name: str, model: BaseEncoder | Tagger, facts: Facts, library: Library = "audiobat") -> str:
    """The card of a release that lies in a folder called `name` and that `library` loads."""
    from huggingface_hub import ModelCardData  # slow to import, and only writing needs it

    encoder, tagger = (model.encoder, model) if isinstance(model, Tagger) else (model, None)
    front = ModelCardData(  # by this the hub sorts models
        library_name=library,
        license=OPEN,
        pipeline_tag="feature-extraction" if tagger is None else "audio-classification",
        tags=["audio", "audiobat", "self-supervised-learning"],
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    origin = f", {plain(facts.origin)}" if facts.origin else ""
    head = ""
    if tagger is not None:
        choice = "several at once" if tagger.multi_label else "of which one holds"
        head = (
            f"On it sits a head of kind {tagger.config.head.kind} that labels each {tagger.task} with "
            f"{len(tagger.classes)} classes, {choice}: {some(tagger.classes)}.\n{threshold_lines(tagger)}"
        )
    frontend = encoder.frontend.config
    top = frontend.f_max or frontend.sample_rate / 2
    norms = {"minmax": "each clip from its minimum to its maximum", "global": "by the statistics of a whole corpus"}
    longest = getattr(encoder, "max_samples", None)
    clip = "of any length."
    if longest is not None:
        own = encoder.config.encoder if isinstance(encoder, AudioEncoder) else None
        is_rotary = own is not None and own.positions == "rotary"
        rest = "run whole, each patch looking that far" if is_rotary else "run in windows of that"
        clip = f"up to {longest / encoder.sample_rate:.4g} s at once; longer ones {rest}."
    if library == "audiobat":
        load, converted = loading, "; other rates and channels are converted"
    else:
        load, converted = loading_by_transformers, ""
    digest = f" (sha256 of the table `{plain(facts.data_sha256)}`)" if facts.data_sha256 else ""
    software = ", ".join(f"{plain(name)} {plain(version)}" for name, version in facts.software)
    settings = ""
    if facts.settings:
        rows = [("field", "here", "default"), *(tuple(map(plain, setting)) for setting in facts.settings)]
        settings = f"\nSettings that differ from the defaults:\n\n{table(rows)}"
    weights = [f"sha256 of the weights: `{weights_sha256(model)}`"]
    weights += [f"read from {plain(name)}, sha256 `{plain(sha256)}`" for name, sha256 in facts.sources]
    if facts.left:
        weights.append(f"{len(facts.left)} tensors of that are no part of this model: {some(facts.left)}")
    return f"""---
{front.to_yaml()}
---

# {plain(name)}

An audio encoder{origin}: {count / 1e6:.2f}M parameters, {encoder.depth} blocks of {encoder.dim} dimensions.
{head}
{load(json.dumps(name, ensure_ascii=False), encoder, tagger)}
## Input

- **Audio**: mono at {frontend.sample_rate:,} Hz{converted}.
- **Spectrogram**: {encoder.frontend.title}, {frontend.mel_bins} mel bins from {frontend.f_min:,g} to {top:,g} Hz, a \
frame every {1000 * frontend.hop_length / frontend.sample_rate:.4g} ms, scaled {norms[frontend.norm]}.
- **Clip**: {clip}

## Training

- **Data**: {plain(facts.data or UNKNOWN)}{digest}
- **Training clips**: {count_of(facts.clips)}
- **Recipe**: {plain(facts.recipe or UNKNOWN)}
- **Steps**: {count_of(facts.steps)}
- **Seed**: {UNKNOWN if facts.seed is None else facts.seed}
- **Software**: {software or UNKNOWN}
{settings}
## Results

{results_table(facts)}
## Limits

{bullets(limit_lines(encoder, tagger))}
## Licence

- **Weights**: {OPEN}; say so at the top of this file as well, in `license`.
- **Training recordings**: [where they came from, and under which licences]
- **Contact**: [who answers questions]

## Weights

{bullets(weights)}"""


def is_licensed(card: str) -> bool:
    """Whether the user has filled in a card's licence, or taken it out; AudiobatError for a broken front matter."""
    unfilled = (OPEN, [OPEN.strip("[]")])  # a list where the user dropped the quotes
    return _parsed(card).data.get("license") not in unfilled


def without_licence(card: str) -> str:
    """The card without a licence in its front matter."""
    parsed = _parsed(card)
    parsed.data.pop("license")
    return str(parsed)


def _parsed(card: str) -> ModelCard:
    from huggingface_hub import ModelCard

    try:
        return ModelCard(card)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise AudiobatError(f"{CARD}: the lines between its --- are no fields in YAML ({problem}): fix them.") from None


def threshold_lines(tagger: Tagger) -> str:
    """The thresholds of the classes and how they are used, where there are any."""
    config = tagger.config
    if not config.thresholds:
        return ""
    filtered = ""
    if config.task == "frame" and config.median is not None and config.median > 1:
        filtered = f", after a median filter of {config.median} frames"
    named = some([f"{name} {value:g}" for name, value in zip(config.classes, config.thresholds, strict=True)])
    return f"A class is found where its score is above its own threshold{filtered}: {named}.\n"


def loading(quoted: str, encoder: BaseEncoder, tagger: Tagger | None) -> str:
    """Code that loads the folder by audiobat."""
    own_code = user_classes(encoder.release_fields() | ({"tagger": to_dict(tagger.config)} if tagger else {}))
    trust = ", trust_remote_code=True" if own_code else ""
    text = "It runs the Python in `code/`: read that before you trust it.\n\n" if own_code else ""
    text += f"""```python
import audiobat

encoder = audiobat.load({quoted}{trust})  # this folder, or "hub:OWNER/NAME" once it is shared
vector = encoder.embed("recording.wav")  # [{encoder.dim}]: any length, rate and number of channels
```
"""
    if tagger is None:
        return text
    return f"""{text}
```python
from audiobat.zoo.release import load_tagger

tagger = load_tagger({quoted}{trust})
probabilities = tagger.scores(tagger(waveform))  # waveform [B, S] to [B, {len(tagger.classes)}]
```

```
audiobat predict --model {quoted} --data recordings/ --out labels.csv
```
"""


def loading_by_transformers(quoted: str, encoder: BaseEncoder, tagger: Tagger | None) -> str:
    """Code that loads the folder by transformers."""
    auto, line = "AutoModel", f"vector = model(**inputs).pooler_output  # [1, {encoder.dim}]"
    if tagger is not None:
        auto, line = "AutoModelForAudioClassification", f"logits = model(**inputs).logits  # [1, {len(tagger.classes)}]"
    return f"""The code of the model lies beside it: read `modeling_audiobat.py` before you trust it.

```python
from transformers import AutoFeatureExtractor, {auto}

extractor = AutoFeatureExtractor.from_pretrained({quoted}, trust_remote_code=True)
model = {auto}.from_pretrained({quoted}, trust_remote_code=True)
inputs = extractor([waveform], sampling_rate={encoder.sample_rate}, return_tensors="pt")  # mono, in [-1, 1]
{line}
```
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first row holds the headings."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in rows]
    return "".join((lines[0], "| --- " * len(rows[0]) + "|\n", *lines[1:]))


def results_table(facts: Facts) -> str:
    """Every metric with its interval and seeds, the definition of each, and the figure of layers."""
    if not facts.results:
        return f"{UNKNOWN.capitalize()}.\n"
    rows: list[tuple[str, ...]] = [("data", "head", "metric", "value [95% interval]", "seeds", "test clips")]
    for r in facts.results:
        value, low, high = ("n/a" if n is None else f"{n:.3f}" for n in (r.value, r.low, r.high))
        seeds = ", ".join(map(str, r.seeds))
        named = (plain(r.data), plain(r.head), plain(r.metric))
        rows.append((*named, f"{value} [{low}, {high}]", seeds, count_of(r.clips)))
    meanings = dict.fromkeys(f"{plain(r.metric)}: {plain(r.definition)}." for r in facts.results)
    note = f"Intervals are over test clips; several seeds are averaged. {facts.results_note}".strip()
    text = f"{table(rows)}\n{note}\n\n{bullets(meanings)}"
    if facts.figure:
        text += f"\n![Gate weights of CGP and linear probes, block by block]({FIGURE})\n"
    return text


def limit_lines(encoder: BaseEncoder, tagger: Tagger | None) -> Iterator[str]:
    """What the model cannot do."""
    half = encoder.sample_rate / 2
    top = encoder.frontend.config.f_max or half
    yield f"What lies above {half:,g} Hz, half the sample rate, is not heard" + (
        f"; nor is what lies above {top:,g} Hz, where the mel bins end." if top < half else "."
    )
    if encoder.frontend.config.norm == "minmax":
        yield "Each clip is scaled to its own range, so how loud a recording is cannot be told."
    yield "It knows sounds like those it was trained on; others may be alike to it."
    if tagger is not None:
        yield "The head knows its classes and no others, and its scores are no calibrated probabilities."
        if not tagger.multi_label:
            yield "It names one of its classes for whatever it hears, silence too."
    yield "[what it should not be used for, as far as you know]"


def bullets(lines: Iterable[str]) -> str:
    """Lines as a list of Markdown."""
    return "".join(f"- {line}\n" for line in lines)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(plain, names[:SHOWN])) + more


def count_of(things: int | None) -> str:
    """A number with its thousands apart, where it was recorded."""
    return UNKNOWN if things is None else f"{things:,}"


def plain(text: str) -> str:
    """Text from a config or a record, so that it neither ends a table's cell nor becomes markup."""
    short = " ".join(text.split())
    short = short if len(short) <= 200 else short[:200] + "..."
    marks: dict[str, str | int | None] = {
        "\\": "\\\\",
        "&": "&amp;",
        "<": "&lt;",
        "|": "\\|",
        "`": "'",
        "[": "\\[",
        "]": "\\]",
    }
    return short.translate(str.maketrans(marks))
