"""One fine-tuning from its newest checkpoint, or from step 0, to its end: the head alone first if asked, then all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import monotonic

from audiobat.config import FinetuneConfig, to_dict
from audiobat.data.loader import CropLoader
from audiobat.data.skipped import SkippedList
from audiobat.data.split import Split
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import fit
from audiobat.engine.ranks import Ranks
from audiobat.errors import Stopped
from audiobat.finetuning.crops import Crops
from audiobat.finetuning.layer_rates import build_adamw, own_encoder
from audiobat.finetuning.prior import drawn_shares, start_at_prior
from audiobat.finetuning.step import Finetuning
from audiobat.finetuning.testing import Evaluator, Work
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import recompute_blocks
from audiobat.models.tagger import Tagger


def train_fold(
    folder: Path,
    tagger: Tagger,
    evaluator: Evaluator,
    split: Split,
    crops: Crops,
    config: FinetuneConfig,
    work: Work,
    max_seconds: float | None,
) -> Finetuning | None:
    """Train `tagger` on the training clips, and keep the weights that are best on validation clips, if there are any.

    Each phase ends with a checkpoint, from which the next one starts as a run that was stopped there would.

    Args:
        folder: of this fold's checkpoints and logs.
        tagger: the encoder with a head to train.
        evaluator: validates.
        split: the clips.
        crops: of those that train.
        config: of the run.
        work: what the run took so far; grows.
        max_seconds: stop, with a checkpoint, after this long.

    Returns:
        The trained module in eval mode; None if its time was up before.

    Raises:
        Stopped: a signal came; there is a checkpoint.
    """
    ranks, begun = evaluator.ranks, monotonic()
    checkpoint = load_checkpoint(folder)
    start = checkpoint.step if checkpoint else 0
    skipped = SkippedList(folder / "skipped.csv", ranks)
    evaluator.skipped.update(skipped.clips)
    with RunLog(folder, start, main=ranks.is_main, sinks=config.train.log_to, config=to_dict(config)) as log:

        def validate(candidate: Tagger, step: int) -> float:
            found = evaluator.validate(candidate, split.valid)
            log.write({"step": step, **{f"valid_{name}": value for name, value in found.items()}})
            return next(iter(found.values()))

        if config.train.bias == "prior" and evaluator.loss != "ce" and not config.keep_head:
            start_at_prior(tagger.head, drawn_shares(crops.table, crops.task, crops.data))
        model = Finetuning(
            tagger,
            crops.task,
            evaluator.loss,
            config,
            validate if len(split.valid) else None,
        ).to(ranks.device)
        recompute_blocks(model.tagger, config.train.recompute)
        model.freeze(False)
        optimizer = build_adamw(model.tagger, config.optim)
        log.say(f"Fine-tuning on {len(split.train)} clips, {config.train.steps} steps, from step {start}, in {folder}.")
        clips = crops.table.sha256()
        if checkpoint is not None and checkpoint.extra.get("clips") != clips:
            log.say(f"Warning: {config.data.path} has other clips than before step {start}: their order changes.")
        for end in (config.train.freeze_steps, config.train.steps):
            if start >= end and end < config.train.steps:
                continue
            frozen = end < config.train.steps
            model.freeze(frozen)
            left = None if max_seconds is None else max(0.0, max_seconds - (monotonic() - begun))
            loader = loader_for(crops, own_encoder(tagger), config, ranks, start)
            try:
                result = fit(
                    model,
                    optimizer,
                    loader,
                    config.train,
                    config.optim,
                    log=log,
                    ranks=ranks,
                    until=end,
                    max_seconds=left,
                    resume=checkpoint,
                    extra={"clips": clips},
                    after_step=model.after_step,
                    before_save=partial(gather_skipped, skipped, loader, evaluator),
                    phase="train the head" if frozen else "fine-tune",
                )
            finally:
                skipped.add(evaluator.skipped | loader.skipped)
                evaluator.skipped.update(skipped.clips)
            work.clips += (result.step - start) * config.train.batch_size
            if result.stopped:
                raise Stopped  # the log has said so
            if result.step < end:
                return None
            checkpoint, start = load_checkpoint(folder), result.step
    work.training += monotonic() - begun
    return model.eval()


def gather_skipped(skipped: SkippedList, loader: CropLoader, evaluator: Evaluator) -> None:
    """Add the clips that training and validation could not read on any rank."""
    skipped.gather(evaluator.skipped | loader.skipped)


def loader_for(crops: Crops, encoder: AudioEncoder, config: FinetuneConfig, ranks: Ranks, start: int) -> CropLoader:
    """Random crops of the training clips from step `start` on."""
    return CropLoader(
        crops.table,
        encoder.sample_rate,
        config.data.clip_seconds,
        crops.order,
        config.train.batch_size,
        seed=config.train.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=config.data.workers,
        start_step=start,
    )
