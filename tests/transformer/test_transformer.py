"""Transformer: parity with torch's, what positions and masks promise, training, and decoding."""

import functools
import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mini import transformer
from mini.attention import Attention, causal_mask, padding_mask
from mini.transformer import Decoder, Encoder, Transformer, beam_search, greedy, shift_right
from tests.planted import defaults

DIM, HEADS, DEPTH, HIDDEN, V = 8, 2, 2, 12, 7
B, T, S = 2, 5, 6  # batch, target and source lengths
START, END, PAD = 0, 1, 2
SIZES = (DIM, HEADS, DEPTH, HIDDEN)
EPS = torch.finfo(torch.float64).eps
# Numbers here are of order 1 to 10, sums have at most 20 terms, and some 20 operations follow each
# other, so two correct computations differ by less than 10 * 20 * 20 eps; a wrong term is no
# smaller than a hundredth.
CLOSE = {"rtol": 0, "atol": 1e-12}
NORMS = pytest.mark.parametrize("norm_first", [False, True])


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(2, V, shape, generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with every parameter random: zeros would hide a missing term."""
    module = module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 * noise(*parameter.shape, seed=1000 * seed + i))
    return module.eval()


def small(seed: int = 0, vocabulary: int = V, **options) -> Transformer:
    return randomised(Transformer(vocabulary, *SIZES, **options), seed)


def encoder(norm_first: bool = False, dropout: float = 0.0) -> Encoder:
    return randomised(Encoder(*SIZES, dropout=dropout, norm_first=norm_first))


def decoder(norm_first: bool = False, dropout: float = 0.0) -> Decoder:
    return randomised(Decoder(*SIZES, dropout=dropout, norm_first=norm_first))


# Parity with torch's modules

RENAMED = {
    "cross_attention.q.": "multihead_attn.in_proj_",
    "cross_attention.out.": "multihead_attn.out_proj.",
    "attention.qkv.": "self_attn.in_proj_",
    "attention.out.": "self_attn.out_proj.",
    "feed_forward.inner": "linear1",
    "feed_forward.outer": "linear2",
    "residual1.norm": "norm1",
    "residual2.norm": "norm2",
    "residual3.norm": "norm3",
}


def with_weights_of(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """torch's module with the weights of ours: in both, they are named by the same parts."""
    given, state = ours.state_dict(), {}
    for name, value in given.items():
        if ".kv." in name:
            continue
        if "cross_attention.q." in name:
            value = torch.cat([value, given[name.replace(".q.", ".kv.")]])
        for mine, yours in RENAMED.items():
            name = name.replace(mine, yours)
        state[name] = value
    theirs = theirs.double()
    theirs.load_state_dict(state)
    return theirs.eval()


def torchs(kind: type, norm_first: bool, dropout: float = 0.0) -> nn.Module:
    """A layer of torch's; its extra dropouts, which the paper has not, are off."""
    options = {"norm_first": norm_first, "batch_first": True}
    layer = kind(DIM, HEADS, HIDDEN, dropout, **options)
    layer.dropout.p = layer.self_attn.dropout = 0.0
    if kind is nn.TransformerDecoderLayer:
        layer.multihead_attn.dropout = 0.0
    return layer


ENCODER_MASKS = {  # ours, and torch's, where True = may not be seen
    "none": (None, {}),
    "causal": (causal_mask(S), {"src_mask": ~causal_mask(S)}),
    "padding": (
        padding_mask(torch.tensor([S, 3]), S),
        {"src_key_padding_mask": ~padding_mask(torch.tensor([S, 3]), S)[:, 0, 0]},
    ),
    "both": (
        causal_mask(S) & padding_mask(torch.tensor([S, 3]), S),
        {
            "src_mask": ~causal_mask(S),
            "src_key_padding_mask": ~padding_mask(torch.tensor([S, 3]), S)[:, 0, 0],
        },
    ),
}


@pytest.mark.parametrize("masks", ENCODER_MASKS)
@NORMS
def test_an_encoder_layer_is_torchs(norm_first, masks):
    ours, x = encoder(norm_first).layers[0], noise(B, S, DIM)
    theirs = with_weights_of(ours, torchs(nn.TransformerEncoderLayer, norm_first))
    mine, yours = ENCODER_MASKS[masks]
    torch.testing.assert_close(ours(x, mask=mine), theirs(x, **yours), **CLOSE)


@NORMS
def test_a_decoder_layer_is_torchs(norm_first):
    ours, x, memory = decoder(norm_first).layers[0], noise(B, T, DIM), noise(B, S, DIM, seed=1)
    theirs = with_weights_of(ours, torchs(nn.TransformerDecoderLayer, norm_first))
    torch.testing.assert_close(ours(x, memory, None, None), theirs(x, memory), **CLOSE)
    seen, known = causal_mask(T), padding_mask(torch.tensor([2, S]), S)
    masks = {"tgt_mask": ~seen, "memory_key_padding_mask": ~known[:, 0, 0]}
    expected = theirs(x, memory, **masks)
    torch.testing.assert_close(ours(x, memory, seen, known), expected, **CLOSE)


@pytest.mark.parametrize("masks", ENCODER_MASKS)
@NORMS
def test_an_encoder_is_torchs_with_a_last_norm_if_norms_come_first(norm_first, masks):
    ours, x = encoder(norm_first), noise(B, S, DIM)
    norm = nn.LayerNorm(DIM) if norm_first else None
    layer = torchs(nn.TransformerEncoderLayer, norm_first)
    stack = nn.TransformerEncoder(layer, DEPTH, norm, enable_nested_tensor=False)
    theirs, (mine, yours) = with_weights_of(ours, stack), ENCODER_MASKS[masks]
    yours = {{"src_mask": "mask"}.get(name, name): mask for name, mask in yours.items()}
    torch.testing.assert_close(ours(x, mask=mine), theirs(x, **yours), **CLOSE)


def test_masks_of_torch_mean_the_opposite():
    ours, x = encoder(), noise(B, S, DIM)
    layer = torchs(nn.TransformerEncoderLayer, False)
    theirs = with_weights_of(ours, nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False))
    mask = causal_mask(S).fliplr()  # each position sees something, and something not
    mask[-1, 0] = False
    torch.testing.assert_close(ours(x, mask=mask), theirs(x, mask=~mask), **CLOSE)
    assert (ours(x, mask=mask) - theirs(x, mask=mask)).abs().max() > 1e-2


@NORMS
def test_a_decoder_is_torchs(norm_first):
    ours, x, memory = decoder(norm_first), noise(B, T, DIM), noise(B, S, DIM, seed=1)
    layer = torchs(nn.TransformerDecoderLayer, norm_first)
    stack = nn.TransformerDecoder(layer, DEPTH, nn.LayerNorm(DIM) if norm_first else None)
    theirs, known = with_weights_of(ours, stack), padding_mask(torch.tensor([2, S]), S)
    options = {"tgt_mask": ~causal_mask(T), "memory_key_padding_mask": ~known[:, 0, 0]}
    found = ours(x, memory, memory_mask=known)
    torch.testing.assert_close(found, theirs(x, memory, **options), **CLOSE)


def check_model(norm_first: bool) -> None:
    """The whole model, around torch's: embeddings, positions and logits are written out here."""
    ours = small(norm_first=norm_first)
    options = {"norm_first": norm_first, "batch_first": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its nested tensors need post-norm
        theirs = nn.Transformer(DIM, HEADS, DEPTH, DEPTH, HIDDEN, 0, **options)
    if not norm_first:  # torch has a norm more, also after the last post-norm layer
        theirs.encoder.norm = theirs.decoder.norm = None
    state = nn.ModuleDict({"encoder": ours.encoder, "decoder": ours.decoder})
    theirs, E = with_weights_of(state, theirs), ours.embedding.weight
    source, read, lengths = tokens(B, S), tokens(B, T, seed=1), torch.tensor([S, 2])

    def embed(sequence: Tensor) -> Tensor:
        x = E[sequence] * DIM**0.5
        for t, i in itertools.product(range(x.shape[1]), range(DIM)):
            angle = t / 10_000 ** ((i - i % 2) / DIM)
            x[:, t, i] += math.cos(angle) if i % 2 else math.sin(angle)
        return x

    hidden = torch.arange(S) >= lengths[:, None]
    memory = theirs.encoder(embed(source), src_key_padding_mask=hidden)
    masks = {"tgt_mask": ~causal_mask(T), "memory_key_padding_mask": hidden}
    logits = theirs.decoder(embed(read), memory, **masks) @ E.T
    torch.testing.assert_close(ours(source, read, lengths), logits, **CLOSE)


@NORMS
def test_the_model_is_torchs(norm_first):
    check_model(norm_first)


@NORMS
def test_gradients_are_torchs(norm_first):
    ours, x, memory = decoder(norm_first).layers[0], noise(B, T, DIM), noise(B, S, DIM, seed=1)
    theirs = with_weights_of(ours, torchs(nn.TransformerDecoderLayer, norm_first))
    x.requires_grad_()
    memory.requires_grad_()
    direction, masks = noise(B, T, DIM, seed=2), causal_mask(T)
    found = torch.autograd.grad((ours(x, memory, masks, None) * direction).sum(), (x, memory))
    output = theirs(x, memory, tgt_mask=~masks)
    expected = torch.autograd.grad((output * direction).sum(), (x, memory))
    # Backwards, sums run over all positions, and post-norm divides by small deviations.
    for mine, yours in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-10, atol=1e-11)


@NORMS
def test_dropout_is_drawn_where_torch_draws_it(norm_first):
    x, memory = noise(1, T, DIM), noise(1, S, DIM, seed=1)  # torch draws in order of [T, B, D]
    pairs = [
        (encoder(norm_first, 0.5), nn.TransformerEncoderLayer, (x,), ()),
        (decoder(norm_first, 0.5), nn.TransformerDecoderLayer, (x, memory), (None, None)),
    ]
    for stack, kind, inputs, no_masks in pairs:
        ours = stack.layers[0].train()
        theirs = with_weights_of(ours, torchs(kind, norm_first, 0.5)).train()
        torch.manual_seed(0)
        found = ours(*inputs, *no_masks)
        torch.manual_seed(0)
        torch.testing.assert_close(found, theirs(*inputs), **CLOSE)
        assert not torch.equal(found, ours.eval()(*inputs, *no_masks))


def test_dropout_is_torchs_here():
    test_dropout_is_drawn_where_torch_draws_it(False)


def test_with_all_dropped_a_norm_first_layer_does_nothing():
    layer, x = encoder(True, dropout=1.0).layers[0].train(), noise(B, S, DIM)
    assert torch.equal(layer(x), x)


def test_embedded_sequences_are_dropped_out():
    model = small(dropout=1.0).train()
    assert not model._placed(noise(B, T, DIM)).any()
    kept = small(dropout=0.25).train()._placed(torch.ones(1, 2000, DIM).double())
    assert abs((kept == 0).double().mean() - 0.25) < 0.02  # five standard deviations


# Initial values and sizes


def test_the_defaults_are_the_base_model():
    base = {"dim": 512, "heads": 8, "depth": 6, "hidden": 2048, "dropout": 0.1}
    given = defaults(Transformer.__init__)
    assert {name: given[name] for name in base} == base
    assert not given["norm_first"]
    assert {name: defaults(beam_search)[name] for name in ("width", "alpha")} == {
        "width": 4,
        "alpha": 0.6,
    }
    assert defaults(transformer.smoothed_loss)["smoothing"] == 0.1


def parameters(**sizes: int) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in Transformer(37_000, **sizes).parameters())


def test_parameters_are_counted_as_in_table_3():
    d, hidden = 512, 2048
    feed_forward = 2 * d * hidden + hidden + d
    layers = (4 * d * d + 4 * d + 4 * d) + (8 * d * d + 8 * d + 6 * d) + 2 * feed_forward
    assert parameters() == 6 * layers + 37_000 * d
    millions = {"base": 65, "depth 2": 36, "wide": 90}  # as printed, to a million or two
    found = {"base": parameters(), "depth 2": parameters(depth=2), "wide": parameters(hidden=4096)}
    for name, count in millions.items():
        assert abs(found[name] / 1e6 - count) < 2.5, name
    assert parameters(heads=1) == parameters(heads=32) == parameters()
    assert parameters(norm_first=True) == parameters() + 2 * 2 * d


def test_layers_start_apart_and_matrices_xavier_uniform():
    torch.manual_seed(0)
    model = Transformer(1000, 64, 4, 2, 96)
    for stack in (model.encoder, model.decoder):
        first, second = (layer.state_dict() for layer in stack.layers)
        assert not any(torch.equal(first[n], second[n]) for n in first if first[n].ndim == 2)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        elif name != "embedding.weight":
            parts = {"qkv": 3, "kv": 2}.get(name.split(".")[-2], 1)
            for part in weight.chunk(parts):
                bound = math.sqrt(6 / sum(part.shape))
                assert 0.9 * bound < part.abs().max() <= bound, name
    x = model.embedding(torch.arange(1000)[None])
    assert abs(x.std() - 1) < 0.02  # 64,000 numbers: five standard deviations


# The feed-forward network


def test_feed_forward_by_hand():
    layer = transformer.FeedForward(1, 2)
    state = {
        "inner.weight": [[1.0], [-1.0]],
        "inner.bias": [0.0, 1.0],
        "outer.weight": [[2.0, -3.0]],
        "outer.bias": [0.5],
    }
    layer.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    # x = 2: (2, -1) -> (2, 0) -> 4.5; x = -1: (-1, 2) -> (0, 2) -> -5.5
    assert layer(torch.tensor([[2.0], [-1.0]])).tolist() == [[4.5], [-5.5]]


# Embeddings and positions


def test_embeddings_are_scaled_and_tied():
    embedding = randomised(transformer.Embedding(V, DIM))
    sequence = tokens(B, T)
    expected = nn.functional.embedding(sequence, embedding.weight) * DIM**0.5
    torch.testing.assert_close(embedding(sequence), expected, **CLOSE)
    h = noise(B, T, DIM)
    expected = nn.functional.linear(h, embedding.weight)
    torch.testing.assert_close(embedding.logits(h), expected, **CLOSE)
    model = small()
    assert [n for n, w in model.named_parameters() if V in w.shape] == ["embedding.weight"]
    model(sequence, sequence).logsumexp(-1).sum().backward()
    assert model.embedding.weight.grad.any()


evens = st.integers(1, 32).map(lambda i: 2 * i)


@given(st.integers(0, 40), evens)
def test_sinusoids_are_the_formula(length, dim):
    found = transformer.sinusoids(length, dim, dtype=torch.float64)
    assert found.shape == (length, dim)
    for t, i in itertools.product(range(length), range(dim)):
        angle = t / 10_000 ** ((i - i % 2) / dim)
        expected = math.cos(angle) if i % 2 else math.sin(angle)
        assert abs(found[t, i] - expected) <= 4 * EPS * (1 + angle)


def test_sinusoids_are_the_formula_here():
    for t, i in itertools.product(range(5), range(6)):
        angle = t / 10_000 ** ((i - i % 2) / 6)
        expected = math.cos(angle) if i % 2 else math.sin(angle)
        assert abs(transformer.sinusoids(5, 6, dtype=torch.float64)[t, i] - expected) < 1e-14


@given(st.integers(0, 500), evens)
def test_a_shift_is_a_rotation_of_the_sinusoids(k, dim):
    n = 20
    found = transformer.sinusoids(n + k, dim, dtype=torch.float64)
    w = 10_000.0 ** -(torch.arange(0, dim, 2).double() / dim)
    cos, sin = (k * w).cos(), (k * w).sin()
    blocks = torch.stack([cos, sin, -sin, cos], dim=-1).view(-1, 2, 2)  # (sin, cos) -> at t + k
    R = torch.block_diag(*blocks)
    atol = 8 * EPS * (n + k)  # an angle of t w has a relative error of some eps
    torch.testing.assert_close(found[:n] @ R.T, found[k:], rtol=0, atol=atol)
    torch.testing.assert_close(R @ R.T, torch.eye(dim).double(), rtol=0, atol=4 * EPS)


@given(evens)
def test_products_of_sinusoids_depend_on_the_distance_alone(dim):
    pe = transformer.sinusoids(30, dim, dtype=torch.float64)
    products = pe @ pe.T
    torch.testing.assert_close(products.diagonal(), torch.full((30,), dim / 2).double())
    for lag in range(1, 30):
        line = products.diagonal(lag)
        atol = 8 * EPS * 30 * dim
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=0, atol=atol)


def test_sinusoids_are_rounded_once():
    exact = transformer.sinusoids(100_000, 4, dtype=torch.float64)
    assert abs(exact[99_999, 0] - math.sin(99_999)) < 1e-10
    assert torch.equal(transformer.sinusoids(100_000, 4), exact.float())
    assert transformer.sinusoids(3, 4, dtype=torch.bfloat16).dtype == torch.bfloat16


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=10)
def test_without_positions_the_encoder_moves_with_the_order_of_its_tokens(random, norm_first):
    module, x = encoder(norm_first), noise(B, S, DIM)
    order = random.sample(range(S), S)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order], **CLOSE)
    if order != sorted(order):
        place = transformer.sinusoids(S, DIM, dtype=torch.float64)
        found, moved = module(x[:, order] + place), module(x + place)[:, order]
        assert (found - moved).abs().max() > 1e-3


def test_without_positions_the_model_reads_a_set():
    source, read, order = tokens(B, S), tokens(B, T, seed=1), [3, 0, 5, 1, 4, 2]
    model = small(positions=False)
    torch.testing.assert_close(model(source[:, order], read), model(source, read), **CLOSE)
    model = small()
    assert (model(source[:, order], read) - model(source, read)).abs().max() > 1e-3


# What masks promise


@given(st.integers(0, T - 1), st.integers(1, 99))
@settings(max_examples=25)
def test_a_later_token_changes_no_earlier_logits(t, seed):
    model, source, read = small(), tokens(B, S), tokens(B, T)
    other = torch.cat([read[:, :t], tokens(B, T - t, seed=seed)], dim=1)
    before, after = model(source, read), model(source, other)
    assert torch.equal(before[:, :t], after[:, :t])
    changed = (read != other).any(0).nonzero()
    assert not len(changed) or not torch.equal(before[:, changed[0]], after[:, changed[0]])


@NORMS
def test_no_gradient_comes_from_what_is_later(norm_first):
    module, memory = decoder(norm_first), noise(B, S, DIM, seed=1)
    x = noise(B, T, DIM).requires_grad_()
    for t in range(T):
        (gradient,) = torch.autograd.grad((module(x, memory)[:, t] * noise(DIM)).sum(), x)
        assert not gradient[:, t + 1 :].any()
        assert (gradient[:, : t + 1].abs().amax(-1) > 0).all()


@given(st.lists(st.integers(1, S), min_size=B, max_size=B), st.integers(1, 99))
@settings(max_examples=25)
def test_padding_of_the_source_changes_nothing(lengths, seed):
    model, source, read = small(), tokens(B, S), tokens(B, T)
    given = torch.tensor(lengths)
    filled = torch.where(torch.arange(S) < given[:, None], source, tokens(B, S, seed=seed))
    logits = model(source, read, given)
    assert torch.equal(model(filled, read, given), logits)
    for b, n in enumerate(lengths):
        alone = model(source[b : b + 1, :n], read[b : b + 1])
        torch.testing.assert_close(logits[b : b + 1], alone, **CLOSE)


def test_padding_changes_nothing_here():
    model, source, read, lengths = small(), tokens(B, S), tokens(B, T), torch.tensor([2, 4])
    logits = model(source, read, lengths)
    for b, n in enumerate(lengths):
        alone = model(source[b : b + 1, :n], read[b : b + 1])
        torch.testing.assert_close(logits[b : b + 1], alone, **CLOSE)


def test_a_source_of_another_kind():
    columns = randomised(nn.Linear(5, DIM), seed=3)
    model, strip, read = small(source=columns), noise(B, S, 5), tokens(B, T)
    lengths = torch.tensor([S, 4])
    memory = model.encode(strip, lengths)
    x = columns(strip) + transformer.sinusoids(S, DIM, dtype=torch.float64)
    torch.testing.assert_close(memory, model.encoder(x, mask=padding_mask(lengths, S)), **CLOSE)
    assert torch.equal(model(strip, read, lengths), model.decode(read, memory, lengths))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_is_kept(dtype):
    model = small().to(dtype)
    assert model(tokens(B, S), tokens(B, T)).dtype == dtype


# Training


def test_the_target_is_shifted_by_one():
    assert shift_right(torch.tensor([[5, 6, 1], [4, 1, 1]]), 0).tolist() == [[0, 5, 6], [0, 4, 1]]
    assert shift_right(torch.tensor([[5]]), 3).tolist() == [[3]]


@given(st.integers(1, 10**6), st.integers(1, 4096), st.integers(1, 20_000))
def test_noam_is_the_formula_and_peaks_at_warmup(step, dim, warmup):
    rate = transformer.noam(step, dim=dim, warmup=warmup)
    rising, falling = step / warmup**1.5, 1 / math.sqrt(step)
    expected = (rising if step <= warmup else falling) / math.sqrt(dim)
    assert math.isclose(rate, expected, rel_tol=1e-12)
    peak = transformer.noam(warmup, dim=dim, warmup=warmup)
    assert math.isclose(peak, 1 / math.sqrt(dim * warmup), rel_tol=1e-12)
    assert rate < peak or step == warmup


def test_noam_of_the_paper():
    rates = [transformer.noam(step, dim=512, warmup=4000) for step in (1, 2000, 4000, 16_000)]
    assert [f"{rate:.3g}" for rate in rates] == ["1.75e-07", "0.000349", "0.000699", "0.000349"]


def test_the_smoothed_loss_by_hand():
    logits, target = noise(B, T, V), tokens(B, T)
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, target[..., None])[..., 0]
    expected = -(0.9 * right + 0.1 * log_p.mean(-1))
    loss = transformer.smoothed_loss(logits, target)
    torch.testing.assert_close(loss, expected.mean(), **CLOSE)
    target[0, 3:] = V - 1
    target[1, :3] = 2
    seen = target != V - 1
    expected = -(0.9 * log_p.gather(-1, target[..., None])[..., 0] + 0.1 * log_p.mean(-1))
    loss = transformer.smoothed_loss(logits, target, padding=V - 1)
    torch.testing.assert_close(loss, expected[seen].mean(), **CLOSE)
    plain = transformer.smoothed_loss(logits, target, smoothing=0.0)
    expected = nn.functional.nll_loss(log_p.flatten(0, 1), target.flatten())
    torch.testing.assert_close(plain, expected, **CLOSE)


@pytest.mark.parametrize(("size", "floor"), [(10, 0.500), (11, 0.514), (100, 0.778)])
def test_the_smoothed_loss_is_lowest_at_its_entropy(size, floor):
    aim = torch.full((size,), 0.1 / size, dtype=torch.float64)
    aim[3] += 0.9
    target = torch.full((1, 1), 3)
    best = transformer.smoothed_loss(aim.log().view(1, 1, -1), target).item()
    assert math.isclose(best, torch.distributions.Categorical(aim).entropy(), rel_tol=1e-12)
    assert round(best, 3) == floor
    for seed in range(5):
        other = (aim.log() + 0.1 * noise(size, seed=seed)).view(1, 1, -1)
        assert transformer.smoothed_loss(other, target) > best


def reversals(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sources of 1 to 4 symbols, their lengths, and the symbols backwards, the end, padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (n,), generator=generator)
    source = torch.randint(3, V, (n, 4), generator=generator)
    target = torch.full((n, 5), PAD)
    for row, symbols, length in zip(target, source, lengths, strict=True):
        row[:length] = symbols[:length].flip(0)
        row[length] = END
    return source, lengths, target


@functools.cache
def trained(norm_first: bool) -> tuple[Transformer, list[float]]:
    """A model that has begun to learn: the answers of random ones hang on no source at all."""
    torch.manual_seed(0)
    model = Transformer(V, 16, 2, 1, 32, dropout=0.0, norm_first=norm_first).double()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    source, lengths, target = reversals(64, seed=0)
    losses = []
    for step in range(1, 121):
        optimizer.param_groups[0]["lr"] = 0.2 * transformer.noam(step, dim=16, warmup=40)
        logits = model(source, shift_right(target, START), lengths)
        loss = transformer.smoothed_loss(logits, target, padding=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(weight.grad is not None for weight in model.parameters())
    return model.eval(), losses


@NORMS
def test_training_lowers_the_loss(norm_first):
    _, losses = trained(norm_first)
    assert losses[-1] < 0.5 * losses[0]


# Decoding


class Table(nn.Module):
    """Logits by table: random for every source and prefix, of 3 tokens, of which 1 is the end."""

    def __init__(self, seed: int, sources: int = 2, steps: int = 4):
        super().__init__()
        self.rows, self.steps = 2 * noise(sources, steps, 3**steps, 3, seed=seed), steps
        self.eval()

    def encode(self, source: Tensor, lengths: Tensor | None) -> Tensor:
        return source.double()

    def decode(self, tokens: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        assert torch.equal(lengths, memory.long())  # each row with its own source's length
        t = tokens.shape[1] - 1
        code = (tokens[:, 1:] * 3 ** torch.arange(t)).sum(-1)
        return self.rows[memory.long(), t, code][:, None]  # [B, 1, V]: the last position's

    def search(self, width: int | None = None, **options) -> list[list[int]]:
        options = {"start": START, "end": END, "steps": self.steps} | options
        source = torch.arange(len(self.rows))
        if width is None:
            return greedy(self, source, source, **options).tolist()
        return beam_search(self, source, source, width=width, **options).tolist()

    def log_p(self, source: int, sequence: tuple[int, ...]) -> float:
        total = 0.0
        for t, token in enumerate(sequence):
            code = sum(3**i * value for i, value in enumerate(sequence[:t]))
            total += self.rows[source, t, code].log_softmax(-1)[token].item()
        return total


def finished(steps: int, size: int = 3) -> list[tuple[int, ...]]:
    """All that decoding may return, without what comes after the end."""
    every = itertools.chain(*(itertools.product(range(size), repeat=n + 1) for n in range(steps)))
    return [
        sequence
        for sequence in every
        if END not in sequence[:-1] and (sequence[-1] == END or len(sequence) == steps)
    ]


def score(log_p: float, length: int, alpha: float) -> float:
    return log_p * 6**alpha / (5 + length) ** alpha


def filled(sequence: tuple[int, ...], steps: int) -> list[int]:
    return [*sequence, *[END] * (steps - len(sequence))]


def by_lists(table: Table, source: int, width: int, alpha: float) -> list[int]:
    """Beam search as one would write it for one source, never stopped early."""
    alive, done = [()], []
    for t in range(1, table.steps + 1):
        longer = [(*prefix, token) for prefix in alive for token in range(3)]
        longer.sort(key=lambda sequence: -table.log_p(source, sequence))
        kept = longer[:width]
        done += [s for s in kept if s[-1] == END or t == table.steps]
        alive = [s for s in kept if s[-1] != END]
    best = max(done, key=lambda s: score(table.log_p(source, s), len(s), alpha))
    return filled(best, table.steps)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_greedy_takes_the_likeliest_token(seed):
    table = Table(seed)
    for source, found in enumerate(table.search()):
        assert found == by_lists(table, source, 1, 0.0)


def test_greedy_decoding_here():
    for seed in range(12):
        table = Table(seed)
        assert table.search() == [by_lists(table, source, 1, 0.0) for source in range(2)]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.6, 3.0]))
@settings(max_examples=30)
def test_a_beam_of_one_is_greedy(seed, alpha):
    table = Table(seed)
    assert table.search(1, alpha=alpha) == table.search()


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.6, 3.0]))
@settings(max_examples=30)
def test_a_wide_beam_misses_nothing(seed, alpha):
    check_exhaustive(seed, alpha)


def check_exhaustive(seed: int, alpha: float) -> None:
    table = Table(seed)
    for source, found in enumerate(table.search(3**4, alpha=alpha)):
        scores = {s: score(table.log_p(source, s), len(s), alpha) for s in finished(4)}
        assert found == filled(max(scores, key=scores.get), 4)


def test_wide_beams_here():
    for seed, alpha in itertools.product(range(12), (0.0, 0.6, 3.0)):
        check_exhaustive(seed, alpha)


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 0.6, 3.0]))
@settings(max_examples=30)
def test_a_narrow_beam_is_that_of_lists(seed, width, alpha):
    table = Table(seed)
    for source, found in enumerate(table.search(width, alpha=alpha)):
        assert found == by_lists(table, source, width, alpha)


def test_narrow_beams_here():
    for seed, width, alpha in itertools.product(range(12), (1, 2, 3), (0.0, 0.6, 3.0)):
        table = Table(seed)
        for source, found in enumerate(table.search(width, alpha=alpha)):
            assert found == by_lists(table, source, width, alpha)


def test_scores_by_hand():
    table = Table(0, sources=1, steps=2)
    table.rows[0, 0, 0] = torch.tensor([0.3, 0.5, 0.2]).log()
    table.rows[0, 1] = torch.tensor([0.8, 0.1, 0.1]).log()
    # "end" has ln 0.5 = -0.693; "0 0" has ln 0.24 = -1.427, divided by (7/6)^alpha. They are equal
    # at alpha = ln(1.427 / 0.693) / ln(7/6) = 4.685; until then, 0 is less likely than the end.
    assert table.search(9, alpha=4.6) == [[END, END]]
    assert table.search(9, alpha=4.8) == [[0, 0]]
    assert table.search(1, alpha=4.8) == [[END, END]]


def test_a_larger_alpha_makes_longer_sentences():
    def words(alpha: float) -> int:
        found = [row for seed in range(20) for row in Table(seed).search(9, alpha=alpha)]
        return sum(token != END for row in found for token in row)

    assert words(0.0) <= words(0.6) < words(3.0)


@NORMS
def test_greedy_is_the_argmax_of_teacher_forcing(norm_first):
    model, _ = trained(norm_first)
    source, lengths, _ = reversals(30, seed=1)
    found = greedy(model, source, lengths, start=START, end=END, steps=4)
    best = model(source, shift_right(found, START), lengths).argmax(-1)
    ends = (found == END).cumsum(1)
    done = ends > (found == END).long()  # after the first end
    assert torch.equal(best.masked_fill(done, END), found)
    assert len(found.unique(dim=0)) > 10  # else it says the same of everything
    assert set(ends[:, -1].tolist()) >= {0, 1}  # some are cut off


@NORMS
def test_a_models_wide_beam_misses_nothing(norm_first):
    model, _ = trained(norm_first)
    source, lengths, _ = reversals(6, seed=2)
    every = finished(3, V)
    target = torch.tensor([filled(sequence, 3) for sequence in every])
    counted = torch.arange(3) < torch.tensor([len(sequence) for sequence in every])[:, None]
    options = {"start": START, "end": END, "steps": 3}
    found = beam_search(model, source, lengths, width=len(every), **options)
    assert not found.requires_grad
    for b in range(len(source)):
        n = len(every)
        logits = model(source[b].expand(n, -1), shift_right(target, START), lengths[b].expand(n))
        log_p = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
        scores = (log_p * counted).sum(1) / ((5 + counted.sum(1)) / 6) ** 0.6
        assert torch.equal(found[b], target[scores.argmax()])
    one = beam_search(model, source, lengths, width=1, **options)
    assert torch.equal(one, greedy(model, source, lengths, **options))


@pytest.mark.parametrize("decode", [greedy, beam_search])
def test_sources_are_decoded_as_if_alone(decode):
    model, _ = trained(False)
    source, lengths, _ = reversals(12, seed=3)
    options = {"start": START, "end": END, "steps": 6}
    together = decode(model, source, lengths, **options)
    assert len(together.unique(dim=0)) > 5
    for b, n in enumerate(lengths):
        alone = decode(model, source[b : b + 1, :n], **options)
        assert torch.equal(together[b : b + 1], alone)


# What one looks at


@NORMS
def test_maps_are_those_of_every_attention(norm_first):
    model, source, read = small(norm_first=norm_first), tokens(B, S), tokens(B, T)
    lengths = torch.tensor([S, 4])
    maps = transformer.attention_maps(model, source, read, lengths=lengths)
    shapes = {f"encoder.layers.{i}.attention": (B, HEADS, S, S) for i in range(DEPTH)}
    for i in range(DEPTH):
        shapes[f"decoder.layers.{i}.attention"] = (B, HEADS, T, T)
        shapes[f"decoder.layers.{i}.cross_attention"] = (B, HEADS, T, S)
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == shapes
    for name, weights in maps.items():
        ones = torch.ones(weights.shape[:-1], dtype=torch.float64)
        torch.testing.assert_close(weights.sum(-1), ones, **CLOSE)
        hidden = (
            weights.triu(1) if "decoder" in name and "cross" not in name else weights[1, ..., 4:]
        )
        assert not hidden.any()
    x = model._placed(model.embedding(source))
    layer = model.encoder.layers[0]
    first = layer.attention.weights(
        layer.residual1.norm(x) if norm_first else x, mask=padding_mask(lengths, S)
    )
    torch.testing.assert_close(maps["encoder.layers.0.attention"], first, **CLOSE)
    assert not any(m._forward_hooks for m in model.modules() if isinstance(m, Attention))


def test_maps_leave_no_hook_behind_after_an_error():
    model = small()
    with pytest.raises(ValueError, match="vocabulary"):
        transformer.attention_maps(model, tokens(B, S), tokens(B, T) + V)
    assert not any(module._forward_hooks for module in model.modules())


# Bad input


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"heads": 3}, "heads=3 does not divide dim=8"),
        ({"depth": 0}, "depth=0: expected sizes of at least 1"),
        ({"hidden": 0}, "hidden=0: expected widths of at least 1"),
        ({"dim": 0}, "dim=0: expected sizes of at least 1"),
        ({"vocabulary": 0}, "vocabulary=0"),
        ({"dropout": 1.5}, "between 0 and 1, but got 1.5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, complaint):
    given = {"vocabulary": V, "dim": DIM, "heads": HEADS, "depth": DEPTH, "hidden": HIDDEN}
    with pytest.raises(ValueError, match=complaint):
        Transformer(**(given | sizes))


@pytest.mark.parametrize("dim", [0, -8])
def test_stacks_without_width_are_refused(dim):
    for kind in (Encoder, Decoder):
        with pytest.raises(ValueError, match=f"dim={dim}, depth=1: expected sizes of at least 1"):
            kind(dim, 2, 1, HIDDEN, dropout=0.0, norm_first=False)


@pytest.mark.parametrize(("length", "dim"), [(3, 5), (3, 0), (-1, 4), (3, -2)])
def test_sinusoids_of_no_size_are_refused(length, dim):
    with pytest.raises(ValueError, match=f"length={length}, dim={dim}: .* an even dim"):
        transformer.sinusoids(length, dim)


@pytest.mark.parametrize("token", [-100, V])
def test_tokens_outside_of_the_vocabulary_are_refused(token):
    model, read = small(), tokens(B, T)
    read[1, 2] = token
    with pytest.raises(ValueError, match="expected int64 from 0 to 6"):
        model(tokens(B, S), read)
    with pytest.raises(ValueError, match="expected int64 from 0 to 6"):
        model(tokens(B, S).double(), tokens(B, T))


@pytest.mark.parametrize(
    ("lengths", "complaint"),
    [([1, S + 1], "whole numbers from 0 to 6"), ([1, 2, 3], "does not fit scores")],
)
def test_lengths_that_do_not_fit_are_refused(lengths, complaint):
    with pytest.raises(ValueError, match=complaint):
        small()(tokens(B, S), tokens(B, T), torch.tensor(lengths))


@pytest.mark.parametrize("shape", [(B, S, DIM + 2), (S, DIM)])
def test_sources_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \[B, T, 8\]"):
        small(source=nn.Identity()).encode(noise(*shape))


@pytest.mark.parametrize(("step", "dim", "warmup"), [(0, 512, 4000), (1, 0, 1), (1, 1, 0)])
def test_steps_are_counted_from_one(step, dim, warmup):
    with pytest.raises(ValueError, match=f"step={step}, dim={dim}, warmup={warmup}"):
        transformer.noam(step, dim=dim, warmup=warmup)


def test_losses_of_other_shapes_are_refused():
    for shape in ((B * T, V), (B, V, T)):
        with pytest.raises(ValueError, match=r"expected \[B, T, V\] and \[B, T\]"):
            transformer.smoothed_loss(noise(*shape), tokens(B, T))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps=0"),
        ({"end": V}, "end=7 is no token: expected 0 to 6"),
        ({"end": -1}, "end=-1 is no token"),
        ({"start": V}, "expected int64 from 0 to 6"),
        ({"width": 0}, "width=0"),
        ({"alpha": -0.1}, "alpha=-0.1"),
    ],
)
def test_decoding_that_is_none_is_refused(options, complaint):
    given = {"start": START, "end": END, "steps": 3} | options
    for decode in (
        (greedy, beam_search) if not options.keys() & {"width", "alpha"} else [beam_search]
    ):
        with pytest.raises(ValueError, match=complaint):
            decode(small(), tokens(B, S), **given)


def test_a_model_in_training_mode_is_refused():
    for decode in (greedy, beam_search):
        with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
            decode(small().train(), tokens(B, S), start=START, end=END, steps=3)


def test_a_batch_of_nothing_gives_nothing():
    model, none = small(), tokens(0, S)
    assert model(none, tokens(0, T)).shape == (0, T, V)
    for decode in (greedy, beam_search):
        assert decode(model, none, start=START, end=END, steps=3).shape == (0, 3)
