"""The convolutional network that the notebooks train and compare with: residual, one width knob.

The shape is that of the CIFAR-10 speed runs (Page 2019, "How to train your ResNet"; Jordan 2024,
"94% on CIFAR-10 in 3.29 seconds", arXiv 2404.00498), cut down to what a processor without a GPU
gains from: the stem halves the image at once, and tensors lie in channels-last order.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, unfold


class Stage(nn.Module):
    """Halve the resolution, then a residual convolution: `[B, C, H, W] -> [B, C', H/2, W/2]`."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.down = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = gelu(self.norm1(self.pool(self.down(x))))
        return x + gelu(self.norm2(self.conv(x)))


class SmallResNet(nn.Module):
    """`[B, 3, H, W] -> logits [B, K]`: a stem that halves the image, three stages, a linear head.

    `width` is the number of channels of the first stage; the next two have 2 and 4 times as many.
    About 280 width^2 parameters: 10 gives 32 thousand, 32 gives 295 thousand.
    """

    def __init__(self, width: int, num_classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.stages = nn.Sequential(
            Stage(32, width), Stage(width, 2 * width), Stage(2 * width, 4 * width)
        )
        self.head = nn.Linear(4 * width, num_classes)
        # The fast layout for convolutions, pooling and norms on a processor as on a GPU.
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees, `[B, 4 * width]`: each channel's mean over the last stage."""
        return self.stages(gelu(self.stem(images))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@torch.no_grad()
def whiten(model: SmallResNet, images: Tensor) -> None:
    """Let the stem see decorrelated 3x3 patches, and freeze it: optional, before training.

    Its filters become the 16 leading principal components of the patches of `images` (normalised,
    `[N, 3, H, W]`; a few thousand suffice), each scaled to unit variance, and their negatives, as
    the activation passes only one sign. (Page 2019; Jordan 2024, section 3.2, with 2x2 patches.)
    """
    patches = unfold(images, kernel_size=3).movedim(1, 2).flatten(0, 1)  # [N*patches, 27]
    variance, components = torch.linalg.eigh(torch.cov(patches.T))  # in ascending order
    filters = (components / (variance + 0.01).sqrt()).T.flip(0)[:16]
    model.stem.weight.copy_(torch.cat([filters, -filters]).view_as(model.stem.weight))
    model.stem.bias.zero_()
    model.stem.requires_grad_(False)
