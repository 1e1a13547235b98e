"""ViT: parity with torchvision and timm, the paper's counts, and what each part promises."""

import math

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import resample_abs_pos_embed
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, unfold

from mini import vit
from tests.planted import defaults

SMALL = {"image_size": 16, "patch_size": 4, "dim": 24, "depth": 2, "heads": 3}


def small(seed: int = 0, **options) -> vit.ViT:
    """A small ViT in float64 whose every parameter is random: zeros would hide a missing term."""
    torch.manual_seed(seed)
    model = vit.ViT(**(SMALL | options)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def images(n: int = 2, size: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.manual_seed(seed), dtype=torch.float64)


# Patches


@given(st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=25)
def test_patchify_is_unfold(patch_size, rows, columns, channels):
    x = torch.randn(2, channels, rows * patch_size, columns * patch_size)
    expected = unfold(x, patch_size, stride=patch_size).transpose(1, 2)
    assert torch.equal(vit.patchify(x, patch_size), expected)


def test_patchify_is_unfold_here():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert torch.equal(vit.patchify(x, 2), unfold(x, 2, stride=2).transpose(1, 2))


def test_patchify_and_linear_is_a_strided_convolution():
    x, weight, bias = images(), torch.randn(5, 48).double(), torch.randn(5).double()
    expected = conv2d(x, weight.view(5, 3, 4, 4), bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(vit.patchify(x, 4) @ weight.T + bias, expected)


@pytest.mark.parametrize("patch_size", [0, -4, 3, 32])
def test_patch_sizes_that_do_not_divide_are_refused(patch_size):
    with pytest.raises(ValueError, match="does not divide an image of 16x16"):
        vit.patchify(images(), patch_size)


# Parity


def to_torchvision(model: vit.ViT) -> nn.Module:
    """torchvision's ViT with the weights of ours."""
    dim, heads = model.norm.normalized_shape[0], model.blocks[0].attention.heads
    theirs = torchvision.models.VisionTransformer(
        model.grid[0] * model.patch_size,
        model.patch_size,
        len(model.blocks),
        heads,
        dim,
        model.blocks[0].mlp[0].out_features,
        num_classes=model.head.out_features,
    ).double()
    state = {
        "class_token": model.class_token,
        "conv_proj.weight": model.embed.weight.view(dim, 3, *[model.patch_size] * 2),
        "conv_proj.bias": model.embed.bias,
        "encoder.pos_embedding": model.position[None],
        "encoder.ln.weight": model.norm.weight,
        "encoder.ln.bias": model.norm.bias,
        "heads.head.weight": model.head.weight,
        "heads.head.bias": model.head.bias,
    }
    for i, block in enumerate(model.blocks):
        pieces = {
            "ln_1": block.norm1,
            "ln_2": block.norm2,
            "self_attention.in_proj": block.attention.qkv,
            "self_attention.out_proj": block.attention.out,
            "mlp.0": block.mlp[0],
            "mlp.3": block.mlp[2],
        }
        for name, piece in pieces.items():
            join = "_" if name.endswith("in_proj") else "."
            for kind in ("weight", "bias"):
                key = f"encoder.layers.encoder_layer_{i}.{name}{join}{kind}"
                state[key] = getattr(piece, kind)
    theirs.load_state_dict(state)
    return theirs.eval()


def to_timm(model: vit.ViT) -> nn.Module:
    """timm's ViT with the weights of ours."""
    dim, heads = model.norm.normalized_shape[0], model.blocks[0].attention.heads
    theirs = timm.models.VisionTransformer(
        img_size=model.grid[0] * model.patch_size,
        patch_size=model.patch_size,
        num_classes=model.head.out_features,
        embed_dim=dim,
        depth=len(model.blocks),
        num_heads=heads,
        mlp_ratio=model.blocks[0].mlp[0].out_features / dim,
    ).double()
    renamed = {
        "class_token": "cls_token",
        "position": "pos_embed",
        "embed.": "patch_embed.proj.",
        "attention.qkv": "attn.qkv",
        "attention.out": "attn.proj",
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }
    state = {}
    for name, value in model.state_dict().items():
        for ours, others in renamed.items():
            name = name.replace(ours, others)
        state[name] = value
    state["pos_embed"] = state["pos_embed"][None]
    weight = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = weight.view(dim, 3, *[model.patch_size] * 2)
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("convert", [to_torchvision, to_timm])
@pytest.mark.parametrize("options", [{}, {"patch_size": 8, "heads": 4, "mlp_ratio": 2.0}])
def test_the_same_weights_give_the_same_logits_and_gradients(convert, options):
    ours, x = small(**options), images()
    theirs = convert(ours)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)
    labels = torch.tensor([3, 7])
    x.requires_grad_()
    gradients = [
        torch.autograd.grad(cross_entropy(model(x), labels), x)[0] for model in (ours, theirs)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_logits_agree_with_torchvision_here():
    ours, x = small(), images()
    torch.testing.assert_close(ours(x), to_torchvision(ours)(x), rtol=0, atol=1e-10)


def test_float32_logits_agree_with_torchvision_to_five_digits():
    ours, x = small().float(), images().float()
    torch.testing.assert_close(ours(x), to_torchvision(ours).float()(x), rtol=0, atol=1e-5)


# Counts


def parameters_by_formula(image_size, patch_size, dim, depth, hidden, classes) -> int:
    """All of them, with every bias (fact from the paper's architecture; see the notebook)."""
    n, inputs = (image_size // patch_size) ** 2, 3 * patch_size**2
    block = 4 * dim**2 + 2 * dim * hidden + 9 * dim + hidden
    return (
        inputs * dim + dim + dim + (n + 1) * dim + depth * block + 2 * dim + dim * classes + classes
    )


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("patch_size", "dim", "depth", "heads", "published"),
    [(16, 768, 12, 12, 86_567_656), (32, 768, 12, 12, 88_224_232), (16, 1024, 24, 16, 304_326_632)],
)
def test_parameters_are_the_published_number(patch_size, dim, depth, heads, published):
    with torch.device("meta"):  # counts without allocating 1.2 GB
        model = vit.ViT(224, patch_size, dim, depth, heads, num_classes=1000)
    assert count(model) == parameters_by_formula(224, patch_size, dim, depth, 4 * dim, 1000)
    assert count(model) == published


def test_heads_do_not_change_the_count():
    assert count(small(heads=2)) == count(small(heads=6))


def test_mlp_ratio_gives_the_hidden_width():
    for ratio in (2.0, 2.5):
        mlp = small(mlp_ratio=ratio).blocks[0].mlp
        assert mlp[0].out_features == mlp[2].in_features == int(24 * ratio)


# Initial values


def test_at_first_every_logit_is_zero_and_only_the_head_learns():
    torch.manual_seed(0)
    model = vit.ViT(**SMALL)
    logits = model(images().float())
    loss = cross_entropy(logits, torch.tensor([1, 2]))
    loss.backward()
    assert torch.equal(logits, torch.zeros(2, 10))
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert (parameter.grad.abs().sum() > 0) == name.startswith("head"), name


def test_initial_values_are_those_of_the_authors_code():
    torch.manual_seed(0)
    model = vit.ViT(image_size=64, patch_size=4, dim=192, depth=1)
    assert model.position.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.class_token.any()
    xavier = math.sqrt(2 / (192 + 192))  # of each of the three [D, D] kernels, not of [3D, D]
    for kernel in model.blocks[0].attention.qkv.weight.chunk(3):
        assert kernel.std().item() == pytest.approx(xavier, rel=0.03)
    mlp = model.blocks[0].mlp[0].weight
    assert mlp.std().item() == pytest.approx(math.sqrt(2 / (192 + 768)), rel=0.03)
    assert model.embed.weight.std().item() == pytest.approx(1 / math.sqrt(48), rel=0.15)


# Positions


def shuffled(x: torch.Tensor, order: torch.Tensor, patch_size: int = 4) -> torch.Tensor:
    """The image with its patches in another order."""
    height, width = x.shape[2:]
    columns = unfold(x, patch_size, stride=patch_size)[:, :, order]
    return nn.functional.fold(columns, (height, width), patch_size, stride=patch_size)


def test_without_positions_the_order_of_patches_does_not_matter():
    model, x, order = small(position="none"), images(), torch.randperm(16)
    torch.testing.assert_close(model(x), model(shuffled(x, order)))
    patches = model.encode(x)[:, 1:]
    torch.testing.assert_close(patches[:, order], model.encode(shuffled(x, order))[:, 1:])


@pytest.mark.parametrize("position", ["learned", "sincos"])
def test_with_positions_the_order_matters_unless_the_positions_move_along(position):
    model, x, order = small(position=position), images(), torch.randperm(16)
    before = model(x)
    assert (model(shuffled(x, order)) - before).abs().max() > 1e-3
    model.position.data[1:] = model.position.data[1:][order]
    torch.testing.assert_close(model(shuffled(x, order)), before)


def test_training_in_a_scrambled_world_is_training_with_positions_moved_along():
    """Claim E8: gradients, and with them all weights after some steps, are the same numbers."""
    x, order, labels = images(4), torch.randperm(16), torch.tensor([1, 2, 3, 4])
    straight, moved = small(), small()
    moved.position.data[1:] = moved.position.data[1:][order]
    for model, seen in ((straight, x), (moved, shuffled(x, order))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(seen), labels).backward()
            optimizer.step()
    rows = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])
    for (name, ours), theirs in zip(straight.named_parameters(), moved.parameters(), strict=True):
        ours = ours[rows] if name == "position" else ours
        # Sums over 17 tokens in another order, three steps: some hundred roundings of 1e-16.
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-12, msg=name)


def test_the_class_token_has_a_position_too():
    model = small()
    tokens = model.tokens(images())
    expected = (model.class_token[0, 0] + model.position[0]).expand(2, -1)
    torch.testing.assert_close(tokens[:, 0], expected)


def test_sincos_positions_are_those_of_the_formula():
    dim, rows, columns = 8, 3, 5
    positions = vit.sincos_positions(rows, columns, dim)
    for r in range(rows):
        for c in range(columns):
            angles = [1.0, 10_000 ** (-1 / 2)]
            expected = [f(v * a) for v in (c, r) for f in (math.sin, math.cos) for a in angles]
            torch.testing.assert_close(positions[r * columns + c], torch.tensor(expected))


def test_sincos_is_not_trained_and_none_has_no_positions():
    assert count(small()) - count(small(position="sincos")) == 17 * 24
    assert count(small(position="none")) == count(small(position="sincos"))
    assert "position" in small(position="sincos").state_dict()
    assert "position" not in small(position="none").state_dict()


def test_learned_2d_positions_are_a_column_beside_a_row():
    model = small(position="learned-2d")
    part, positions = model.position, model.positions()
    assert torch.equal(positions[0], part["token"][0])
    for row in range(4):
        for column in range(4):
            expected = torch.cat([part["column"][column], part["row"][row]])
            assert torch.equal(positions[1 + 4 * row + column], expected)
    tokens = model.tokens(torch.zeros(1, 3, 16, 16).double())
    torch.testing.assert_close(tokens[0, 1:], positions[1:] + model.embed.bias)


def test_learned_2d_positions_are_trained_and_start_small():
    torch.manual_seed(0)
    model = vit.ViT(image_size=64, patch_size=4, dim=192, depth=1, position="learned-2d")
    for part in model.position.values():
        assert part.requires_grad
        assert part.std().item() == pytest.approx(0.02, rel=0.2)
    nothing = count(vit.ViT(image_size=64, patch_size=4, dim=192, depth=1, position="none"))
    assert count(model) - nothing == 192 + 16 * 96 + 16 * 96


def test_positions_of_every_kind_fit_the_tokens():
    assert small(position="none").positions() is None
    for position in ("learned", "learned-2d", "sincos"):
        model = small(position=position)
        assert model.positions().shape == (17, 24)
        assert model(images(size=24)).shape == (2, 10)


def test_resizing_to_the_same_grid_is_the_identity():
    positions = torch.randn(1 + 12, 7)
    torch.testing.assert_close(vit.resize_positions(positions, (3, 4), (3, 4)), positions)


@pytest.mark.parametrize("new", [(8, 8), (5, 7), (2, 2)])
def test_resizing_agrees_with_timm(new):
    positions = torch.randn(1 + 16, 6)
    theirs = resample_abs_pos_embed(positions[None], new, (4, 4), antialias=False)[0]
    torch.testing.assert_close(vit.resize_positions(positions, (4, 4), new), theirs)


def test_another_image_size_works_and_uses_the_resized_positions():
    model = small()
    assert model(images(size=24)).shape == (2, 10)
    tokens = model.tokens(torch.zeros(1, 3, 8, 16).double())
    expected = vit.resize_positions(model.position, (4, 4), (2, 4))[1:] + model.embed.bias
    torch.testing.assert_close(tokens[0, 1:], expected)


# Attention


def test_attention_maps_are_what_the_forward_pass_uses():
    model, x = small(), images()
    maps = model.attention_maps(x)
    assert maps.shape == (2, 2, 3, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 3, 17).double())
    z = model.tokens(x)
    for layer, block in zip(maps, model.blocks, strict=True):  # by hand, from the weights
        value = block.attention.project(block.norm1(z))[2]
        heads = (layer @ value).transpose(1, 2).flatten(2)
        z = z + block.attention.out(heads)
        z = z + block.mlp(block.norm2(z))
    torch.testing.assert_close(model.norm(z), model.encode(x))


def test_rollout_rows_sum_to_one_and_layers_multiply_from_the_left():
    maps = small().attention_maps(images())
    rollout = vit.attention_rollout(maps)
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 17).double())
    first, second = (maps.mean(2) + torch.eye(17)) / 2
    torch.testing.assert_close(rollout, second @ first)


def test_attention_distance_of_known_attention():
    n, grid, patch = 9, (3, 3), 4
    identity = torch.eye(n + 1).expand(1, 1, 1, -1, -1)
    assert vit.attention_distance(identity, grid, patch).item() == pytest.approx(0.0, abs=1e-6)
    uniform = torch.full((1, 1, 1, n + 1, n + 1), 1 / (n + 1))
    cells = [(r, c) for r in range(3) for c in range(3)]
    mean = sum(math.dist(a, b) for a in cells for b in cells) / n**2 * patch
    assert vit.attention_distance(uniform, grid, patch).item() == pytest.approx(mean, rel=1e-5)


def test_attention_distance_is_for_each_layer_and_head():
    rows, columns, patch = 2, 3, 4
    n = rows * columns
    maps = torch.rand(2, 4, 3, n + 1, n + 1, generator=torch.manual_seed(0)).double()
    found = vit.attention_distance(maps, (rows, columns), patch)
    assert found.shape == (2, 3)
    cells = [(r * patch, c * patch) for r in range(rows) for c in range(columns)]
    apart = torch.tensor([[math.dist(a, b) for b in cells] for a in cells]).double()
    for layer in range(2):
        for head in range(3):
            seen = maps[layer, :, head, 1:, 1:]
            expected = (seen * apart).sum(-1) / seen.sum(-1)  # [B, N]
            assert found[layer, head].item() == pytest.approx(expected.mean().item())


@pytest.mark.parametrize("position", vit.POSITIONS)
def test_a_batch_of_no_images_gives_no_logits(position):
    model, none = small(position=position), images(2)[:0]
    logits = model(none)
    assert logits.shape == (0, 10)
    logits.sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    assert model.attention_maps(none).shape[1] == 0
    assert vit.patchify(none, 4).shape == (0, 16, 48)


# Bad input


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"patch_size": 5}, "patch_size=5 does not divide image_size=16"),
        ({"patch_size": 0}, "patch_size=0 does not divide image_size=16"),
        ({"patch_size": -4}, "patch_size=-4 does not divide image_size=16"),
        ({"image_size": 0}, "patch_size=4 does not divide image_size=0"),
        ({"dim": 0}, "dim=0: expected a width of at least 1"),
        ({"heads": 5}, "heads=5 does not divide dim=24"),
        ({"position": "2d"}, "expected one of learned, learned-2d, sincos, none"),
        ({"position": "learned-2d", "dim": 5, "heads": 1}, "multiple of 2"),
        ({"position": "sincos", "dim": 6, "heads": 1}, "multiple of 4"),
    ],
)
def test_impossible_settings_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        vit.ViT(**(SMALL | options))


def test_defaults_are_those_that_the_records_were_made_by():
    expected = {"image_size": 32, "patch_size": 4, "dim": 96, "depth": 6, "heads": 3}
    expected |= {"mlp_ratio": 4.0, "num_classes": 10, "position": "learned", "position_std": 0.02}
    assert defaults(vit.ViT) == expected
