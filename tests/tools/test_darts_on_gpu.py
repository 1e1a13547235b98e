"""The searches that a GPU made for notebook 06: several as one are each what it is alone."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tools import darts_on_gpu as tool


class Images(tool.Pool):
    """Twelve noisy images on the CPU."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        size = 32 + 2 * tool.SHIFT
        self.images = torch.randint(256, (12, 3, size, size), generator=generator).byte()
        self.labels, self.n_train = torch.arange(12) % 10, 10
        self.mean = self.std = torch.full((1, 1, 3, 1, 1), 128.0)
        self.device = torch.device("cpu")


def test_two_steps_are_those_of_the_optimizers_of_torch(monkeypatch):
    """Of the first of two searches made together: batches are whole halves, and stay in place."""
    monkeypatch.setattr(tool, "BATCH", 4)
    pool, seeds, rate = Images(), [0, 1], 0.01
    groups = [{"operations": tool.OPERATIONS[s:], "moved": s == 1, "learned": True} for s in seeds]
    halves = [torch.arange(start, start + 4).repeat(2, 1) for start in (0, 4)]
    many = tool.Many(pool, seeds, affine=False, channels=2)
    held, labels = torch.arange(8, 10).repeat(2, 1), pool.labels.repeat(2, 1)
    looks, alphas = tool.search(
        many, groups, halves, held, labels, epochs=2, alpha_lr=rate, n_curvature=4
    )
    assert looks["epoch"].tolist() == [0, 2]
    assert not looks["weights"][:, 1, :, 0].any()  # none is closed in the second

    torch.manual_seed(0)
    one, alpha = tool.Network(2, affine=False), torch.zeros(6, 5, requires_grad=True)
    sgd = torch.optim.SGD(one.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam([alpha], rate, betas=(0.5, 0.999), weight_decay=1e-3)
    for step in range(2):
        for index, optimizer in ((halves[1][:1], adam), (halves[0][:1], sgd)):
            loss = cross_entropy(one(pool.batch(index)[0], alpha.softmax(1)), pool.labels[index[0]])
            adam.zero_grad(), sgd.zero_grad()
            loss.backward()
            sgd.param_groups[0]["lr"] = 0.025 * (1 + np.cos(np.pi * step / 2)) / 2
            optimizer.step()
    assert np.ptp(looks["weights"][-1][0]) > 0.001
    assert torch.allclose(alphas[0], alpha, rtol=0, atol=1e-5)
    for name, w in one.named_parameters():
        assert torch.allclose(many.weights[name][0], w, rtol=1e-3, atol=1e-5)


def test_a_batch_is_shifted_and_mirrored_image_by_image():
    pool = Images()
    moves = torch.tensor([[[1, 4]], [[6, 4]], [[1, 0]]])
    found = pool.batch(torch.tensor([[3, 5]]), moves)
    expected = pool.images[3, :, 1:33, 6:38].flip(2).float() / 128 - 1
    assert torch.equal(found[0, 0], expected)
    assert torch.equal(found[0, 1], pool.images[5, :, 4:36, 4:36].float() / 128 - 1)
    assert torch.equal(pool.batch(torch.tensor([[5]]))[0, 0], found[0, 1])


def test_networks_of_one_step_do_not_touch_each_other():
    """The sum of the losses: each network's gradient is that of its own mean loss."""
    pool = Images()
    many = tool.Many(pool, [0, 1], affine=True, channels=2)
    index, mixture = torch.tensor([[0, 1], [2, 3]]), torch.rand(2, len(tool.EDGES), 5)
    together = torch.autograd.grad(
        many.losses(index, mixture, pool.labels[index]), list(many.weights.values())
    )
    torch.manual_seed(1)
    one = tool.Network(2, affine=True)
    loss = cross_entropy(one(pool.batch(index)[1], mixture[1]), pool.labels[index[1]])
    alone = torch.autograd.grad(loss, [dict(one.named_parameters())[k] for k in many.weights])
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a[1], b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("row", [[0.9, 0.05, 0.03, 0.01, 0.01]])
def test_none_is_never_the_best(row):
    assert tool.best(np.array([row])) == ("skip",)
