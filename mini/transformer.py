"""The Transformer: encoder and decoder of attention alone, from one sequence to another.

Vaswani et al., "Attention Is All You Need", NIPS 2017, arXiv:1706.03762. Read downwards, the file
follows the paper: layers and stacks (section 3.1), the feed-forward network (3.3), embeddings
(3.4), positions (3.5), the model (figure 1), the learning rate (5.3), the loss (5.4), decoding
(6.1), and last what one looks at in a trained one. Attention (3.2) stands in `mini.attention`, and
so do the masks: bool, True = may be seen. `norm_first` puts layer norm where the authors' code
moved it soon after. Where the paper is silent: matrices start Xavier-uniform, biases at 0,
embeddings at standard deviation 1/sqrt(d); layer norm is torch's (eps 1e-5); every projection has a
bias. As printed, dropout acts on what a sublayer returns and on embedded sequences, not, as in the
authors' code and torch, on attention weights and the inner layer too. Decoding caches nothing.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mini.attention import Attention, causal_mask, padding_mask

# Layers and stacks (section 3.1)


class Residual(nn.Module):
    """LayerNorm(x + Dropout(sublayer(x))), `[B, T, D] -> [B, T, D]` (sections 3.1, 5.4).

    With `norm_first`, x + Dropout(sublayer(LayerNorm(x))): the way from the last layer to the first
    is then a sum, which no norm interrupts.
    """

    def __init__(self, dim: int, *, dropout: float, norm_first: bool):
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, `[B, T, D] -> [B, T, D]` (figure 1, left)."""

    def __init__(self, dim: int, heads: int, hidden: int, *, dropout: float, norm_first: bool):
        super().__init__()
        residual = partial(Residual, dim, dropout=dropout, norm_first=norm_first)
        self.attention, self.residual1 = Attention(dim, heads), residual()
        self.feed_forward, self.residual2 = FeedForward(dim, hidden), residual()
        self.attention.initialise()

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """`mask` is that of `Attention`: `[T, T]`, or broadcasts to `[B, heads, T, T]`."""
        x = self.residual1(x, partial(self.attention, mask=mask))
        return self.residual2(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, feed-forward network (figure 1, right)."""

    def __init__(self, dim: int, heads: int, hidden: int, *, dropout: float, norm_first: bool):
        super().__init__()
        residual = partial(Residual, dim, dropout=dropout, norm_first=norm_first)
        self.attention, self.residual1 = Attention(dim, heads), residual()
        self.cross_attention = Attention(dim, heads, context_dim=dim)
        self.residual2 = residual()
        self.feed_forward, self.residual3 = FeedForward(dim, hidden), residual()
        self.attention.initialise()
        self.cross_attention.initialise()

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, memory_mask: Tensor | None
    ) -> Tensor:
        """`memory`, the encoder's output, is `[B, S, D]`.

        `mask` says which of T keys may be seen, `memory_mask` which of S, as in `Attention`.
        """
        x = self.residual1(x, partial(self.attention, mask=mask))
        # Queries come from the decoder, keys and values from the encoder (section 3.2.3).
        x = self.residual2(x, lambda q: self.cross_attention(q, memory, mask=memory_mask))
        return self.residual3(x, self.feed_forward)


class Encoder(nn.Module):
    """`depth` layers, `[B, T, D] -> [B, T, D]`; `hidden` is d_ff.

    Post-norm layers end in a norm. What pre-norm layers return is a sum that grows with depth, so
    one norm follows the last. Raises ValueError for a size below 1, or if `heads` does not divide
    `dim`.
    """

    def __init__(
        self, dim: int, heads: int, depth: int, hidden: int, *, dropout: float, norm_first: bool
    ):
        super().__init__()
        options = {"dropout": dropout, "norm_first": norm_first}
        self.layers, self.norm = _stack(EncoderLayer, dim, heads, depth, hidden, **options)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """`mask` is that of `Attention`, the same in every layer."""
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.norm(x)


class Decoder(nn.Module):
    """`depth` layers, `[B, T, D]` and memory `[B, S, D]` to `[B, T, D]`; the rest as in `Encoder`.

    Position i of the result depends on positions up to i of `x`, and on all of the memory.
    """

    def __init__(
        self, dim: int, heads: int, depth: int, hidden: int, *, dropout: float, norm_first: bool
    ):
        super().__init__()
        options = {"dropout": dropout, "norm_first": norm_first}
        self.layers, self.norm = _stack(DecoderLayer, dim, heads, depth, hidden, **options)

    def forward(self, x: Tensor, memory: Tensor, *, memory_mask: Tensor | None = None) -> Tensor:
        """`memory_mask` says which of S keys may be seen, such as `padding_mask(lengths, S)`."""
        mask = causal_mask(x.shape[1], device=x.device)
        for layer in self.layers:
            x = layer(x, memory, mask, memory_mask)
        return self.norm(x)


def _stack(
    layer: Callable[..., nn.Module], dim: int, heads: int, depth: int, hidden: int, **options: float
) -> tuple[nn.ModuleList, nn.Module]:
    """The layers, built one by one, so drawn one by one; and what follows the last."""
    if min(dim, depth) < 1:
        raise ValueError(f"dim={dim}, depth={depth}: expected sizes of at least 1.")
    layers = nn.ModuleList(layer(dim, heads, hidden, **options) for _ in range(depth))
    return layers, nn.LayerNorm(dim) if options["norm_first"] else nn.Identity()


# The feed-forward network (section 3.3)


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, for each position alone, `[..., D]` (eq. 2)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        if min(dim, hidden) < 1:
            raise ValueError(f"dim={dim}, hidden={hidden}: expected widths of at least 1.")
        self.inner, self.outer = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        for layer in (self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu())


# Embeddings and positions (sections 3.4, 3.5)


class Embedding(nn.Module):
    """One matrix E `[V, D]` for tokens that come in and for logits that go out (section 3.4).

    It starts at standard deviation 1/sqrt(D): an embedded token then has parts of variance 1, and
    so have the logits of an h whose parts have variance 1. Raises ValueError for a size below 1.
    """

    def __init__(self, vocabulary: int, dim: int):
        super().__init__()
        if min(vocabulary, dim) < 1:
            raise ValueError(f"vocabulary={vocabulary}, dim={dim}: expected sizes of at least 1.")
        self.weight = nn.Parameter(torch.randn(vocabulary, dim) / math.sqrt(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """sqrt(D) E[tokens], `[B, T] -> [B, T, D]`; ValueError unless all are 0, ..., V-1."""
        size, dim = self.weight.shape
        if tokens.dtype != torch.long or ((tokens < 0) | (tokens >= size)).any():
            raise ValueError(f"tokens: expected int64 from 0 to {size - 1}, the vocabulary.")
        return math.sqrt(dim) * self.weight[tokens]

    def logits(self, h: Tensor) -> Tensor:
        """h E^T, `[..., D] -> [..., V]`: the same matrix, without the factor."""
        return h @ self.weight.T


def sinusoids(length: int, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """PE(t, 2i) = sin(t w_i), PE(t, 2i+1) = cos(t w_i), w_i = 10000^(-2i/dim): `[length, dim]`.

    Section 3.5. Computed in float64 and rounded once, to `dtype` (torch's default), as t w_i of a
    far position has few digits after the point in float32. Raises ValueError unless `dim` is even.
    """
    if dim < 2 or dim % 2 or length < 0:
        raise ValueError(f"length={length}, dim={dim}: expected a length >= 0 and an even dim.")
    frequency = 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # w, [D/2]
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency  # [T, D/2]
    pairs = torch.stack([angle.sin(), angle.cos()], dim=-1)  # [T, D/2, 2]
    return pairs.flatten(1).to(dtype or torch.get_default_dtype())


# The model (figure 1)


class Transformer(nn.Module):
    """From a source and a shifted target `[B, T]` to logits `[B, T, V]`; defaults: the base model.

    Source tokens share vocabulary and embedding with the target. For a source of another kind, give
    a module `source` that makes `[B, S, D]` of it. Both sequences get sinusoids, unless `positions`
    is False. Where the sources of a batch differ in length, `lengths` `[B]` says how many of the S
    positions are no padding. Targets need none: their padding comes last, where no earlier position
    sees it. Raises ValueError as its parts do.
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int = 512,
        heads: int = 8,
        depth: int = 6,
        hidden: int = 2048,
        *,
        dropout: float = 0.1,
        norm_first: bool = False,
        positions: bool = True,
        source: nn.Module | None = None,
    ):
        super().__init__()
        self.embedding, self.source = Embedding(vocabulary, dim), source
        self.positions, self.dropout = positions, nn.Dropout(dropout)
        options = {"dropout": dropout, "norm_first": norm_first}
        self.encoder = Encoder(dim, heads, depth, hidden, **options)
        self.decoder = Decoder(dim, heads, depth, hidden, **options)

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The memory `[B, S, D]` of tokens `[B, S]`, or of what the module `source` takes."""
        x = self._placed((self.embedding if self.source is None else self.source)(source))
        return self.encoder(x, mask=_mask(lengths, x))

    def decode(self, tokens: Tensor, memory: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits `[B, T, V]` of what follows each prefix of `tokens` `[B, T]`, the start first."""
        x = self._placed(self.embedding(tokens))
        return self.embedding.logits(self.decoder(x, memory, memory_mask=_mask(lengths, memory)))

    def forward(self, source: Tensor, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """All logits at once, by teacher forcing: `tokens` is `shift_right(target, start)`."""
        return self.decode(tokens, self.encode(source, lengths), lengths)

    def _placed(self, x: Tensor) -> Tensor:
        """Dropout(x + PE) (sections 3.5, 5.4)."""
        if self.positions:
            x = x + sinusoids(*x.shape[-2:], dtype=x.dtype).to(x.device)
        return self.dropout(x)


def _mask(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    return None if lengths is None else padding_mask(lengths, x.shape[1])


def shift_right(target: Tensor, start: int) -> Tensor:
    """What the decoder reads, `[B, T]`: `start`, then all tokens of `target` but the last.

    So it predicts each token from those before it, and never from itself (section 3.1).
    """
    return torch.cat([torch.full_like(target[:, :1], start), target[:, :-1]], dim=1)


# Training (sections 5.3, 5.4)


def noam(step: int, *, dim: int, warmup: int) -> float:
    """The learning rate dim^-0.5 min(step^-0.5, step warmup^-1.5) (eq. 3), highest at `warmup`.

    The first `step` is 1: a scheduler that counts from 0 has to add one. Raises ValueError for a
    step, dim or warmup below 1. In the paper, dim is 512, warmup 4,000.
    """
    if min(step, dim, warmup) < 1:
        raise ValueError(f"step={step}, dim={dim}, warmup={warmup}: each begins at 1.")
    return dim**-0.5 * min(step**-0.5, step * warmup**-1.5)


def smoothed_loss(
    logits: Tensor, target: Tensor, *, padding: int | None = None, smoothing: float = 0.1
) -> Tensor:
    """Cross-entropy with label smoothing, the mean over all tokens that are not `padding` (5.4).

    `logits` are `[B, T, V]`, `target` is `[B, T]`, else ValueError. The distribution aimed at is
    `smoothing` / V everywhere and 1 - `smoothing` more on the right token; no loss is below its
    entropy, so losses of different `smoothing` are not comparable.
    """
    if logits.ndim != 3 or logits.shape[:2] != target.shape:
        shapes = f"logits {list(logits.shape)}, target {list(target.shape)}"
        raise ValueError(f"{shapes}: expected [B, T, V] and [B, T].")
    ignored = {} if padding is None else {"ignore_index": padding}
    rows = logits.flatten(0, 1)  # [B*T, V]
    return cross_entropy(rows, target.flatten(), label_smoothing=smoothing, **ignored)


# Decoding (section 6.1), for every model with `encode` and `decode` as above


@torch.no_grad()
def greedy(
    model: nn.Module,
    source: Tensor,
    lengths: Tensor | None = None,
    *,
    start: int,
    end: int,
    steps: int,
) -> Tensor:
    """The most likely next token, again and again: `[B, steps]`, without `start`.

    After the first `end` there is nothing but `end`. Raises ValueError for a model in training
    mode, `steps` below 1, or an `end` that is not in the vocabulary.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected room for at least one token.")
    memory = model.encode(source, lengths)
    tokens = torch.full((len(memory), steps + 1), end, device=memory.device)
    tokens[:, 0] = start
    done = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    for t in range(1, steps + 1):
        best = _next_logits(model, tokens[:, :t], memory, lengths, end).argmax(dim=-1)  # [B]
        tokens[:, t] = best.masked_fill(done, end)
        done |= best == end
        if done.all():
            break
    return tokens[:, 1:]


@torch.no_grad()
def beam_search(
    model: nn.Module,
    source: Tensor,
    lengths: Tensor | None = None,
    *,
    start: int,
    end: int,
    steps: int,
    width: int = 4,
    alpha: float = 0.6,
) -> Tensor:
    """The best of all hypotheses that were among the `width` likeliest of a step, as in `greedy`.

    The score of a hypothesis of T tokens, its `end` included, is log p / ((5 + T) / 6)^alpha, as in
    the paper's reference (Wu et al. 2016, arXiv:1609.08144, eq. 14); alpha = 0 asks for the
    likeliest. One that ends is set aside, and the next step keeps `width` continuations of the
    others; where all have ended, the search is over, so `width` = 1 is `greedy`. One of `steps`
    tokens is cut off, and counts as well. Raises ValueError as `greedy` does, and for `width` below
    1 or `alpha` below 0.
    """
    if min(steps, width) < 1 or alpha < 0:
        raise ValueError(f"Expected {steps=} and {width=} of at least 1, {alpha=} of at least 0.")

    def penalty(t: int) -> float:
        return ((5 + t) / 6) ** alpha

    memory = model.encode(source, lengths).repeat_interleave(width, dim=0)  # [B*W, S, D]
    lengths = None if lengths is None else lengths.repeat_interleave(width)
    b = len(memory) // width
    tokens = torch.full((b, width, steps + 1), end, device=memory.device)
    tokens[..., 0] = start
    log_p = memory.new_zeros(b, width)
    log_p[:, 1:] = -math.inf  # one hypothesis: of W equal ones, the beam would keep W copies
    best, best_score = tokens[:, 0], memory.new_full((b,), -math.inf)
    for t in range(1, steps + 1):
        logits = _next_logits(model, tokens[..., :t].flatten(0, 1), memory, lengths, end)
        total = log_p[..., None] + logits.log_softmax(dim=-1).unflatten(0, (b, width))  # [B, W, V]
        log_p, index = total.flatten(1).topk(width)  # [B, W]
        parent, token = index // total.shape[-1], index % total.shape[-1]
        tokens = tokens.take_along_dim(parent[..., None], dim=1)
        tokens[..., t] = token
        ended = (token == end) | (t == steps)
        score, which = (log_p / penalty(t)).masked_fill(~ended, -math.inf).max(dim=1)  # [B]
        new = tokens.take_along_dim(which[:, None, None], dim=1)[:, 0]
        best = torch.where((score > best_score)[:, None], new, best)
        best_score = torch.maximum(score, best_score)
        log_p = log_p.masked_fill(ended, -math.inf)
        # What goes on loses likelihood, and the largest penalty is the last: no more than this.
        if (best_score >= log_p.amax(dim=1) / penalty(steps)).all():
            break
    return best[:, 1:]


def _next_logits(
    model: nn.Module, tokens: Tensor, memory: Tensor, lengths: Tensor | None, end: int
) -> Tensor:
    """What `decode` says of the token after each whole row of `tokens`, `[B, V]`."""
    if model.training:
        raise ValueError("The model is in training mode, with dropout: call model.eval() first.")
    logits = model.decode(tokens, memory, lengths)[:, -1]
    if not 0 <= end < logits.shape[-1]:
        raise ValueError(f"end={end} is no token: expected 0 to {logits.shape[-1] - 1}.")
    return logits


# What one looks at


@torch.no_grad()
def attention_maps(model: nn.Module, *inputs: Tensor, **options: Tensor) -> dict[str, Tensor]:
    """The weights of each `Attention` in `model(*inputs, **options)`, `[B, heads, T_q, T_k]`.

    They are named as the modules are: `decoder.layers.0.cross_attention`, for example.
    """
    maps = {}

    def keep(name: str, module: Attention, args: tuple, kwargs: dict, _: Tensor) -> None:
        maps[name] = module.weights(*args, **kwargs)

    modules = [(name, m) for name, m in model.named_modules() if isinstance(m, Attention)]
    hooks = [m.register_forward_hook(partial(keep, n), with_kwargs=True) for n, m in modules]
    try:
        model(*inputs, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
