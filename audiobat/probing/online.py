"""The encoder of a run probed while it is pre-trained: small heads on a few labelled clips, the same at every look.

In: labelled clips, and an encoder in the midst of its training. Out: accuracy, or mAP, of each head. What is probed is
a copy of the encoder, so that its mode, its compiled parts and its shards stay as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from audiobat.config import HeadConfig, OnlineConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import ClipBatch, check_skipped, load_clips
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.engine.memory import room_in_ram
from audiobat.engine.ranks import Ranks
from audiobat.engine.sharding import join
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds, task_for
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.cache import FeatureSource, pool
from audiobat.probing.encoding import EncodedCut, collect, encode
from audiobat.probing.feature_store import FLOAT_BYTES, FeatureStore, pack
from audiobat.probing.jobs import HeadJob, check_job
from audiobat.probing.training import input_kinds, predict_heads, train_heads, validation_score

BATCH = 16  # clips encoded at once
RATE, DECAY = 5e-3, 0.05  # of AdamW; the paper's 1e-3 would need 20,000 steps
CHOICE = 0  # seed of the clips that are drawn where there are more than `online.clips`


class OnlineProbe:
    """Called with the number of steps done, on every rank: the score of each head, by `online_KIND`, where one is due.

    Each look trains the same heads anew, from the same seeds, so that a run that resumes finds what it would have
    found. The clips are decoded once and stay in memory; each rank encodes its share of them, and rank 0 has the heads.
    """

    def __init__(self, config: OnlineConfig, encoder: AudioEncoder, steps: int, ranks: Ranks) -> None:
        """Read the clips of `config.data`, for a run of so many `steps` that trains `encoder`.

        Raises AudiobatError for clips without labels, too many unreadable ones, or more than the memory holds.
        """
        self.config, self.encoder, self.ranks, self.last = config, encoder, ranks, steps
        self.copy = copy.deepcopy(encoder).requires_grad_(False).to(ranks.device).eval()
        self.table, self.train, self.test = held_clips(config)
        self.task = task_for(ProbeConfig(task="clip"), self.table)
        train = ProbeTrainConfig(
            steps=config.steps,
            warmup_steps=config.steps // 10,
            batch_size=min(48, len(self.train)),
            lr=RATE,
            weight_decay=DECAY,
        )
        self.jobs = [
            HeadJob(kind, HeadConfig(prototypes=config.prototypes).with_kind(kind), train) for kind in config.heads
        ]
        for job in self.jobs:
            check_job(job, encoder.depth)
        self.keeps_patches = input_kinds(self.jobs, self.task) != {"means"}
        cuts = [np.arange(len(self.table))[first : first + BATCH] for first in range(0, len(self.table), BATCH)]
        self.heard = self.decode(cuts[ranks.rank :: ranks.world_size])
        skipped: dict[str, str] = {}
        for each in chain(*ranks.gather([batch.skipped for batch in self.heard])):
            skipped |= each
        check_skipped(skipped, len(self.table), len(self.table))
        self.rounds = -(-len(cuts) // ranks.world_size)

    @property
    def sentence(self) -> str:
        """What is probed when, for the log."""
        metric = "accuracy" if self.task.single_label else "mAP"
        return (
            f"Online probes every {self.config.every:,} steps: {metric} of {', '.join(self.config.heads)} on "
            f"{len(self.test):,} clips of {self.config.data}, {len(self.train):,} others train the heads."
        )

    def decode(self, cuts: list[ClipIds]) -> list[ClipBatch]:
        """The clips of this rank; AudiobatError where what is kept of them and of their features exceeds the memory."""
        heard, needs, room = [], 0.0, room_in_ram()
        column, high = self.copy.column_samples, self.copy.freq_patches
        for batch in load_clips(self.table, self.copy.sample_rate, cuts):
            columns = sum(math.ceil(length / column) for length in batch.lengths.tolist())
            patches = columns * high if self.keeps_patches else len(batch.clip_ids)
            needs += FLOAT_BYTES * (batch.waveform.numel() + patches * self.copy.depth * self.copy.dim)
            if needs > room:
                raise AudiobatError(
                    f"online.clips is {self.config.clips}, and the features of so many clips exceed this machine's "
                    f"memory: lower online.clips, or take shorter clips."
                )
            heard.append(batch)
        return heard

    def __call__(self, done: int) -> dict[str, float]:
        """The score of each head after `done` steps; nothing where no look is due. Every rank must call it."""
        if done % self.config.every and done != self.last:
            return {}
        with torch.no_grad():
            for own, trained in zip(tensors_of(self.copy), tensors_of(self.encoder), strict=True):
                own.copy_(join(trained))  # what is divided over the ranks comes together
        store, readable = FeatureStore(len(self.table)), np.zeros(len(self.table), bool)
        for place in range(self.rounds):
            for encoded in collect(self.encode(place), self.ranks):
                if encoded is not None and encoded.chunk is not None:
                    store.add(encoded.chunk)
                    readable[encoded.clip_ids] = True
        scores = self.score(store, np.flatnonzero(readable)) if self.ranks.is_main else {}
        return dict(self.ranks.gather(scores)[0])

    def encode(self, place: int) -> EncodedCut | None:
        """The features of this rank's batch of that place, if it has so many."""
        if place >= len(self.heard):
            return None
        batch, chunk = self.heard[place], None
        if len(batch.clip_ids):
            features = encode(self.copy, batch.waveform, batch.lengths, self.ranks.device)
            chunk = pack(features if self.keeps_patches else pool(features), batch.clip_ids)
        return EncodedCut(batch.clip_ids, batch.clip_ids, {}, chunk)

    def score(self, store: FeatureStore, readable: ClipIds) -> dict[str, float]:
        """Train the heads on features and test them; NaN where a head diverges."""
        high = self.copy.freq_patches if self.keeps_patches else 1
        source = FeatureSource(self.copy, self.table, readable, {}, store, self.ranks.device, high)
        train, test = (ids[np.isin(ids, readable)] for ids in (self.train, self.test))
        trainers, _ = train_heads(source, train, self.task, self.jobs, tolerant=True, progress=False)
        predicted = predict_heads(trainers, source, test, self.task)
        return {
            f"online_{trainer.job.name}": math.nan
            if trainer.diverged is not None
            else validation_score(logits, predicted.labels, trainer.loss, self.task)
            for trainer, logits in zip(trainers, predicted.logits, strict=True)
        }


def held_clips(config: OnlineConfig) -> tuple[ClipTable, ClipIds, ClipIds]:
    """The clips of `config.data` that are used, and which train and test: by splits, the first fold, or a hash."""
    assert config.data is not None
    table = read_labelled_clips(config.data)
    first = None if table.folds is None or table.splits is not None else int(table.folds.min())
    train, test = (some(ids, config.clips) for ids in split_for_probe(table, first))
    places = np.arange(len(train) + len(test))
    return table.select(np.concatenate([train, test])), places[: len(train)], places[len(train) :]


def some(clip_ids: ClipIds, count: int) -> ClipIds:
    """At most `count` of these clips, drawn at random, in their order."""
    if len(clip_ids) <= count:
        return clip_ids
    return np.sort(np.random.default_rng(CHOICE).choice(clip_ids, count, replace=False))


def tensors_of(encoder: AudioEncoder) -> Iterator[Tensor]:
    """All that changes in training."""
    return chain(encoder.parameters(), encoder.buffers())
