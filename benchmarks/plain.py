"""One pre-training step written plainly, as code around EAT and data2vec is: what ours is measured and tested against.

Attention forms softmax(Q K^T) V of whole matrices, clones are repeated copies of a clip's tokens, the decoder predicts
every cell of which the loss takes the masked ones, the teacher's layers are stacked before they are averaged, masks are
drawn clone by clone and block by block, AdamW has PyTorch's defaults, and the teacher follows parameter by parameter.

It knows of audiobat the sizes in a config alone. Its parts and parameters are named as those of
`MaskedLatentRegression`, so that `load_state_dict` takes that objective's weights.
"""

from __future__ import annotations

import copy
import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import FrontendConfig, PretrainConfig


class Attention(nn.Module):
    """Gated multi-head attention (Eq. 12-14)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.gate = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        clips, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(clips, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, H, N, d] each
        scores = q @ k.transpose(-2, -1) / math.sqrt(dim // self.heads)  # [B, H, N, N]
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, :], -math.inf)
        out = scores.softmax(dim=-1) @ v
        out = out.transpose(1, 2).reshape(clips, tokens, dim)
        return self.proj(torch.sigmoid(self.gate(x)) * out)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A post-norm block (Eq. 1-4)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = self.norm1(x + self.attn(x, valid))
        return self.norm2(x + self.mlp(x))


class Patches(nn.Module):
    def __init__(self, dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch_size, stride=patch_size)

    def forward(self, spectrogram: Tensor) -> Tensor:
        return self.proj(spectrogram[:, None]).flatten(2).transpose(1, 2)  # [B, N, D]


class Encoder(nn.Module):
    """The student, and its copy the teacher."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        e, (columns, rows) = config.encoder, config.model.grid
        self.patch_embed = Patches(e.dim, e.patch_size)
        self.register_buffer("pos_embed", torch.zeros(1, columns * rows, e.dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, e.dim))
        self.pre_norm = nn.LayerNorm(e.dim, eps=1e-6)
        self.blocks = nn.ModuleList(Block(e.dim, e.heads, e.mlp_ratio) for _ in range(e.depth))

    def embed(self, spectrogram: Tensor) -> Tensor:
        tokens = self.patch_embed(spectrogram)
        return tokens + self.pos_embed[:, : tokens.shape[1]]

    def layers(self, tokens: Tensor, valid: Tensor | None) -> list[Tensor]:
        """The output of every block [B, 1 + n, D], cls first."""
        if valid is not None:
            valid = torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1)
        x = self.pre_norm(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1))
        outputs = []
        for block in self.blocks:
            x = block(x, valid)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """Visible tokens back at their cells, the mask token at the others, positions, blocks, predictions of all cells."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        d, dim, (columns, rows) = config.decoder, config.encoder.dim, config.model.grid
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.pos_embed = nn.Parameter(torch.zeros(columns * rows, dim))
        self.blocks = nn.ModuleList(Block(dim, d.heads, d.mlp_ratio) for _ in range(d.depth))
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor, visible: Tensor, masked: Tensor, valid: Tensor | None) -> Tensor:
        fill = self.mask_token.expand(len(tokens), masked.shape[1], -1)
        cells = torch.cat([visible, masked], dim=1).argsort(dim=1)  # where each cell's token is
        x = pick(torch.cat([tokens, fill.to(tokens.dtype)], dim=1), cells)  # [R, N, D]
        x = x + self.pos_embed[: x.shape[1]]
        for block in self.blocks:
            x = block(x, valid)
        return self.proj(x)


class LogMel(nn.Module):
    """Mel spectrograms in dB, at most 80 below a clip's loudest, from 0 to 1 (Section 5.1); HTK's mel scale."""

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = f = config
        top = 2595 * math.log10(1 + f.sample_rate / 2 / 700)
        corners = 700 * (10 ** (torch.linspace(0, top, f.mel_bins + 2) / 2595) - 1)  # Hz, with f_min 0
        left, centre, right = corners[:-2], corners[1:-1], corners[2:]
        bins = torch.linspace(0, f.sample_rate / 2, f.n_fft // 2 + 1)[:, None]
        bank = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(f.win_length), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Full clips [B, S] to [B, T, F]."""
        f = self.config
        stft = torch.stft(waveform, f.n_fft, f.hop_length, f.win_length, self.window, return_complex=True)
        mel = stft.abs().square().transpose(1, 2) @ self.bank
        db = 10 * mel.clamp(min=1e-10).log10()
        db = torch.maximum(db, db.amax((1, 2), keepdim=True) - f.top_db)
        low, high = db.amin((1, 2), keepdim=True), db.amax((1, 2), keepdim=True)
        return (db - low) / (high - low + 1e-8)


class PlainStep(nn.Module):
    """Spectrograms, student, decoder and teacher; `forward` is the loss."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = LogMel(config.frontend)
        self.student = Encoder(config)
        self.decoder = Decoder(config)
        self.teacher = nn.ModuleDict({"encoder": copy.deepcopy(self.student).requires_grad_(False)})

    @torch.no_grad()
    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Full clips [B, S] to [B, T, F] of whole patches, as many as the position table holds."""
        e, spectrogram = self.config.encoder, self.frontend(waveform)[:, : self.config.encoder.max_frames]
        return F.pad(spectrogram, (0, 0, 0, -spectrogram.shape[1] % e.patch_size[0]))

    @torch.no_grad()
    def targets(self, spectrogram: Tensor, valid: Tensor | None) -> Tensor:
        """Block outputs, each standardised over a clip's tokens; their mean, standardised over features. [B, N, D]"""
        eps, top = self.config.target.norm_eps, self.config.target.layers or self.config.encoder.depth
        teacher = self.teacher["encoder"]
        stack = torch.stack(teacher.layers(teacher.embed(spectrogram), valid)[-top:])[:, :, 1:].float()  # [L, B, N, D]
        own = torch.ones_like(stack[:1, ..., :1]) if valid is None else valid[None, :, :, None].float()
        mean = (stack * own).sum(2, keepdim=True) / own.sum(2, keepdim=True)
        variance = ((stack - mean).square() * own).sum(2, keepdim=True) / own.sum(2, keepdim=True)
        normed = (stack - mean) / (variance + eps).sqrt()
        return F.layer_norm(normed.mean(0), stack.shape[-1:], eps=eps)

    def forward(
        self, spectrogram: Tensor, visible: Tensor, masked: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of Eq. 5, its local part (Eq. 7) and its global part (Eq. 6).

        Args:
            spectrogram: of B clips, [B, T, F] of whole patches.
            visible: cells that each of B * M clones shows, [B * M, n]; the clones of a clip follow each other.
            masked: its other cells, [B * M, m].
            valid: bool [B, N], False on padding; None where there is none.
        """
        clones = len(visible) // len(spectrogram)
        targets = self.targets(spectrogram, valid)
        own = torch.ones_like(targets[..., 0], dtype=torch.bool) if valid is None else valid
        cls_targets = (targets * own[..., None]).sum(1) / own.sum(1, keepdim=True)  # [B, D]

        tokens = self.student.embed(spectrogram).repeat_interleave(clones, dim=0)  # [B * M, N, D]
        targets = targets.repeat_interleave(clones, dim=0)
        cls_targets = cls_targets.repeat_interleave(clones, dim=0)
        own = own.repeat_interleave(clones, dim=0)
        seen = None if valid is None else own.gather(1, visible)
        encoded = self.student.layers(pick(tokens, visible), seen)[-1]
        predicted = self.decoder(encoded[:, 1:], visible, masked, None if valid is None else own)

        error = (pick(predicted, masked).float() - pick(targets, masked)).square()  # [B * M, m, D]
        local_loss = error.mean() if valid is None else error[own.gather(1, masked)].mean()
        global_loss = F.mse_loss(encoded[:, 0].float(), cls_targets)
        weights = self.config.objective
        return weights.scale * (local_loss + weights.global_weight * global_loss), local_loss, global_loss

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW as PyTorch ships it."""
        optim, parts = self.config.optim, [*self.student.parameters(), *self.decoder.parameters()]
        return torch.optim.AdamW(parts, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher towards the student, parameter by parameter."""
        student = dict(self.student.named_parameters())
        for name, own in self.teacher["encoder"].named_parameters():
            own.mul_(decay).add_(student[name], alpha=1 - decay)


def pick(tokens: Tensor, cells: Tensor) -> Tensor:
    """Rows `cells` [R, n] of tokens [R, N, D]."""
    return tokens.gather(1, cells[..., None].expand(-1, -1, tokens.shape[-1]))


def draw_masks(config: PretrainConfig, count: int, grid: tuple[int, int], rng: random.Random) -> tuple[Tensor, Tensor]:
    """Visible and masked cells of `count` clones over a (T, F) grid: [count, n] and [count, m].

    Blocks around random cells are shown, then random cells shown or hidden until their number is right (EAT).
    """
    mask, (columns, rows) = config.mask, grid
    cells, side = columns * rows, mask.block_size
    keep = min(max(int(cells * (1 - mask.ratio)), 1), cells - 1)
    blocks = max(int(cells * (1 - mask.ratio + mask.adjust) / side**2), 1)
    visible, masked = [], []
    for _ in range(count):
        shown = set()
        for _ in range(blocks):
            centre = rng.randrange(cells)
            for t in range(centre // rows - side // 2, centre // rows - side // 2 + side):
                for f in range(centre % rows - side // 2, centre % rows - side // 2 + side):
                    if 0 <= t < columns and 0 <= f < rows:
                        shown.add(t * rows + f)
        hidden = [n for n in range(cells) if n not in shown]
        if len(shown) > keep:
            shown = set(rng.sample(sorted(shown), keep))
        else:
            shown.update(rng.sample(hidden, keep - len(shown)))
        visible.append(sorted(shown))
        masked.append([n for n in range(cells) if n not in shown])
    return torch.tensor(visible), torch.tensor(masked)
