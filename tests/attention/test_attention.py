"""Attention: parity with torch's two, what masks promise, and what the formula cannot change."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mini import attention
from mini.attention import Attention, attend, attention_weights, causal_mask, padding_mask

DIM, HEADS, B = 12, 3, 2
EPS = torch.finfo(torch.float64).eps
KINDS = {"self": None, "cross": DIM, "cross, other width": 8}  # name: context_dim


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def random_mask(*shape: int, seed: int = 0) -> Tensor:
    """About half of the keys hidden; the first may always be seen."""
    mask = torch.rand(*shape, generator=seeded(seed)) < 0.5
    mask[..., 0] = True
    return mask


def build(kind: str = "self", heads: int = HEADS) -> Attention:
    """In float64, with every parameter random: zeros would hide a missing term."""
    module = Attention(DIM, heads, context_dim=KINDS[kind]).double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(0.3 * noise(*parameter.shape, seed=seed))
    return module


def inputs(kind: str = "self", t: int = 5) -> tuple[Tensor, ...]:
    """`(x,)`, or `(x, context)` with two positions more."""
    x = noise(B, t, DIM, seed=10)
    return (x,) if kind == "self" else (x, noise(B, t + 2, KINDS[kind], seed=11))


def keys_of(kind: str, t: int = 5) -> int:
    return inputs(kind, t)[-1].shape[1]


# How far two correct computations may lie apart. A sum of n products is off by at most
# n eps sum |a b| (Higham 2002, section 3.1), and errors are passed on to first order; eps is twice
# the unit roundoff, which leaves room for the second order.


def largest(values: Tensor) -> float:
    return values.detach().abs().max().item()


def error_of_heads(q, k, v, dq: float = 0.0, dk: float = 0.0, dv: float = 0.0) -> float:
    """Largest error of softmax(q k^T / sqrt(d)) v, if q, k, v are off by dq, dk, dv."""
    d, t, score = q.shape[-1], k.shape[-2], math.sqrt(q.shape[-1]) * largest(q) * largest(k)
    d_score = math.sqrt(d) * (largest(q) * dk + largest(k) * dq) + (d + 2) * EPS * score
    # exp turns what a score is off by into a relative error; the sum below doubles it.
    d_weight = 2 * d_score + (t + 4 + 4 * score) * EPS
    return largest(v) * (d_weight + t * EPS) + dv


def error_of_linear(layer: nn.Linear, x: Tensor, dx: float = 0.0) -> float:
    """Largest error of a linear layer whose input is off by dx."""
    total = x.abs() @ layer.weight.abs().T + layer.bias.abs()
    return (x.shape[-1] + 1) * EPS * largest(total) + dx * largest(layer.weight.abs().sum(1))


def tolerance(module: Attention, *sequences: Tensor) -> dict[str, float]:
    """What two computations of `module(*sequences)` may differ by: each has one error."""
    q, k, v = module.project(*sequences)
    layers = [module.qkv] * 2 if len(sequences) == 1 else [module.q, module.kv]
    dq = error_of_linear(layers[0], sequences[0])
    dk = error_of_linear(layers[1], sequences[-1])
    dh = error_of_heads(q, k, v, dq, dk, dk)
    heads = torch.full((1, module.dim), largest(v), dtype=v.dtype)  # a mean of values: no larger
    return {"rtol": 0, "atol": 2 * error_of_linear(module.out, heads, dh)}


# The formula


def test_attend_by_hand():
    q = torch.tensor([[2 * math.log(3), 0, 0, 0]])  # d_k = 4: scores are divided by 2
    k = torch.tensor([[1.0, 5, 5, 5], [0.0, 7, 7, 7]])  # scores ln 3 and 0
    v = torch.tensor([[4.0], [8.0]])
    torch.testing.assert_close(attention_weights(q, k), torch.tensor([[3 / 4, 1 / 4]]))
    torch.testing.assert_close(attend(q, k, v), torch.tensor([[5.0]]))
    hidden = torch.tensor([[False, True]])
    assert attend(q, k, v, hidden).item() == 8


MASKS = {  # shapes for given B, heads, T_q, T_k
    "none": lambda b, h, q, k: None,
    "one for all": lambda b, h, q, k: (q, k),
    "keys": lambda b, h, q, k: (b, 1, 1, k),
    "heads": lambda b, h, q, k: (1, h, q, k),
    "all": lambda b, h, q, k: (b, h, q, k),
}


@st.composite
def problems(draw):
    """q, k, v of any sizes, and a mask of any kind, in which a query may see nothing at all."""
    b, h, t_q, t_k, d, d_v = (draw(st.integers(1, 5)) for _ in range(6))
    q, k, v = noise(b, h, t_q, d, seed=1), noise(b, h, t_k, d, seed=2), noise(b, h, t_k, d_v)
    shape = MASKS[draw(st.sampled_from(sorted(MASKS)))](b, h, t_q, t_k)
    share = draw(st.sampled_from([0.3, 0.7, 1.0]))
    seed = draw(st.integers(0, 99))
    return q, k, v, None if shape is None else torch.rand(shape, generator=seeded(seed)) < share


@given(problems())
def test_attend_is_torchs(problem):
    q, k, v, mask = problem
    theirs = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    atol = 2 * error_of_heads(q, k, v)
    torch.testing.assert_close(attend(q, k, v, mask), theirs, rtol=0, atol=atol)


@given(problems())
def test_rows_sum_to_one_or_see_nothing(problem):
    q, k, _, mask = problem
    weights = attention_weights(q, k, mask)
    seen = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask.expand_as(weights)
    expected = seen.any(-1).double()
    torch.testing.assert_close(weights.sum(-1), expected, rtol=0, atol=2 * EPS * k.shape[-2])
    assert not weights[~seen].any()
    assert (weights[seen] > 0).all()


@given(problems(), st.floats(-10, 10))
def test_a_constant_added_to_the_scores_of_a_query_changes_nothing(problem, size):
    q, k, v, mask = problem
    moved = k + size * noise(k.shape[-1], seed=3)  # q (k + u)^T = q k^T + q u^T
    atol = 2 * error_of_heads(q, moved, v, dk=EPS * largest(moved))
    torch.testing.assert_close(attend(q, moved, v, mask), attend(q, k, v, mask), rtol=0, atol=atol)


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(problem, random):
    q, k, v, mask = problem
    order = random.sample(range(k.shape[-2]), k.shape[-2])
    moved = None if mask is None else mask[..., order]
    found = attend(q, k[..., order, :], v[..., order, :], moved)
    atol = 2 * error_of_heads(q, k, v)
    torch.testing.assert_close(found, attend(q, k, v, mask), rtol=0, atol=atol)


def test_gradients_of_the_formula_are_those_of_finite_differences():
    q, k, v = (noise(1, 2, t, 3, seed=t).requires_grad_() for t in (2, 4, 4))
    mask = random_mask(2, 4)
    mask[1] = False
    assert torch.autograd.gradcheck(attend, (q, k, v))
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, mask), (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_hidden_keys_weigh_exactly_nothing_in_every_precision(dtype):
    q, k = noise(4, 8).to(dtype), 10 * noise(4, 8, seed=1).to(dtype)
    weights = attention_weights(q, k, causal_mask(4))
    assert torch.equal(weights, weights.tril())
    assert weights.dtype == dtype
    assert weights[0].tolist() == [1, 0, 0, 0]


# Parity with nn.MultiheadAttention


def to_torch(ours: Attention) -> nn.MultiheadAttention:
    """nn.MultiheadAttention with the weights of ours."""
    width = ours.context_dim or ours.dim
    options = {} if ours.context_dim is None else {"kdim": width, "vdim": width}
    theirs = nn.MultiheadAttention(ours.dim, ours.heads, batch_first=True, **options).double()
    if ours.context_dim is None:
        weights, bias = ours.qkv.weight.chunk(3), ours.qkv.bias
    else:
        weights = (ours.q.weight, *ours.kv.weight.chunk(2))
        bias = torch.cat([ours.q.bias, ours.kv.bias])
    if width == ours.dim:
        state = {"in_proj_weight": torch.cat(weights)}
    else:
        state = dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=True))
    state |= {"in_proj_bias": bias}
    state |= {"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias}
    theirs.load_state_dict(state)
    return theirs


def call_torch(theirs: nn.MultiheadAttention, *sequences: Tensor, **options):
    return theirs(sequences[0], sequences[-1], sequences[-1], **options)


def check_parity(kind: str, heads: int = HEADS, mask: Tensor | None = None, **theirs_mask) -> None:
    """Outputs and weights, by head and averaged, are torch's; `theirs_mask` is the mask there."""
    ours, sequences = build(kind, heads), inputs(kind)
    theirs, close = to_torch(ours), tolerance(ours, *sequences)
    output, weights = ours(*sequences, mask=mask), ours.weights(*sequences, mask=mask)
    assert weights.shape == (B, heads, 5, keys_of(kind))
    for average in (False, True):
        expected, maps = call_torch(theirs, *sequences, average_attn_weights=average, **theirs_mask)
        torch.testing.assert_close(output, expected, **close)
        torch.testing.assert_close(weights.mean(1) if average else weights, maps, **close)
    expected, _ = call_torch(theirs, *sequences, need_weights=False, **theirs_mask)
    torch.testing.assert_close(output, expected, **close)


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_weights_are_torchs(kind, heads):
    check_parity(kind, heads)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_opposite_of_those_of_torchs_module(kind):
    mask = random_mask(5, keys_of(kind))
    check_parity(kind, mask=mask, attn_mask=~mask)
    with pytest.raises(AssertionError, match="not close"):
        check_parity(kind, mask=mask, attn_mask=mask)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_the_opposite_of_torchs_too(kind):
    t = keys_of(kind)
    mask = padding_mask(torch.tensor([t, 3]), t)
    check_parity(kind, mask=mask, key_padding_mask=~mask[:, 0, 0])


def test_a_mask_may_differ_by_sequence_and_head():
    mask = random_mask(B, HEADS, 5, 7)
    check_parity("cross", mask=mask, attn_mask=~mask.flatten(0, 1))


def test_self_attention_is_torchs_here():
    check_parity("self")


def test_cross_attention_is_torchs_here():
    check_parity("cross, other width")


def test_masked_attention_is_torchs_here():
    test_masks_are_the_opposite_of_those_of_torchs_module("self")


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_torchs_and_reach_every_projection(kind):
    ours, sequences = build(kind), inputs(kind)
    theirs = to_torch(ours)
    direction = noise(B, 5, DIM, seed=12)
    (ours(*sequences) * direction).sum().backward()
    (call_torch(theirs, *sequences)[0] * direction).sum().backward()
    ones = [ours.qkv] if kind == "self" else [ours.q, ours.kv]
    found = [torch.cat([layer.bias.grad for layer in ones]), ours.out.weight.grad]
    # assert_close's 1e-7 for float64 is a thousand times what the sums above can be off by.
    for gradient, name in zip(found, ("in_proj_bias", "out_proj.weight"), strict=True):
        torch.testing.assert_close(gradient, theirs.get_parameter(name).grad)
    matrices = [part for layer in ones for part in layer.weight.grad.split(DIM)]
    assert len(matrices) == 3
    assert all(largest(gradient) > 1e-3 for gradient in (*matrices, ours.out.weight.grad))
    # A key's bias adds q b^T to every score of a query, which changes no weight.
    queries, keys, values = found[0].split(DIM)
    assert largest(keys) < 1e-10 < 1e-3 < min(largest(queries), largest(values))


# The module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_what_the_forward_pass_uses(kind, masked):
    module, sequences = build(kind), inputs(kind)
    mask = random_mask(B, 1, 5, keys_of(kind)) if masked else None
    value = module.project(*sequences)[2]
    heads = module.weights(*sequences, mask=mask) @ value
    expected = module.out(torch.cat(heads.unbind(1), dim=-1))
    close = tolerance(module, *sequences)
    torch.testing.assert_close(module(*sequences, mask=mask), expected, **close)


def test_weights_of_the_forward_pass_here():
    test_weights_are_what_the_forward_pass_uses("self", masked=True)


def test_names_and_shapes_of_the_parameters():
    shapes = {name: tuple(value.shape) for name, value in build().named_parameters()}
    out = {"out.weight": (DIM, DIM), "out.bias": (DIM,)}
    assert shapes == {"qkv.weight": (3 * DIM, DIM), "qkv.bias": (3 * DIM,)} | out
    cross = build("cross, other width")
    shapes = {name: tuple(value.shape) for name, value in cross.named_parameters()}
    queries = {"q.weight": (DIM, DIM), "q.bias": (DIM,)}
    assert shapes == queries | {"kv.weight": (2 * DIM, 8), "kv.bias": (2 * DIM,)} | out


@pytest.mark.parametrize("kind", KINDS)
def test_initial_matrices_are_drawn_one_by_one(kind):
    module = build(kind)
    torch.manual_seed(0)
    module.initialise()
    torch.manual_seed(0)
    widths = [DIM, *2 * [KINDS[kind] or DIM], DIM]
    expected = [
        nn.init.xavier_uniform_(torch.empty(DIM, width, dtype=torch.float64)) for width in widths
    ]
    found = [part for layer in module.children() for part in layer.weight.split(DIM)]
    for matrix, drawn in zip(found, expected, strict=True):
        assert torch.equal(matrix, drawn)
    assert not any(layer.bias.any() for layer in module.children())


def test_initial_matrices_here():
    test_initial_matrices_are_drawn_one_by_one("self")


@given(st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_self_attention_moves_with_the_order_of_its_tokens(random):
    module, (x,) = build(), inputs()
    order = random.sample(range(5), 5)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order], **tolerance(module, x))


# Masks


def test_causal_mask_is_a_lower_triangle():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True] * 3]
    assert causal_mask(1).tolist() == [[True]]


def test_padding_mask_shows_the_first_of_each_sequence():
    mask = padding_mask(torch.tensor([2, 0, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True, True, False], [False] * 3, [True] * 3]


@given(st.integers(0, 4), st.integers(0, 99))
def test_causal_attention_does_not_see_what_comes_after(t, seed):
    module, (x,) = build(), inputs()
    other = torch.cat([x[:, : t + 1], 100 * noise(B, 4 - t, DIM, seed=seed)], dim=1)
    before, after = (module(values, mask=causal_mask(5))[:, : t + 1] for values in (x, other))
    assert torch.equal(before, after)  # a hidden key adds an exact 0
    assert t == 4 or not torch.equal(module(x)[:, : t + 1], module(other)[:, : t + 1])


def test_causal_attention_here():
    module, (x,) = build(), inputs()
    other = torch.cat([x[:, :3], noise(B, 2, DIM, seed=1)], dim=1)
    before, after = (module(values, mask=causal_mask(5))[:, :3] for values in (x, other))
    assert torch.equal(before, after)


def test_causal_attention_has_no_gradient_from_what_comes_after():
    module, (x,) = build(), inputs()
    x.requires_grad_()
    for t in range(5):
        (gradient,) = torch.autograd.grad(module(x, mask=causal_mask(5))[:, t].sum(), x)
        assert not gradient[:, t + 1 :].any()
        assert (gradient[:, : t + 1].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_as_if_it_were_not_there(kind):
    module, sequences = build(kind), inputs(kind)
    *queries, keys = sequences
    mask = padding_mask(torch.tensor([3, 3]), keys.shape[1])
    filled = keys.clone()
    filled[:, 3:] = 1e3
    short = module(*queries, keys[:, :3])
    found, noisy = (module(*queries, k, mask=mask)[:, : short.shape[1]] for k in (keys, filled))
    torch.testing.assert_close(found, short, **tolerance(module, *sequences))
    assert torch.equal(noisy, found)


def test_what_may_see_nothing_gets_zeros_and_no_gradient():
    module, (x,) = build(), inputs()
    x.requires_grad_()
    mask = causal_mask(5) & padding_mask(torch.tensor([5, 0]), 5)
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")  # a NaN on the way raises; its traceback is not needed
        output, weights = module(x, mask=mask), module.weights(x, mask=mask)
        (output.square().sum() + weights.square().sum()).backward()
    assert torch.equal(output[1], module.out.bias.expand(5, DIM))
    assert not weights[1].any()
    torch.testing.assert_close(output[:1], module(x[:1], mask=causal_mask(5)))
    assert not x.grad[1].any()
    gradients = [x.grad[0], *(parameter.grad for parameter in module.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert x.grad[0].any()


# Bad input


@pytest.mark.parametrize(
    ("dim", "heads"),
    [(12, 5), (12, 0), (12, -3)],
)
def test_heads_that_do_not_divide_the_width_are_refused(dim, heads):
    with pytest.raises(ValueError, match=f"heads={heads} does not divide dim={dim}"):
        Attention(dim, heads)


def test_masks_that_are_not_bool_are_refused():
    module, (x,) = build(), inputs()
    for mask in (causal_mask(5).double(), causal_mask(5).long()):
        for call in (module, module.weights):
            with pytest.raises(ValueError, match=r"expected torch\.bool, True = may be seen"):
                call(x, mask=mask)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (7,),
        (5, 6),
        (7, 5),
        (B, 5, 7),
        (HEADS, 5, 7),
        (B, 2, 5, 7),
        (3, 1, 1, 7),
        (1, B, 1, 5, 7),
    ],
)
def test_masks_of_another_shape_are_refused(shape):
    module, sequences = build("cross"), inputs("cross")
    mask = torch.ones(shape, dtype=torch.bool)
    for call in (module, module.weights):
        with pytest.raises(ValueError, match="does not fit scores of shape") as caught:
            call(*sequences, mask=mask)
        assert str(list(shape)) in str(caught.value)
        assert f"[{B}, {HEADS}, 5, 7]" in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (5, 1), (B, 1, 1, 7), (1, HEADS, 1, 1)])
def test_masks_that_broadcast_are_taken_as_if_they_were_whole(shape):
    module, sequences = build("cross"), inputs("cross")
    mask = random_mask(*shape)
    whole = mask.expand(B, HEADS, 5, 7).contiguous()
    close = tolerance(module, *sequences)
    torch.testing.assert_close(
        module(*sequences, mask=mask), module(*sequences, mask=whole), **close
    )
    weights = module.weights(*sequences, mask=mask)
    assert torch.equal(weights, module.weights(*sequences, mask=whole))


@pytest.mark.parametrize(
    ("kind", "shapes", "complaint"),
    [
        ("self", [(B, 5, 8)], r"x of shape \[2, 5, 8\]: expected \[B, T, 12\]"),
        ("self", [(5, DIM)], r"x of shape \[5, 12\]"),
        ("self", [(B, 5, DIM), (B, 7, DIM)], "build it with context_dim"),
        ("cross", [(B, 5, DIM)], r"context None: expected \[2, T_k, 12\]"),
        ("cross", [(B, 5, DIM), (7, DIM)], r"context \[7, 12\]: expected"),
        ("cross", [(B, 5, DIM), (B, 7, DIM, 1)], r"context \[2, 7, 12, 1\]: expected"),
        ("cross", [(B, 5, DIM), (1, 7, DIM)], r"context \[1, 7, 12\]: expected"),
        ("cross, other width", [(B, 5, DIM), (B, 7, DIM)], r"expected \[2, T_k, 8\]"),
        ("cross, other width", [(B, 5, 8), (B, 7, 8)], "x of shape"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(kind, shapes, complaint):
    module = build(kind)
    sequences = [noise(*shape) for shape in shapes]
    for call in (module, module.weights):
        with pytest.raises(ValueError, match=complaint):
            call(*sequences)


def test_queries_and_keys_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="queries are 3 wide, keys 4"):
        attention.attend(noise(2, 3), noise(5, 4), noise(5, 4))


@pytest.mark.parametrize("lengths", [[[1, 2]], [1.0, 2.0], [1, 6], [-1, 2]])
def test_lengths_that_are_none_are_refused(lengths):
    with pytest.raises(ValueError, match="whole numbers from 0 to 5"):
        padding_mask(torch.tensor(lengths), 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_nothing_gives_nothing(kind):
    module, sequences = build(kind), [x[:0] for x in inputs(kind)]
    found = module(*sequences)
    assert found.shape == sequences[0].shape
    found.sum().backward()
    assert module.weights(*sequences).shape[0] == 0
