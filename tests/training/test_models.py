"""The small residual network, piece by piece and as a whole."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mini.training import models


def network(width: int = 8, num_classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return models.SmallResNet(width, num_classes).eval()


def images(n: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", [1, 4, 10])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_shapes_follow_width_and_classes(width, num_classes):
    model = network(width, num_classes)
    assert model(images()).shape == (4, num_classes)
    assert model.features(images()).shape == (4, 4 * width)


@pytest.mark.parametrize("size", [16, 24, 32, 48])
def test_images_of_other_sizes_pass_through(size):
    assert network()(images(size=size)).shape == (4, 5)


def test_about_thirty_thousand_parameters_at_width_ten():
    assert sum(p.numel() for p in network(10, 10).parameters()) == 32_366


def test_a_stage_equals_its_formula():
    torch.manual_seed(0)
    stage = models.Stage(6, 8).double()
    for norm in (stage.norm1, stage.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)

    def standardise(x, norm):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt()
        return x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)

    def gelu(x):
        return x * torch.distributions.Normal(0.0, 1.0).cdf(x)

    halved = F.conv2d(x, stage.down.weight, padding=1).unflatten(2, (4, 2)).unflatten(4, (4, 2))
    first = gelu(standardise(halved.amax((3, 5)), stage.norm1))
    second = gelu(standardise(F.conv2d(first, stage.conv.weight, padding=1), stage.norm2))
    torch.testing.assert_close(stage(x), first + second)


def test_stages_called_one_after_another_give_the_logits():
    model, x = network(), images()
    hidden = F.gelu(model.stem(x))
    sizes = []
    for stage in model.stages:
        hidden = stage(hidden)
        sizes.append(tuple(hidden.shape[1:]))
    assert sizes == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    features = hidden.flatten(2).sum(2) / 4
    torch.testing.assert_close(model.features(x), features)
    torch.testing.assert_close(model(x), model.head(features))


def test_every_parameter_gets_a_gradient():
    model = network().train()
    F.cross_entropy(model(images(16)), torch.arange(16) % 5).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_images_of_a_batch_do_not_meet_in_evaluation():
    model, x = network(), images()
    rows = torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(model(x), rows, atol=1e-5, rtol=1e-5)


def test_images_of_a_batch_meet_in_training():
    model, x = network().train(), images()
    assert not torch.allclose(model(x)[:2], model(x[:2]), atol=1e-3)


def test_layout_is_channels_last_and_the_copy_keeps_it():
    for model in (network(), copy.deepcopy(network())):
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
        hidden = model.stages[0](model.stem(images()))
        assert hidden.is_contiguous(memory_format=torch.channels_last)


def whitened() -> tuple[nn.Module, torch.Tensor]:
    """A network with a whitened stem, and smooth images like those it was whitened by."""
    model, noise = network(), images(200, 40)
    smooth = F.avg_pool2d(noise, 9, stride=1)  # neighbours alike, as in photographs
    models.whiten(model, smooth)
    return model, smooth


def test_whitening_decorrelates_what_the_stem_sees():
    model, smooth = whitened()
    weight = model.stem.weight
    torch.testing.assert_close(weight[:16], -weight[16:])
    assert model.stem.bias.abs().sum() == 0
    # Stride 1 and no border: all patches, those the covariance was taken over.
    seen = F.conv2d(smooth, weight[:16]).movedim(1, 3).flatten(0, 2)
    covariance = torch.cov(seen.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3
    variance = torch.linalg.eigvalsh(torch.cov(F.unfold(smooth, 3).movedim(1, 2).flatten(0, 1).T))
    leading = variance.flip(0)[:16]
    # Unit variance but for the 0.01 that keeps the faint components from being blown up.
    torch.testing.assert_close(covariance.diag(), leading / (leading + 0.01), atol=1e-3, rtol=1e-3)


def test_whitening_freezes_the_stem_and_nothing_else():
    model, _ = whitened()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.weight", "stem.bias"]
