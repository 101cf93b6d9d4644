"""Waveform to the features of every layer: frontend, patches, positions, cls token, gated post-norm blocks (Section 3).

Parameters carry timm's names, so that the public BAT weights load with no renaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.audio.frontend import KaldiFrontend, MelFrontend, build_frontend
from audiobat.audio.read import to_waveform
from audiobat.config import ModelConfig, check, to_dict
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.layers import Block, init_weights, init_weights_eat
from audiobat.models.patches import PatchEmbed, pad_frames, sincos_positions, valid_patches


class BaseEncoder(nn.Module):
    """Base of the encoders that `audiobat.load` gives: what one does with an encoder alone."""

    sample_rate: int
    dim: int
    depth: int
    frontend: MelFrontend | KaldiFrontend

    @property
    def rows(self) -> int:
        """Patches above one another in a column."""
        raise NotImplementedError

    def release_fields(self) -> dict[str, Any]:
        """What config.json of a release says of this encoder: all that `load` needs beside the weights."""
        raise NotImplementedError

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

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """As `forward_intermediates`."""
        return self.forward_intermediates(waveform, lengths)

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """As the `Encoder` protocol has it."""
        raise NotImplementedError

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
            pool: `mean` of the valid patches, or the `cls` token, of which pre-training asks little: its target is a
                mean of tokens that were standardised over the clip.
            layer: block to read, 1 to depth, or -1 for the last.
        """
        check(pool in ("mean", "cls"), "pool", pool, "choose mean or cls")
        check(layer == -1 or 1 <= layer <= self.depth, "layer", layer, f"use 1 to {self.depth}, or -1 for the last")
        waveform = to_waveform(source, sample_rate, self.sample_rate).to(next(self.parameters()).device)
        was_training = self.training
        self.eval()
        features = self.forward_intermediates(waveform[None])
        self.train(was_training)
        return pool_features(features, pool, layer)[0]


class AudioEncoder(BaseEncoder):
    """The student, the teacher, and what a release holds; meets the `Encoder` protocol."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        encoder = config.encoder
        self.sample_rate = config.frontend.sample_rate
        self.dim, self.depth = encoder.dim, encoder.depth
        self.frontend = build_frontend(config.frontend)
        self.patch_embed = PatchEmbed(encoder.dim, encoder.patch_size)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(config.grid, encoder.dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, encoder.dim))
        is_pre = encoder.block_norm == "pre"
        self.pre_norm = nn.Identity() if is_pre else nn.LayerNorm(encoder.dim, eps=1e-6)
        rates = torch.linspace(0, encoder.drop_path, encoder.depth).tolist()
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
    def from_pretrained(cls, name_or_folder: str | Path, device: str = "cpu") -> AudioEncoder:
        """As `audiobat.zoo.release.load`: shipped weights by name, a release or run folder, or `hub:OWNER/NAME`.

        Raises:
            AudiobatError: as for `load`; an encoder of another class, such as BEATs.
        """
        from audiobat.zoo.release import load

        encoder = load(name_or_folder, device)
        if not isinstance(encoder, cls):
            raise AudiobatError(f"{name_or_folder} holds a {type(encoder).__name__}: take it by audiobat.load.")
        return encoder

    @property
    def rows(self) -> int:
        """Patches above one another in a column."""
        return self.config.grid[1]

    def release_fields(self) -> dict[str, Any]:
        """The fields of a release of ours."""
        return {"model_type": "audiobat", "format": 1, **to_dict(self.config)}

    @property
    def max_samples(self) -> int:
        """Longest clip, in samples, that fits one window of the position table: n whole hops make n + 1 frames."""
        return self.config.encoder.max_frames * self.config.frontend.hop_length - 1

    def spectrogram(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, S] to one window's spectrogram and its valid patches.

        Returns the spectrogram [B, T * patch frames, F] of a multiple of the patch, at most `max_frames` long, and
        bool [B, N], False on padding that attention must not see; None when there is none.
        """
        spectrogram, frames = self.frontend(waveform, lengths)
        spectrogram = spectrogram[:, : self.config.encoder.max_frames]
        spectrogram = self._fit(spectrogram)
        if lengths is None or self.config.encoder.pad == "grid":
            return spectrogram, None
        patch_frames = self.config.encoder.patch_size[0]
        grid = spectrogram.shape[1] // patch_frames, self.config.grid[1]
        return spectrogram, valid_patches(frames, grid, patch_frames)

    def embed_patches(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram [B, T * patch frames, F] to patch tokens with their positions [B, N, D]."""
        tokens: Tensor = self.patch_embed(spectrogram)
        return tokens + self.pos_embed[:, : tokens.shape[1]]

    def run_blocks(self, patch_tokens: Tensor, valid: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Prepend cls to patch tokens [B, n, D] and yield (block, mlp) outputs [B, 1 + n, D] layer by layer."""
        valid = with_cls(valid)
        x = self._stem(patch_tokens)
        for layer, block in enumerate(self.blocks, start=1):
            x, mlp = block(x, valid)
            yield (self.norm(x) if layer == self.depth else x), mlp

    def encode_tokens(self, patch_tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Patch tokens [B, n, D], such as the visible ones, to the last block's output [B, 1 + n, D], cls first."""
        *_, (last, _) = self.run_blocks(patch_tokens, valid)
        return last

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Waveform [B, S] of any length to the block outputs of all layers.

        A clip longer than the position table runs in windows: patches are concatenated in time, cls is averaged over
        the windows that hold any of the clip, as in the release.
        """
        spectrogram, frames = self.frontend(waveform, lengths)
        return self.forward_spectrogram(spectrogram, None if lengths is None else frames)

    def forward_spectrogram(self, spectrogram: Tensor, frames: Tensor | None = None) -> LayerFeatures:
        """Spectrogram [B, T, F], of which each clip owns `frames` [B] (None: all), to the outputs of all blocks."""
        clips, longest, _ = spectrogram.shape
        windows, per_window = self._windows(longest)
        columns = windows * per_window
        spectrogram = self._fit(spectrogram)
        rows, patch_frames = self.config.grid[1], self.config.encoder.patch_size[0]
        own = spectrogram.new_full((clips,), longest, dtype=torch.int64) if frames is None else frames
        valid = valid_patches(own, (columns, rows), patch_frames)  # [B, N]
        in_windows = valid.reshape(clips * windows, per_window * rows)
        no_padding = frames is None and columns * patch_frames - longest < patch_frames
        keys = None if no_padding or self.config.encoder.pad == "grid" else in_windows
        x = self.embed_patches(spectrogram.reshape(clips * windows, per_window * patch_frames, -1))
        patches, cls = [], []
        for block, _ in self.run_blocks(x, keys):
            patches.append(block[:, 1:].reshape(clips, columns * rows, -1))
            cls.append(block[:, 0].reshape(clips, windows, -1))
        used = in_windows.any(1).reshape(clips, windows, 1)
        cls_token = (torch.stack(cls) * used).sum(2) / used.sum(1)
        return LayerFeatures(torch.stack(patches), cls_token, (columns, rows), valid, self.column_times(longest))

    def column_times(self, frames: int) -> Tensor:
        """Second [T] at which each patch column of a spectrogram of `frames` frames starts, from its own start."""
        windows, per_window = self._windows(frames)
        seconds = self.config.encoder.patch_size[0] * self.config.frontend.hop_length / self.sample_rate
        return torch.arange(windows * per_window, device=self.pos_embed.device) * seconds

    def attention_input(self, waveform: Tensor, layer: int = -1) -> tuple[nn.Module, Tensor]:
        """The attention module of block `layer` (1 to depth, or -1) and its input [B, 1 + N, D], to look at."""
        spectrogram, _ = self.spectrogram(waveform)
        x = self._stem(self.embed_patches(spectrogram))
        index = range(self.depth)[layer if layer < 0 else layer - 1]
        for block in list(self.blocks)[:index]:
            x, _ = block(x)
        block = self.blocks[index]
        return block.attn, block.norm1(x) if block.pre_norm else x  # type: ignore[return-value, operator]

    def _fit(self, spectrogram: Tensor) -> Tensor:
        """Pad the time axis to whole patches, or whole windows of the position table."""
        windows, per_window = self._windows(spectrogram.shape[1])
        frames = windows * per_window * self.config.encoder.patch_size[0]
        return pad_frames(spectrogram, frames, self.frontend.floor)

    def _windows(self, frames: int) -> tuple[int, int]:
        """How many windows hold `frames` frames, and the patch columns of each: those needed, or a whole table.

        There is no branch on the length, and no negative number that ONNX would round towards zero: an exported graph
        takes any length.
        """
        table, patch_frames = self.config.grid[0], self.config.encoder.patch_size[0]
        columns = (frames + patch_frames - 1) // patch_frames
        per_window = table if self.config.encoder.pad == "grid" else torch.sym_min(columns, table)
        return (columns + table - 1) // table, per_window

    def _stem(self, patch_tokens: Tensor) -> Tensor:
        """Prepend cls and normalise: [B, n, D] to [B, 1 + n, D]."""
        cls = self.cls_token.expand(patch_tokens.shape[0], -1, -1).to(patch_tokens.dtype)
        out: Tensor = self.pre_norm(torch.cat([cls, patch_tokens], dim=1))
        return out


def with_cls(valid: Tensor | None) -> Tensor | None:
    """Valid patches [B, n] to valid tokens [B, 1 + n]: cls is always valid."""
    return None if valid is None else torch.cat([valid.new_ones(valid.shape[0], 1), valid], dim=1)


def pool_features(features: LayerFeatures, pool: str = "mean", layer: int = -1) -> Tensor:
    """One vector per clip [B, D] from block `layer` (1 to L, or -1): its cls token or the mean of its patches."""
    index = layer if layer < 0 else layer - 1
    if pool == "cls":
        check(features.cls_token is not None, "pool", pool, "this model has no cls token, use mean")
        assert features.cls_token is not None
        return features.cls_token[index]
    weight = features.valid.to(features.patch_tokens.dtype).unsqueeze(-1)  # [B, N, 1]
    return (features.patch_tokens[index] * weight).sum(1) / weight.sum(1)
