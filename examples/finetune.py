"""Fine-tune a shipped encoder into a tagger and let it label a clip that it has not heard.

    python examples/finetune.py                        # 1,000 steps on the demo's scenes: some three minutes
    python examples/finetune.py runs/mine clips.csv    # yours: columns path, label, and split or fold

Shows `audiobat.finetune`, the release that it leaves, and what a tagger says of a waveform, as a whole and over time.
"""

import sys
from pathlib import Path

import torch

import audiobat
from audiobat.audio.read import load_audio
from audiobat.config import FinetuneConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.scenes import write_scenes
from audiobat.data.sources.read import read_labelled_clips
from audiobat.zoo.release import load_tagger


def main(
    out: str | Path = "runs/examples/finetune",
    clips: str | Path | None = None,
    *,
    steps: int = 1000,
    scenes: int = 1200,
) -> dict[str, float]:
    """Train for `steps` steps and print the best labels of the last clip; returns the score of each label."""
    out = Path(out)
    if clips is None:
        clips = write_scenes(out / "scenes", clips_train=scenes, clips_test=scenes // 4)
    changes = {"train": {"steps": steps}, "optim": {"warmup_steps": steps // 10}}
    config = from_dict(FinetuneConfig, merge(load_recipe("finetune/demo"), changes))
    if not audiobat.finetune("bat_nano", clips, out / "run", config):
        sys.exit("Stopped before the end; run the same again, and it goes on.")

    table = read_labelled_clips(clips)
    last = len(table) - 1
    tagger = load_tagger(out / "run")
    waveform = torch.from_numpy(load_audio(table.path(last), tagger.sample_rate))
    with torch.no_grad():
        scores = tagger.scores(tagger(waveform[None]))[0]  # [C]
        frames, times = tagger.frames(waveform[None])  # [1, T, C], [T] seconds

    assert table.labels is not None
    labels = [table.classes[i] for i in table.labels.row(last)]
    print(f"{table.keys[last]} holds {', '.join(labels)}; it sounds like")
    for place in scores.topk(min(5, len(scores))).indices.tolist():
        loudest = times[frames[0, :, place].argmax()]
        print(f"  {tagger.classes[place]:<24} {scores[place]:.2f}, surest at {loudest:.1f} s")
    return dict(zip(tagger.classes, scores.tolist(), strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
