"""A ViT training step, ours beside timm's and torchvision's at equal size, in one run.

Each step is forward, cross-entropy, backward and fused AdamW on the same batch. The three take
turns, and the ratio is taken round by round, so that a slow moment of the machine slows all alike.
"""

from collections.abc import Callable

import timm
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from turns import Benchmark

from mini import vit

SIZES = {  # name: (patch size, width, depth, heads, batch)
    "P8 D64 L2, batch 50": (8, 64, 2, 4, 50),
    "P4 D96 L6, batch 64": (4, 96, 6, 3, 64),
}


def rivals(patch: int, dim: int, depth: int, heads: int) -> dict[str, nn.Module]:
    """The same architecture from three sources, for images of 32x32 and ten classes."""
    torch.manual_seed(0)
    return {
        "ours": vit.ViT(32, patch, dim, depth, heads),
        "timm": timm.models.VisionTransformer(
            img_size=32,
            patch_size=patch,
            num_classes=10,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
        ),
        "torchvision": torchvision.models.VisionTransformer(
            32, patch, depth, heads, dim, 4 * dim, num_classes=10
        ),
    }


def stepper(model: nn.Module, batch: int, device: torch.device) -> Callable[[], None]:
    """A function that takes one training step."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = torch.randn(batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    bench = Benchmark(__file__, __doc__, "timm", "torchvision", rounds=9)
    for name, (*shape, batch) in SIZES.items():
        steps = {who: stepper(m, batch, bench.device) for who, m in rivals(*shape).items()}
        bench.compare(f"ViT training step, {name}", steps)
    bench.finish()


if __name__ == "__main__":
    main()
