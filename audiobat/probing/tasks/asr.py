"""Speech recognition: characters of what is said, by a small recogniser on all blocks (the ASR probe of BAT's release).

The clips have a column `text`. `probing/asr/` has the recogniser.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from audiobat.config import HeadConfig, ProbeTrainConfig, TaskConfig, check, warmup_hint
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.lists import check_column
from audiobat.data.split import Split
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics.words import edits_of, word_edits
from audiobat.evaluation.unit_scoring import UnitOutputs
from audiobat.models.features import Encoder
from audiobat.probing.asr.alphabet import ENGLISH, Alphabet, normal_text
from audiobat.probing.asr.head import Recogniser
from audiobat.probing.asr.training import Utterances, frames_per_column, recognise, train_recogniser
from audiobat.probing.tasks.base import ProbeTask, TaskFeatures


class SpeechRecognition(ProbeTask):
    """Trains a recogniser on the training clips' texts; finds the test clips' texts, greedily and by a beam search."""

    title = "Speech recognition"
    reads = "columns"
    labelled = False
    definitions: ClassVar[dict[str, str]] = {
        "wer": "words substituted, left out and put in over all true words; texts of the likeliest paths",
        "cer": "the same of characters, spaces among them",
        "wer_beam": "word errors of the likeliest text that a beam search finds, without dictionary or language model",
        "cer_beam": "the same of characters",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """A recogniser of characters on all blocks: BiLSTM and CTC."""

        column: str = "text"  # that holds what is said in a clip
        characters: str | None = ENGLISH  # that are told apart, besides the space; null: those of the training texts
        hidden: int = 512  # width of the LSTM, in each direction
        lstm_layers: int = 2
        upsample: int | None = None  # frames of a column of patches; null: of 20 ms each, as the release's 8 of 160 ms
        beam: int = 16  # beginnings of texts that the beam search keeps; ours
        steps: int = 20_000  # of the optimiser; ours, as all of the training
        warmup_steps: int = 2_000  # steps in which the rate rises
        batch_size: int = 32  # clips per step
        lr: float = 1e-3  # the highest, after the warm-up
        validate_every: int = 1_000  # steps between two looks at the clips that validate, under select.which best

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("hidden", "lstm_layers", "upsample", "beam", "steps", "batch_size", "lr", "validate_every"):
                value = getattr(self, name)
                check(value is None or value > 0, f"by_task.asr.{name}", value, "it must be positive")
            name = "by_task.asr.warmup_steps"
            check(self.warmup_steps >= 0, name, self.warmup_steps, "it must not be negative")
            hint = warmup_hint(name, self.steps, "by_task.asr.steps")
            check(self.warmup_steps < self.steps, name, self.warmup_steps, hint)
            given = self.characters or ""
            normal = given == given.lower() and not any(map(str.isspace, given)) and len(set(given)) == len(given)
            hint = "give each once, in lower case and without spaces, or null for those of the training texts"
            check(normal and self.characters != "", "by_task.asr.characters", given, hint)

    config: Config

    def __init__(self, config: Config, table: ClipTable, splits: Sequence[Split], texts: Sequence[str]) -> None:
        super().__init__(config, table, splits)
        self.texts = texts  # [n], normal

    @classmethod
    def draws(cls, config: Config) -> bool:
        """Whether a seed decides anything."""
        return True

    @classmethod
    def build(cls, config: Any, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError for clips without text, or with characters that are not among those to tell apart."""
        check_column("tasks has asr, but the list of clips", config.column, table.columns, "--by_task.asr.column")
        texts = [normal_text(text, config.characters) for text in table.columns[config.column].tolist()]
        if empty := [i for i, text in enumerate(texts) if not text]:
            raise AudiobatError(
                f"{len(empty):,} of {len(table):,} clips have no word in column `{config.column}`, such as "
                f"{table.keys[empty[0]]}: fill it in, or remove them."
            )
        task = cls(config, table, splits, texts)
        for split in splits:
            alphabet = task.alphabet(split)
            if config.characters is not None:
                alphabet.check(texts, f"column `{config.column}`")
            elif unknown := alphabet.unknown(texts[i] for i in split.test.tolist()):
                print(
                    f"! asr: {unknown.total():,} characters of test texts are in no training text and count as errors: "
                    f"{''.join(sorted(unknown))}",
                    file=sys.stderr,
                    flush=True,
                )
        return task

    def alphabet(self, split: Split) -> Alphabet:
        """The characters that are told apart."""
        if self.config.characters is not None:
            return Alphabet(self.config.characters)
        return Alphabet.of_texts(self.texts[i] for i in split.train.tolist())

    def check_model(self, encoder: Encoder) -> None:
        """Raise an AudiobatError for a model that gives one token a clip."""
        frames_per_column(encoder)

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """Error rates over the test clips of a fold; speakers, the column `group`, are drawn whole in resamples."""
        config, source, encoder = self.config, features.source, features.source.encoder
        said = Utterances(self.texts, self.alphabet(split))
        train = ProbeTrainConfig(
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            batch_size=config.batch_size,
            lr=config.lr,
            min_lr=min(1e-6, config.lr),
            order_seed=seed,
        )
        upsample = config.upsample or frames_per_column(encoder)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            head = Recogniser(
                encoder.dim, encoder.depth, len(said.alphabet), upsample, config.hidden, config.lstm_layers
            )
            best = train_recogniser(head, source, said, split, train, config.validate_every)
        if best is not None:
            print(
                f"asr, seed {seed}: step {best.step:,} of {config.steps:,} is kept, {best.rate:.3f} of the characters "
                f"wrong on {len(split.valid):,} valid clips",
                file=sys.stderr,
                flush=True,
            )
        true = said.of(split.test)
        greedy, searched = (recognise(head, source, split.test, said.alphabet, width) for width in (1, config.beam))
        words = word_edits(true, greedy)
        rates = (words, edits_of(true, greedy), word_edits(true, searched), edits_of(true, searched))
        values = self.values_of(split.test, words.edits / words.units.mean())  # whose mean is the rate
        keys = values.keys.tolist()
        return UnitOutputs(
            len(true),
            {name: edits.rate for name, edits in zip(self.definitions, rates, strict=True)},
            self.definitions,
            values,
            values.groups,
            ranges=dict.fromkeys(self.definitions, (0.0, math.inf)),  # more words may be wrong than there are
            lower=self.definitions,
            gate=head.gate_weights.detach().cpu(),
            listing=[
                ("path", self.config.column, "found", "found_by_beam", "words", "word_errors"),
                *zip(keys, true, greedy, searched, map(str, words.units), map(str, words.edits), strict=True),
            ],
        )

    def settings(self, head: HeadConfig) -> dict[str, Any]:
        """What its records say of it: its settings, and a digest of all texts."""
        own = super().settings(head)
        del own["layer"], own["pool"]  # it reads every block, and its columns
        return own | {"texts": hashlib.sha256("\n".join(self.texts).encode()).hexdigest()}
