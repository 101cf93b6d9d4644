"""Audio-MAE's weights (timm's names) to an AudioEncoder: pre-norm blocks behind EAT's frontend; the decoder is dropped.

The names are those of Audio-MAE's public code. Files of pre-training have a `norm` behind the last block, which belongs
to the encoder; files of fine-tuning have an `fc_norm` of the mean, which belongs to the head.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from audiobat.engine.tensors import count_blocks
from audiobat.zoo.convert.eat import FBANK
from audiobat.zoo.convert.weights import Converted, Weights, linear_head, size, vit

LAYOUT = "Audio-MAE"
NO_PART = ("decoder_", "mask_token")  # the decoder's names begin so
STATISTICS = replace(FBANK, mean=-4.2677393, std=4.5689974)  # AudioSet's, with all digits of Audio-MAE's code


def matches(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is Audio-MAE's: a ViT of timm without a norm before the blocks."""
    return {"patch_embed.proj.weight", "pos_embed", "cls_token", "blocks.0.norm1.weight"} <= set(names) and (
        "pre_norm.weight" not in names
    )


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The encoder, and the head of a fine-tuned file.

    The position of cls, if it has one, is added to cls itself. A head of `fc_norm` reads the mean of all patches in
    Audio-MAE, padding included; here it reads the clip's own.

    Raises AudiobatError for a tensor that is missing, unexpected or of a shape that does not fit.
    """
    path = weights.path
    chosen = weights.chosen(teacher)
    tensors = {name: tensor for name, tensor in chosen.items() if not name.startswith(NO_PART)}
    left = tuple(name for name in chosen if name not in tensors)
    dim = size(tensors, "patch_embed.proj.weight", 4, path)[0]
    size(tensors, "pos_embed", 3, path)
    size(tensors, "cls_token", 3, path)
    table = tensors["pos_embed"].float()
    tensors["cls_token"] = tensors["cls_token"].float() + table[:, :1]  # our table has no position for cls
    tensors["pos_embed"] = table[:, 1:]
    final_norm, sizes = "norm.weight" in tensors, (dim, count_blocks(tensors))
    head = linear_head(tensors, ("head", "fc_norm"), sizes, "cls" if final_norm else "mean", {}, path)
    headless = [name for name in tensors if name.startswith("fc_norm.")]  # timm keeps the norm where it drops the head
    tensors = {name: tensor for name, tensor in tensors.items() if name not in headless}
    left = (*left, *headless)
    model = vit(weights, tensors, STATISTICS, gated_attention=False, block_norm="pre", final_norm=final_norm)
    return Converted(LAYOUT, model.eval(), head, (*left, *weights.left))
