"""Multi-head attention: every query takes a weighted mean of the values.

Vaswani et al., "Attention Is All You Need", NIPS 2017, arXiv:1706.03762, section 3.2. Read
downwards: the formula (eq. 1), which keys may be seen, and the module (3.2.2), for self-attention
and cross-attention. `mask` is bool and True where a key may be seen, as in torch's
`scaled_dot_product_attention`; the masks of `nn.MultiheadAttention` are the opposite (True = may
not be seen). Differences from the paper: every projection has a bias, as in ViT and torch; d_k and
d_v are always dim/heads; the matrices of queries, keys and values lie in one (self-attention), or
in two (cross-attention); a query that may see no key gets zeros, where a softmax over nothing but
-inf is 0/0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """A = softmax(q k^T / sqrt(d_k)), the softmax over the keys (eq. 1).

    `q` is `[..., T_q, d_k]`, `k` `[..., T_k, d_k]`, A `[..., T_q, T_k]`. A row sums to 1; if `mask`
    hides all of its keys, to 0. Raises ValueError for widths or a mask that do not fit.
    """
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries are {q.shape[-1]} wide, keys {k.shape[-1]}: expected the same.")
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(dim=-1)
    _check_mask(mask, scores.shape)
    # The lowest number instead of -inf: the weight is 0 as well, and a row of it gives no NaN.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d_k)) v, `[..., T_q, d_v]`: the formula as it is printed (eq. 1)."""
    return attention_weights(q, k, mask) @ v


def causal_mask(t: int, *, device: torch.device | None = None) -> Tensor:
    """bool `[T, T]`: position i sees itself and what comes before it (section 3.2.3)."""
    return torch.ones(t, t, dtype=torch.bool, device=device).tril()


def padding_mask(lengths: Tensor, t: int) -> Tensor:
    """bool `[B, 1, 1, T]`: of the T keys of sequence b, the first `lengths[b]` may be seen.

    Together with a causal mask: `causal_mask(t) & padding_mask(lengths, t)`, `[B, 1, T, T]`. Raises
    ValueError unless `lengths` is `[B]`, of whole numbers from 0 to T.
    """
    if lengths.ndim != 1 or lengths.is_floating_point() or ((lengths < 0) | (lengths > t)).any():
        raise ValueError(f"lengths={lengths.tolist()}: expected [B] whole numbers from 0 to {t}.")
    return (torch.arange(t, device=lengths.device) < lengths[:, None])[:, None, None]


def _check_mask(mask: Tensor, shape: Sequence[int]) -> None:
    """ValueError unless `mask` is bool and fits scores of `shape` in one way only."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}: expected torch.bool, True = may be seen.")
    # [B, T_q, T_k] is refused: where B happens to equal heads, it would mask heads, not sequences.
    sizes = zip(reversed(mask.shape), reversed(shape), strict=False)
    if mask.ndim not in (2, len(shape)) or any(size not in (1, full) for size, full in sizes):
        raise ValueError(
            f"mask of shape {list(mask.shape)} does not fit scores of shape {list(shape)}: "
            "expected [T_q, T_k], or all dimensions of the scores; each of their size or 1."
        )


class Attention(nn.Module):
    """Multi-head attention of `x` `[B, T_q, D]`: to itself, or to a context `[B, T_k, C]`.

    With `context_dim` = C it is cross-attention, which takes queries from `x`, keys and values from
    the context; without, self-attention. A new one has the initial values of `nn.Linear`, as a
    model draws its own later (`initialise`). Raises ValueError unless `heads` divides `dim`.
    """

    def __init__(self, dim: int, heads: int, *, context_dim: int | None = None):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}.")
        self.dim, self.heads, self.context_dim = dim, heads, context_dim
        if context_dim is None:
            self.qkv = nn.Linear(dim, 3 * dim)  # W^Q, W^K and W^V: one product
        else:
            self.q, self.kv = nn.Linear(dim, dim), nn.Linear(context_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)  # W^O

    def initialise(self) -> None:
        """Xavier-uniform for W^Q, W^K, W^V and W^O, each by its own size; biases 0 (ViT's code)."""
        matrices = {"qkv": 3, "q": 1, "kv": 2, "out": 1}
        for name, layer in self.named_children():
            for kernel in layer.weight.chunk(matrices[name]):
                nn.init.xavier_uniform_(kernel)
            nn.init.zeros_(layer.bias)

    def project(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, heads, T_q, D/heads]`, keys and values `[B, heads, T_k, D/heads]`."""
        if context is None:
            return self._split(self.qkv(x), 3)
        return *self._split(self.q(x), 1), *self._split(self.kv(context), 2)

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """What `forward` weighs the values with, `[B, heads, T_q, T_k]`; same arguments."""
        q, k, _ = self.project(*self._sequences(x, context))
        return attention_weights(q, k, mask)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """`[B, T_q, D]`: Concat(head_1, ..., head_h) W^O, head_i = `attend(q_i, k_i, v_i, mask)`.

        `mask` is bool, True = may be seen: `[T_q, T_k]`, or four dimensions that broadcast to
        `[B, heads, T_q, T_k]`. A query that may see nothing gets zeros from every head, so the bias
        of `out`. Raises ValueError for shapes that do not fit.
        """
        q, k, v = self.project(*self._sequences(x, context))
        if mask is not None:
            _check_mask(mask, (*q.shape[:-1], k.shape[-2]))
        # This is `attend`, in torch's faster code.
        heads = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(heads.transpose(1, 2).flatten(2))  # [B, T_q, heads * D/heads]

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`[B, T, parts*D]` into `parts` of `[B, heads, T, D/heads]`."""
        b, t, _ = projected.shape
        width = self.dim // self.heads
        x = projected.view(b, t, parts, self.heads, width)  # [B, T, parts, heads, D/heads]
        return x.permute(2, 0, 3, 1, 4).unbind(0)

    def _sequences(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """`(x,)`, or `(x, context)` for cross-attention; ValueError unless their shapes fit."""
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x of shape {list(x.shape)}: expected [B, T, {self.dim}].")
        if self.context_dim is None and context is None:
            return (x,)
        if self.context_dim is None:
            raise ValueError("this is self-attention: build it with context_dim to give a context.")
        shape = None if context is None else list(context.shape)
        if shape is None or len(shape) != 3 or shape[::2] != [len(x), self.context_dim]:
            raise ValueError(f"context {shape}: expected [{len(x)}, T_k, {self.context_dim}].")
        return x, context
