"""A training step of the Transformer, ours beside one around torch's `nn.Transformer`.

Each step is forward with teacher forcing, smoothed cross-entropy, backward and Adam on the same
batch; both are pre-norm, without dropout, with one matrix for embeddings and logits and the same
sinusoids. The two take turns, and ratios are taken round by round.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from turns import Benchmark

from mini import transformer

# Width, heads, layers of each stack, batch, length of source and target.
SIZES = {
    "width 64, 2 layers, batch 64, length 20": (64, 4, 2, 64, 20),
    "width 256, 4 layers, batch 16, length 64": (256, 8, 4, 16, 64),
}
VOCABULARY = 1000
OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-9}


class Theirs(nn.Module):
    """`nn.Transformer` between our embedding, our sinusoids and our logits."""

    def __init__(self, dim: int, heads: int, depth: int):
        super().__init__()
        self.embedding = transformer.Embedding(VOCABULARY, dim)
        self.model = nn.Transformer(
            dim, heads, depth, depth, 4 * dim, 0.0, batch_first=True, norm_first=True
        )

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        x, y = (
            e + transformer.sinusoids(*e.shape[1:]).to(e.device)
            for e in (self.embedding(source), self.embedding(tokens))
        )
        t = tokens.shape[1]
        hidden = nn.Transformer.generate_square_subsequent_mask(t, device=y.device)
        h = self.model(x, y, tgt_mask=hidden, tgt_is_causal=True)
        return self.embedding.logits(h)


def stepper(
    who: str, dim: int, heads: int, depth: int, batch: int, length: int, device: torch.device
) -> Callable[[], None]:
    """A function that takes one training step."""
    torch.manual_seed(0)
    if who == "ours":
        options = {"dropout": 0.0, "norm_first": True}
        model = transformer.Transformer(VOCABULARY, dim, heads, depth, 4 * dim, **options)
    else:
        model = Theirs(dim, heads, depth)
    model = model.to(device)
    source, target = (torch.randint(VOCABULARY, (batch, length), device=device) for _ in range(2))
    optimizer = torch.optim.Adam(model.parameters(), **OPTIONS)

    def step() -> None:
        logits = model(source, transformer.shift_right(target, start=0))
        optimizer.zero_grad()
        transformer.smoothed_loss(logits, target).backward()
        optimizer.step()

    return step


def main() -> None:
    bench = Benchmark(__file__, __doc__, rounds=25)
    for name, size in SIZES.items():
        steps = {who: stepper(who, *size, bench.device) for who in ("ours", "nn.Transformer")}
        bench.compare(f"Transformer step, {name}", steps)
    bench.finish()


if __name__ == "__main__":
    main()
