"""Waveform to the features of every block: frontend, patches, positions, cls token, gated post-norm blocks (Section 3).

In: waveforms [B, S] and their lengths. Out: `LayerFeatures`; of patch tokens [B, n, D], the tokens of the last block.
Parameters carry timm's names, so that the public BAT weights load with no renaming. Pre-training, fine-tuning and
inference share `cut_windows`, which alone decides where a clip is padded and what attention sees of the padding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.audio.frontends.base import Frontend, build_frontend
from audiobat.audio.read import to_waveform
from audiobat.config import ModelConfig, check, to_dict
from audiobat.engine.chunks import rows_at_once
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures, block_numbers, join_clips
from audiobat.models.layers import Block, init_weights, init_weights_eat
from audiobat.models.patches import PatchEmbed, count_columns, pad_frames, sincos_positions, valid_patches
from audiobat.models.rotary import Places, places_of

ENDLESS = 2**31 - 1  # patch columns: more than any clip has


class BaseEncoder(nn.Module):
    """An encoder of this package: called on waveforms, it answers with the features of its blocks.

    A subclass sets the attributes and writes `forward_intermediates`; `release_fields` too, if a release can hold it.
    """

    sample_rate: int  # Hz
    dim: int
    depth: int
    frontend: Frontend

    @property
    def freq_patches(self) -> int:
        """Patches above one another in a patch column: the F of a grid (T, F)."""
        raise NotImplementedError

    def release_fields(self) -> dict[str, Any]:
        """The fields of a release's config.json: all that `load` needs beside the weights.

        Raises AudiobatError for an encoder that no release can hold.
        """
        raise AudiobatError(f"A {type(self).__name__} cannot be saved as a release: load it from where it came from.")

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write a release: config.json, model.safetensors and README.md, whole or not at all.

        Args:
            folder: where; made if need be.
            overwrite: replace the release that is there.

        Raises:
            AudiobatError: something is there, the weights are not finite, or nothing can be written there.
        """
        from audiobat.zoo.release import save_new

        save_new(folder, self, overwrite)

    def forward(
        self, waveform: Tensor, lengths: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """Waveform [B, S] to features: the same as `forward_intermediates`, with the module's hooks."""
        return self.forward_intermediates(waveform, lengths, indices)

    def forward_intermediates(
        self, waveform: Tensor, lengths: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """Turn a batch of waveforms into the outputs of the blocks.

        timm's method of this name gives a list of tensors; this one gives `LayerFeatures`, whose first axis is the
        block, because the cls token and the mask of padding belong to the patch tokens.

        Args:
            waveform: [B, S] at `sample_rate`, in [-1, 1].
            lengths: samples of each clip [B], from 1 to S; None: all S.
            indices: which blocks, as in timm: None all, a number n the last n, a list those of these numbers, from 0
                or, negative, from the end. They come in the model's order; blocks behind the last of them do not run.

        Raises:
            AudiobatError: the waveform is not [B, S] or empty; a block that the model does not have.
        """
        raise NotImplementedError

    def forward_layers(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """The old name of `forward_intermediates`, which version 0.2 will not have."""
        warnings.warn(
            "forward_layers is called forward_intermediates now; audiobat 0.2 will not have the old name.",
            FutureWarning,
            stacklevel=2,
        )
        return self.forward_intermediates(waveform, lengths)

    @torch.no_grad()
    def embed(
        self,
        source: str | Path | bytes | BinaryIO | NDArray[Any] | Tensor,
        sample_rate: int | None = None,
        pool: Literal["mean", "cls"] = "mean",
        layer: int = -1,
    ) -> Tensor:
        """One vector [D] for a file or an array of any length, rate and channel count.

        Args:
            source: path, bytes, file object, or an array [S] or [channels, S] with its `sample_rate` in Hz.
            sample_rate: of an array; files bring their own.
            pool: `mean` of the valid patches, or the `cls` token. Prefer the mean: pre-training asks little of cls,
                whose target is the mean of tokens that were standardised over the clip (Eq. 6).
            layer: block to read, 1 to depth, or -1 for the last.

        Raises:
            AudiobatError: audio that cannot be read, an array without a rate, an unknown pool or layer.
        """
        check(pool in ("mean", "cls"), "pool", pool, "choose mean or cls")
        check(layer == -1 or 1 <= layer <= self.depth, "layer", layer, f"use 1 to {self.depth}, or -1 for the last")
        own = next(chain(self.parameters(), self.buffers()))  # a file for another program has no parameters here
        waveform = to_waveform(source, sample_rate, self.sample_rate).to(own.device)
        was_training = self.training
        self.eval()
        features = self.forward_intermediates(waveform[None], indices=[layer if layer < 0 else layer - 1])
        self.train(was_training)
        return pool_features(features, pool)[0]


class Windows(NamedTuple):
    """Spectrograms of B clips cut into W windows each, which run through the blocks as B * W short clips."""

    spectrogram: Tensor  # [B * W, frames, mel bins], whole patches; behind a clip's end the frontend's floor
    valid: Tensor  # [B * W, N] bool, True on patches of the clip
    attended: Tensor | None  # bool [B * W, N], False on patches that attention must not see; None if it may see all
    grid: tuple[int, int]  # patches of a whole clip, (T, F), of which the last window may hold fewer than the others

    def joined(self, tokens: Tensor) -> Tensor:
        """What the patches of windows have, [B * W, N, ...], as that of clips: [B, T * F, ...]."""
        columns, freq_patches = self.grid
        count = (columns * freq_patches + tokens.shape[1] - 1) // tokens.shape[1]  # W
        clips: Tensor = tokens.unflatten(0, (-1, count)).flatten(1, 2)
        return clips[:, : columns * freq_patches]


class AudioEncoder(BaseEncoder):
    """The student, the teacher, and what a release holds; meets the `Encoder` protocol."""

    num_prefix_tokens = 1  # timm's name: tokens before the patches, here cls

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        encoder = config.encoder
        self.sample_rate = config.frontend.sample_rate
        self.dim, self.depth = encoder.dim, encoder.depth
        self.frontend = build_frontend(config.frontend)
        self.patch_embed = PatchEmbed(encoder.dim, encoder.patch_size, encoder.patch_init)
        self.pos_embed: Tensor
        # Part of a release's weights: files of other projects bring tables of their own. Under rotary positions that of
        # one column, which says how high a patch is: attention then tells distances alone.
        self.register_buffer("pos_embed", sincos_positions(config.position_grid, encoder.dim, encoder.positions))
        self.cls_token = nn.Parameter(torch.empty(1, 1, encoder.dim))
        is_pre = encoder.block_norm == "pre"
        self.pre_norm = nn.Identity() if is_pre else nn.LayerNorm(encoder.dim, eps=1e-6)
        rates = torch.linspace(0, encoder.drop_path, encoder.depth, device="cpu").tolist()  # deeper: dropped more often
        self.blocks = nn.ModuleList(
            Block(
                encoder.dim, encoder.heads, encoder.mlp_ratio, encoder.gated_attention, encoder.gate_bias, rate, is_pre
            )
            for rate in rates
        )
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-6) if encoder.final_norm else nn.Identity()
        is_eat = encoder.init == "eat"
        self.blocks.apply(init_weights_eat if is_eat else init_weights)
        nn.init.normal_(self.cls_token, std=1.0 if is_eat else 0.02)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: str = "cpu", trust_remote_code: bool = False
    ) -> AudioEncoder:
        """As `audiobat.zoo.release.load`: shipped weights by name, a release or run folder, or `hub:OWNER/NAME`.

        Raises:
            AudiobatError: as for `load`; an encoder of another class, such as BEATs.
        """
        from audiobat.zoo.release import load

        encoder = load(name_or_folder, device, trust_remote_code)
        if not isinstance(encoder, cls):
            raise AudiobatError(f"{name_or_folder} holds a {type(encoder).__name__}: load it by audiobat.load.")
        return encoder

    @property
    def freq_patches(self) -> int:
        """Patches above one another in a patch column."""
        return self.config.grid[1]

    def release_fields(self) -> dict[str, Any]:
        """The fields of a release of this encoder: its whole config."""
        return {"model_type": "audiobat", "format": 1, **to_dict(self.config)}

    @property
    def max_samples(self) -> int:
        """Longest clip, in samples, that fits one window of the position table: n whole hops make n + 1 frames."""
        return self.config.encoder.max_frames * self.config.frontend.hop_length - 1

    @property
    def window_columns(self) -> int:
        """Most patch columns that run at once: those of `max_frames`; under rotary positions all that a clip has."""
        return ENDLESS if self.config.encoder.positions == "rotary" else self.config.grid[0]

    @property
    def column_samples(self) -> int:
        """Samples from the start of a patch column to the start of the next."""
        return self.config.encoder.patch_size[0] * self.config.frontend.hop_length

    def forward_intermediates(
        self, waveform: Tensor, lengths: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """As `BaseEncoder` says, for clips of any length.

        A clip longer than the position table runs in windows of as many columns and, last, of those that are left;
        frames behind a whole window that fill no patch make no column. Patches are concatenated in time. The clip's cls
        is the mean over its windows: with `pad` "grid" as in BAT's release, whatever their length; with "mask" weighted
        by it, so that one more column moves cls by its share at most. Under rotary positions it runs as a whole, its
        last patch counts wherever it is begun, and patches attend to those less than `max_frames` away.
        """
        spectrogram, frames = self.frontend(waveform, lengths)
        # A look at lengths on a device would wait for it, and a graph has no branch on their values.
        can_look = lengths is not None and lengths.device.type == "cpu" and not torch.compiler.is_compiling()
        if lengths is None or (can_look and self.end_together(lengths, waveform.shape[1])):
            return self.forward_spectrogram(spectrogram, None, indices)
        return self.forward_spectrogram(spectrogram, frames, indices)

    def forward_spectrogram(
        self, spectrogram: Tensor, frames: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """As `forward_intermediates`, from a spectrogram [B, T, F] of which each clip owns `frames` [B] (None: all).

        Without gradients a CPU runs a few clips at a time, so that what lies between two layers stays in its caches.
        """
        chosen = block_numbers(self.depth, indices)
        if spectrogram.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._run(spectrogram, frames, chosen)
        columns, _ = self._columns(spectrogram.shape[1])
        size = rows_at_once(1 + columns * self.freq_patches, self.dim, spectrogram.device)
        parts = spectrogram.split(size)
        own = [None] * len(parts) if frames is None else frames.split(size)
        return join_clips([self._run(*part, chosen) for part in zip(parts, own, strict=True)])

    def _run(self, spectrogram: Tensor, frames: Tensor | None, chosen: Sequence[int]) -> LayerFeatures:
        """The features of all clips at once, of the blocks `chosen`, from 0 and in order."""
        clips, longest, _ = spectrogram.shape
        windows = self.cut_windows(spectrogram, frames)
        tokens = self.embed_patches(windows.spectrogram)  # [B * W, N, D]
        patches, cls = [], []
        for number, (block, _) in enumerate(islice(self.run_blocks(tokens, windows.attended), chosen[-1] + 1)):
            if number in chosen:
                patches.append(windows.joined(block[:, 1:]))
                cls.append(block[:, 0].reshape(clips, -1, self.dim))  # [B, W, D]
        weight = windows.valid.sum(1).reshape(clips, -1, 1)  # [B, W, 1]; 0 behind a clip's end, where all is padding
        if self.config.encoder.pad == "grid":
            weight = weight > 0
        share = (weight / weight.sum(1, keepdim=True)).to(cls[0].dtype)
        cls_token, valid = (torch.stack(cls) * share).sum(2), windows.joined(windows.valid)
        return LayerFeatures(torch.stack(patches), cls_token, windows.grid, valid, self.column_times(longest))

    def spectrogram(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, S] to the spectrogram of one window, of which pre-training masks patches.

        Returns the spectrogram [B, frames, mel bins] of whole patches, cut at `max_frames`, and bool [B, N], False on
        padding that neither attention nor the loss may see; None if they may see every patch.
        """
        spectrogram, frames = self.frontend(waveform, lengths)
        spectrogram = spectrogram[:, : self.config.encoder.max_frames]
        window = self.cut_windows(spectrogram, None if lengths is None else frames)
        return window.spectrogram, window.attended

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Frames [B] of clips of `lengths` [B] samples, those of `frontend.pad_seconds` among them."""
        return self.frontend.frame_counts(lengths.clamp(min=self.config.frontend.pad_samples))

    def count_columns(self, lengths: Tensor) -> Tensor:
        """Patch columns [B] of clips of `lengths` [B] samples that are no padding."""
        return count_columns(self.frame_counts(lengths), self.config.encoder.patch_size[0], self.window_columns)

    def end_together(self, lengths: Tensor, samples: int) -> bool:
        """Whether clips of `lengths` [B] samples, on the CPU, end in the patch column in which `samples` samples end.

        Then no patch of the batch is padding.
        """
        columns = self.count_columns(torch.cat([lengths, lengths.new_tensor([samples])]))
        return bool((columns == columns[-1]).all())

    def cut_windows(self, spectrogram: Tensor, frames: Tensor | None) -> Windows:
        """Cut a spectrogram [B, T, F], of which each clip owns `frames` [B] (None: all T), into padded windows."""
        clips, longest, bins = spectrogram.shape
        patch_frames, table = self.config.encoder.patch_size[0], self.window_columns
        is_grid = self.config.encoder.pad == "grid"
        columns, per_window = self._columns(longest)
        count = (columns + table - 1) // table  # W
        own = spectrogram.new_full((clips,), longest, dtype=torch.int64) if frames is None else frames
        valid = valid_patches(own, (count * per_window, self.freq_patches), patch_frames, table)
        attended = None
        # Without a mask, attention takes a faster kernel. A last patch that is padded in part is valid.
        has_padding = frames is not None or count * per_window - columns > 0
        if has_padding and not is_grid:
            attended = valid
        elif has_padding and (torch.compiler.is_exporting() or count > 1):  # a graph has no branch on the length
            # A short clip's padding is seen; the last window of a long one has none.
            attended = valid | (torch.arange(valid.shape[1], device=valid.device) < table * self.freq_patches)
        spectrogram = pad_frames(spectrogram, count * per_window * patch_frames, self.frontend.floor)
        return Windows(
            spectrogram.reshape(clips * count, per_window * patch_frames, bins),
            valid.reshape(clips * count, -1),
            None if attended is None else attended.reshape(clips * count, -1),
            (columns, self.freq_patches),
        )

    def embed_patches(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram [B, frames, mel bins] of whole patches to patch tokens with their positions [B, N, D]."""
        tokens: Tensor = self.patch_embed(spectrogram)
        table, count = self.pos_embed, tokens.shape[1]  # time-major: the first columns are the first positions
        if self.config.position_grid == self.config.grid:  # no window is longer
            return tokens + table[:, :count]
        return tokens + table[:, torch.arange(count, device=table.device) % table.shape[1]]

    def run_blocks(
        self, patch_tokens: Tensor, valid: Tensor | None = None, patches: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Prepend cls to patch tokens [B, n, D] and yield (block, mlp) outputs [B, 1 + n, D] block by block.

        Args:
            patch_tokens: [B, n, D], with what `embed_patches` adds to them.
            valid: [B, n], False on tokens that attention must not see; None: it sees all.
            patches: numbers [B, n] of the tokens in their clip's grid, which rotary positions are made of; [1, n] where
                they are the same in all clips; None: the tokens are whole clips, in order.
        """
        valid, places = with_cls(valid), self.places(patch_tokens.shape[1], patches)
        x = self._stem(patch_tokens)
        for number, block in enumerate(self.blocks, start=1):
            x, mlp = block(x, valid, 0, places)
            yield (self.norm(x) if number == self.depth else x), mlp

    def places(self, count: int, patches: Tensor | None = None) -> Places | None:
        """Rotary positions of cls and `count` patches, by their numbers or, None, of whole clips; None without them."""
        encoder = self.config.encoder
        if encoder.positions != "rotary":
            return None
        rows, reach = self.freq_patches, None
        if patches is None:
            patches = torch.arange(count, device=self.pos_embed.device)[None]
            longest = self.config.grid[0] * rows
            if torch.compiler.is_exporting() or count > longest:  # a graph has no branch on the length
                reach = longest
        return places_of(patches, rows, encoder.dim // encoder.heads, reach)

    def encode_tokens(self, patch_tokens: Tensor, valid: Tensor | None = None, patches: Tensor | None = None) -> Tensor:
        """Patch tokens [B, n, D], such as the visible ones, to the last block's output [B, 1 + n, D], cls first.

        `valid` and `patches` as in `run_blocks`. Raises AudiobatError without `patches` under rotary positions, where
        nothing else tells of tokens that were chosen among a clip's which they are.
        """
        if patches is None and self.config.encoder.positions == "rotary":
            raise AudiobatError(
                "encode_tokens does not know which patches it has, and encoder.positions is rotary: give it their "
                "numbers, such as masks.visible, as `patches`."
            )
        *_, (last, _) = self.run_blocks(patch_tokens, valid, patches)
        return last

    def column_times(self, frames: int) -> Tensor:
        """Second [T] at which each patch column of a spectrogram of `frames` frames starts, from its own start."""
        count, _ = self._columns(frames)
        return torch.arange(count, device=self.pos_embed.device) * (self.column_samples / self.sample_rate)

    def attention_input(self, waveform: Tensor, layer: int = -1) -> tuple[nn.Module, Tensor]:
        """The attention module of block `layer` (1 to depth, or -1) and its input [B, 1 + N, D], to look at."""
        spectrogram, _ = self.spectrogram(waveform)
        x = self._stem(self.embed_patches(spectrogram))
        index = range(self.depth)[layer if layer < 0 else layer - 1]
        for block in list(self.blocks)[:index]:
            x, _ = block(x, None, 0, self.places(x.shape[1] - 1))
        block = self.blocks[index]
        return block.attn, block.norm1(x) if block.pre_norm else x  # type: ignore[return-value, operator]

    def _columns(self, frames: int) -> tuple[int, int]:
        """The patch columns of a clip of `frames` frames, and of each window over it: as many, or a whole table.

        The same as `count_columns`, of a number that an exported graph does not know: there is no branch on it, and no
        negative number that ONNX would round towards zero.
        """
        table, patch_frames = self.window_columns, self.config.encoder.patch_size[0]
        padded = torch.sym_min((frames + patch_frames - 1) // patch_frames, table)
        columns = torch.sym_max(padded, frames // patch_frames)
        return (torch.sym_max(columns, table), table) if self.config.encoder.pad == "grid" else (columns, padded)

    def _stem(self, patch_tokens: Tensor) -> Tensor:
        """Prepend cls and normalise: [B, n, D] to [B, 1 + n, D]."""
        cls = self.cls_token.expand(patch_tokens.shape[0], -1, -1).to(patch_tokens.dtype)
        out: Tensor = self.pre_norm(torch.cat([cls, patch_tokens], dim=1))
        return out


def with_cls(valid: Tensor | None) -> Tensor | None:
    """Valid patches [B, n] to valid tokens [B, 1 + n]: cls is always valid."""
    return None if valid is None else torch.cat([valid.new_ones(valid.shape[0], 1), valid], dim=1)


def pool_features(features: LayerFeatures, pool: str = "mean", layer: int = -1) -> Tensor:
    """One vector per clip [B, D] from block `layer` (1 to L, or -1): its cls token or the mean of its valid patches.

    Raises AudiobatError if cls is asked of a model that has none.
    """
    index = layer if layer < 0 else layer - 1
    if pool == "cls":
        check(features.cls_token is not None, "pool", pool, "this model has no cls token, use mean")
        assert features.cls_token is not None
        return features.cls_token[index]
    weight = features.valid.to(features.patch_tokens.dtype).unsqueeze(-1)  # [B, N, 1]
    return (features.patch_tokens[index] * weight).sum(1) / weight.sum(1)
