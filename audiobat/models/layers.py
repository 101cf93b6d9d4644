"""The transformer block: gated attention (Eq. 12-14) and MLP in post-norm order (Eq. 1-4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from audiobat.engine.linear import Linear, linear
from audiobat.engine.randomness import draw_rows
from audiobat.models.attention import attend, attend_near
from audiobat.models.rotary import Places, turned


class QueriesKeysValues(nn.Linear):
    """Tokens [B, N, D] to their queries, keys and values [B, N, 3 D], whose key biases get a gradient of zero.

    The bias of keys adds the same to all scores of a query, so softmax drops it. What is computed for its gradient is
    rounding noise, which AdamW would scale up to steps as long as any weight's.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, 3 D]."""
        return linear(x, self.weight, self._bias())

    def of_some(self, x: Tensor, asking: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, M, D] of the tokens `asking`, [B, M, D]; keys and values [B, N, 2 D] of all, [B, N, D]."""
        dim, bias = self.in_features, self._bias()
        return linear(asking, self.weight[:dim], bias[:dim]), linear(x, self.weight[dim:], bias[dim:])

    def _bias(self) -> Tensor:
        queries, keys, values = self.bias.chunk(3)
        return torch.cat([queries, keys.detach(), values])


class GatedAttention(nn.Module):
    """Multi-head self-attention whose attended values pass a sigmoid gate of the input (Eq. 13)."""

    def __init__(self, dim: int, heads: int, gated: bool = True, gate_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = QueriesKeysValues(dim)
        self.gate = Linear(dim, dim, bias=gate_bias) if gated else None
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None, first: int = 0, places: Places | None = None) -> Tensor:
        """Tokens [B, N, D] to [B, N - first, D]; keys where `valid` [B, N] is False are not attended to.

        The tokens before the `first` are attended to like all others, but nothing is computed for them. Under rotary
        positions tokens have `places`, and `first` is 0.
        """
        asking = x[:, first:]
        if first:
            queries, keys_values = self.qkv.of_some(x, asking)
            q = self._by_head(queries, 1)[0]
            k, v = self._by_head(keys_values, 2)
        else:
            q, k, v = self._project(x, places)
        if places is not None and places.reach is not None:
            attended = attend_near(q, k, v, places.reach, places.rows, valid)
        else:
            attended = attend(q, k, v, valid)
        out = attended.transpose(1, 2).flatten(2)  # [B, N - first, D]
        if self.gate is not None:
            out = torch.sigmoid(self.gate(asking)) * out
        projected: Tensor = self.proj(out)
        return projected

    def attention_map(self, x: Tensor, valid: Tensor | None = None, places: Places | None = None) -> Tensor:
        """The softmax matrix of Eq. 12, [B, H, N, N]; `forward` never forms it, this is for figures and measures."""
        q, k, _ = self._project(x, places)
        score = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if valid is not None:
            score = score.masked_fill(~valid[:, None, None, :], float("-inf"))
        return score.softmax(dim=-1)

    def contribution_map(
        self, x: Tensor, valid: Tensor | None = None, gated: bool = True, places: Places | None = None
    ) -> Tensor:
        """How much each query takes from each key: the norm of gate_q * A_qk v_k, [B, H, N, N].

        Without `gated`, or in a block that has no gate, the norm of A_qk v_k.
        """
        attention = self.attention_map(x, valid, places)
        value = self._project(x)[2]  # [B, H, N, d]
        power = value.square()
        if not gated or self.gate is None:
            return attention * power.sum(-1).sqrt().unsqueeze(-2)
        gate: Tensor = torch.sigmoid(self.gate(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, N, d]
        return attention * (gate.square() @ power.transpose(-2, -1)).sqrt()  # sum over d of gate^2 v^2, for all pairs

    def _project(self, x: Tensor, places: Places | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, H, N, d], those of tokens with `places` turned by them."""
        q, k, v = self._by_head(self.qkv(x), 3)
        return turned(q, places), turned(k, places), v

    def _by_head(self, projected: Tensor, count: int) -> Tensor:
        """`count` projections beside one another, [B, N, count * D], as [count, B, H, N, d]."""
        by_head: Tensor = projected.unflatten(-1, (count, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return by_head


class MLP(nn.Module):
    """Two linear layers around an exact GELU (Eq. 3)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] to [B, N, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class DropPath(nn.Module):
    """Drop a whole residual branch of a clip with probability `rate` while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def draw(self, x: Tensor) -> Tensor | None:
        """Whether to keep the branch of each clip of x [B, N, D], bool [B, 1, 1]; None: of all."""
        if not self.training or self.rate == 0:
            return None
        chance = draw_rows(lambda rows: torch.rand(rows, 1, 1, device=x.device), len(x), x.device)
        return chance >= self.rate

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Branch output [B, N, D] to zeros or, so that its expectation stays, to itself / (1 - rate)."""
        return x if keep is None else x * keep / (1 - self.rate)


class Block(nn.Module):
    """A post-norm transformer block (Eq. 1-4), or a pre-norm one as in Audio-MAE, whose sums are not normalised."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        gated: bool = True,
        gate_bias: bool = True,
        drop_path: float = 0.0,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.recompute = False  # keep the input alone for the backward pass, which then runs the block again
        self.attn = GatedAttention(dim, heads, gated, gate_bias)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, first: int = 0, places: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B, N, D] to (block output of Eq. 4, MLP output of Eq. 3 before its residual), [B, N - first, D].

        The tokens before the `first` are attended to, and nothing else. `places` are those of rotary positions.
        """
        kept = self.drop_path.draw(x), self.drop_path.draw(x)  # here, so that a second run drops the same
        if self.recompute and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor] = checkpoint(
                self._run, x, valid, first, places, *kept, use_reentrant=False, preserve_rng_state=False
            )
            return out
        return self._run(x, valid, first, places, *kept)

    def _run(
        self,
        x: Tensor,
        valid: Tensor | None,
        first: int,
        places: Places | None,
        keep_attention: Tensor | None,
        keep_mlp: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.pre_norm:
            x = x[:, first:] + self.drop_path(self.attn(self.norm1(x), valid, first, places), keep_attention)
            mlp = self.mlp(self.norm2(x))
            return x + self.drop_path(mlp, keep_mlp), mlp
        x = self.norm1(x[:, first:] + self.drop_path(self.attn(x, valid, first, places), keep_attention))
        mlp = self.mlp(x)
        return self.norm2(x + self.drop_path(mlp, keep_mlp)), mlp


def recompute_blocks(module: nn.Module, recompute: bool) -> None:
    """Have each block within `module` keep its input alone for the backward pass (True), or all that it computes."""
    for block in module.modules():
        if isinstance(block, Block):
            block.recompute = recompute


def init_weights(module: nn.Module) -> None:
    """Initialise linear layers with Xavier-uniform weights and zero biases, as the release does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_weights_eat(module: nn.Module) -> None:
    """Initialise linear layers with weights from N(0, 0.02) and zero biases, as data2vec 2.0 and EAT do."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
