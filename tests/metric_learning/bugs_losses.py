"""Bugs in the losses of a batch: several from published code and its issues."""

from functools import partial

from tests.metric_learning import test_losses as check
from tests.planted import Bug

LOSSES = "mini.metric_learning.losses"
_pairs, _nt_xent = check.test_pairs_here, check.test_nt_xent_here
_softmax, _cosface, _proxies = (
    check.test_normalized_softmax_here,
    check.test_cosface_here,
    check.test_proxy_nca_here,
)
_weights = check.test_weights_are_drawn_by_the_generator_and_learned
_fits = check.test_labels_and_embeddings_that_do_not_fit_the_weights_are_refused

BUGS = [
    # Triplets
    Bug(
        LOSSES,
        "apart = d[anchor, positive][:, None] - d[anchor] + margin",
        "apart = d[anchor] - d[anchor, positive][:, None] + margin",
        "positive and negative swapped: classes are driven apart",
        check.test_triplets_of_all_here,
    ),
    Bug(
        LOSSES,
        "_mean_above_0(relu(apart)[is_negative[anchor]])",
        "_mean_above_0(relu(apart))",
        "an anchor's own class counts among its negatives",
        check.test_triplets_of_all_here,
    ),
    # Pairs
    Bug(
        LOSSES,
        "return losses.sum() / (losses > 0).sum().clamp(min=1)",
        "return losses.mean()",
        "the mean over inactive pairs too: far ones drown the others",
        _pairs,
    ),
    Bug(
        LOSSES,
        "return losses.sum() / (losses > 0).sum().clamp(min=1)",
        "return losses[losses > 0].mean()",
        "the mean of no active pair is not a number",
        check.test_pairs_without_an_active_one_are_0_and_can_be_stepped,
    ),
    Bug(
        LOSSES,
        "return _mean_above_0(near) + _mean_above_0(far)",
        "return _mean_above_0(torch.cat([near, far]))",
        "one mean over both kinds: positives weigh as little as they are few",
        _pairs,
    ),
    Bug(
        LOSSES,
        "[is_same & ~is_itself]",
        "[is_same]",
        "an image is its own positive: nothing at a margin of 0, a pair of loss .2 at one of -.2",
        check.test_a_negative_margin_of_positives_has_the_gradient_of_none,
    ),
    Bug(
        LOSSES,
        "near = relu(d - positive_margin)",
        "near = relu(d + positive_margin)",
        "the sign of the positive margin: pairs are pulled to one point",
        _pairs,
    ),
    Bug(
        LOSSES,
        "near = relu(d - positive_margin)",
        "near = relu(d - positive_margin).square()",
        "the squares of the first paper in the loss of the second",
        _pairs,
    ),
    Bug(
        LOSSES,
        "    d = distances(embeddings, embeddings)\n    is_same",
        "    d = distances(embeddings, embeddings).square()\n    is_same",
        "squared distances: margins of another unit",
        check.test_pairs_on_a_line,
    ),
    Bug(
        LOSSES,
        "positive_margin < negative_margin < math.inf or negative_margin <= 0",
        "positive_margin < math.inf",
        "the margins in the other order, without a word",
        partial(check.test_margins_of_pairs_that_are_none_are_refused, (0.5, 0.0)),
    ),
    # NT-Xent
    Bug(
        LOSSES,
        ".div(temperature)",
        ".mul(temperature)",
        "the temperature is multiplied with: at .07 all pairs are alike",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "    s = cosines(embeddings, embeddings)",
        "    s = (embeddings @ embeddings.T)",
        "embeddings are not at length 1: products and no cosines",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "    anchor, positive = torch.where(is_positive)\n    return",
        "    anchor, positive = torch.where(is_positive.fill_diagonal_(True))\n    return",
        "an image is its own positive, at cosine 1",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "-logsigmoid(s[anchor, positive] - negatives[anchor]).mean()",
        "-(s[anchor, positive] - negatives[anchor]).mean()",
        "the sum is without the positive: what is right is pushed on",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "-logsigmoid(s[anchor, positive] - negatives[anchor]).mean()",
        "-logsigmoid(s[anchor, positive] - negatives[anchor]).sum() / len(labels)",
        "the sum over pairs is divided by the images",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "s.where(is_negative, -math.inf)",
        "s.where(~torch.eye(len(s), dtype=torch.bool), -math.inf)",
        "other positives are in the sum, as in supervised contrastive, and the positive twice",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "s.where(is_negative, -math.inf)",
        "(s * is_negative)",
        "what is masked with 0 counts 1 in a sum of exponentials",
        _nt_xent,
    ),
    Bug(
        LOSSES,
        "s.where(is_negative, -math.inf).logsumexp(dim=1)",
        "s.where(is_negative, -math.inf).exp().sum(dim=1).log()",
        "exponentials overflow at a low temperature",
        check.test_at_a_low_temperature_a_wrong_pair_is_still_pulled,
    ),
    # A vector a class
    Bug(
        LOSSES,
        "cosines(embeddings, self.weights) / self.temperature",
        "cosines(embeddings, self.weights) * self.temperature",
        "the temperature is multiplied with: logits of at most .05 can not be learned from",
        _softmax,
    ),
    Bug(
        LOSSES,
        "cosines(embeddings, self.weights) / self.temperature",
        "normalize(embeddings) @ self.weights.T / self.temperature",
        "weights are not at length 1: a class with long ones wins",
        _softmax,
    ),
    Bug(
        LOSSES,
        "self.scale * (s - margins)",
        "self.scale * (s + margins)",
        "the sign of the margin: the own class is given an advance",
        _cosface,
    ),
    Bug(
        LOSSES,
        "self.scale * (s - margins)",
        "self.scale * s - margins",
        "the margin is in units of logits: a 64th of what was meant",
        _cosface,
    ),
    Bug(
        LOSSES,
        "self.margin * one_hot(labels, len(self.weights)).to(s.dtype)",
        "self.margin * torch.ones_like(s)",
        "the margin of every class, which is none of any",
        check.test_a_margin_is_asked_of_the_own_class_alone,
    ),
    Bug(
        LOSSES,
        "one_hot(labels, len(self.weights)).to(s.dtype)",
        "one_hot(labels, len(self.weights))",
        "whole numbers times .35 are float32, whatever the rest is",
        _cosface,
    ),
    Bug(
        LOSSES,
        "cross_entropy(-self.scale * d.square(), labels)",
        "cross_entropy(self.scale * d.square(), labels)",
        "the sign of distances, left out in published code (dichotomies/proxy-nca, issue 15)",
        _proxies,
    ),
    Bug(
        LOSSES,
        "cross_entropy(-self.scale * d.square(), labels)",
        "cross_entropy(-self.scale * d, labels)",
        "plain distances where the paper has squares",
        _proxies,
    ),
    Bug(
        LOSSES,
        "distances(*_at_length_1(embeddings, self.proxies))",
        "distances(embeddings, self.proxies)",
        "neither rows nor proxies are at length 1",
        _proxies,
    ),
    Bug(
        LOSSES,
        "cross_entropy(-self.scale * d.square(), labels)",
        "(self.scale * d.square()[torch.arange(len(d)), labels] + (-self.scale * d.square())"
        ".masked_fill(one_hot(labels, len(self.proxies)).bool(), -math.inf).logsumexp(dim=1)"
        ").mean()",
        "the own proxy is not in the sum, as in the paper: another loss than that which was tuned",
        _proxies,
    ),
    # What they share
    Bug(
        LOSSES,
        "torch.randn(shape, generator=generator, device=generator.device)",
        "torch.randn(shape)",
        "weights are drawn by torch's own generator: a seed decides nothing",
        partial(_weights, "proxy-nca"),
    ),
    Bug(
        LOSSES,
        "return nn.Parameter(torch.randn(shape, generator=generator, device=generator.device))",
        "return torch.randn(shape, generator=generator, device=generator.device)",
        "weights that no optimiser finds",
        partial(_weights, "cosface"),
    ),
    Bug(
        LOSSES,
        "    labels = checked(embeddings, labels)\n    k, dim",
        "    labels = labels.long()\n    k, dim",
        "labels that are floats are cut to whole ones",
        check.test_bad_input_is_refused,
    ),
    Bug(
        LOSSES,
        " or labels.min() < 0 or labels.max() >= k",
        "",
        "labels of classes that have no weights, such as those of the whole data set",
        partial(_fits, "normalized softmax"),
    ),
    Bug(
        LOSSES,
        "torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)",
        "x.dtype",
        "cosines in bfloat16 have three digits, which the temperature divides",
        check.test_other_types_are_computed_in_float32_and_weights_keep_theirs,
    ),
]
