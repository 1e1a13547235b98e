"""Bugs in metric learning: several from issues of pytorch-metric-learning and published code."""

from functools import partial

from tests.metric_learning import bugs_losses, bugs_protocol
from tests.metric_learning import test_measures as measure
from tests.metric_learning import test_triplets as check
from tests.planted import Bug

TRIPLETS, MEASURES = "mini.metric_learning.triplets", "mini.metric_learning.measures"
_table = measure.test_the_toy_table
_ties = measure.test_equally_far_ones_here
_twins = measure.test_a_twin_of_another_class_is_not_the_query_itself
_alone = measure.test_a_class_of_one_is_no_query_but_a_wrong_answer
_mining = check.test_mining_here
_line = check.test_what_is_mined_on_a_line
_deck = check.test_a_deck_is_dealt_out_before_it_is_shuffled_again

BUGS = [
    *bugs_losses.BUGS,
    *bugs_protocol.BUGS,
    # The losses
    Bug(
        TRIPLETS,
        "torch.sigmoid(distance(anchor, positive) - distance(anchor, negative))",
        "torch.sigmoid(distance(anchor, negative) - distance(anchor, positive))",
        "outputs in the order (negative, positive) of the authors' code: it learns the opposite",
        check.test_the_softmax_loss_here,
    ),
    Bug(
        TRIPLETS,
        "relu(distance(anchor, positive) - distance(anchor, negative) + margin)",
        "relu(distance(anchor, positive) - distance(anchor, negative) - margin)",
        "the sign of the margin: a triplet is left alone while it is still wrong",
        check.test_the_hinge_here,
    ),
    Bug(
        TRIPLETS,
        "relu(distance(anchor, positive) - distance(anchor, negative) + margin)",
        "relu(distance(anchor, positive) - distance(positive, negative) + margin)",
        "the negative is compared with the positive and not with the anchor",
        check.test_the_hinge_here,
    ),
    Bug(
        TRIPLETS,
        "torch.linalg.vector_norm(x - y, dim=1)",
        "(x - y).square().sum(dim=1)",
        "squared distances, as in FaceNet: a margin of another unit",
        check.test_plain_distances_scale_with_the_embeddings,
    ),
    Bug(
        TRIPLETS,
        "torch.linalg.vector_norm(x - y, dim=1)",
        "(x - y).square().sum(dim=1).sqrt()",
        "a root without eps: the gradient at distance 0 is not a number",
        check.test_a_duplicate_leaves_the_gradient_a_number,
    ),
    Bug(
        TRIPLETS,
        "torch.linalg.vector_norm(x - y, dim=1)",
        "torch.nn.functional.pairwise_distance(x, y)",
        "torch's distance adds 1e-6 to each coordinate: equal rows are apart",
        check.test_the_softmax_loss_here,
    ),
    Bug(
        TRIPLETS,
        "2 * s.square().sum() / max(1, len(s))",
        "s.square().sum() / max(1, len(s))",
        "half the loss, Torch's mean of two squares and not their sum",
        check.test_value_and_slope_of_the_softmax_loss,
    ),
    Bug(
        TRIPLETS,
        "losses.sum() / (losses > 0).sum().clamp(min=1)",
        "losses.mean()",
        "the mean over inactive triplets too: the more is learned, the slower",
        check.test_the_hinge_here,
    ),
    Bug(
        TRIPLETS,
        "losses.sum() / (losses > 0).sum().clamp(min=1)",
        "losses[losses > 0].mean()",
        "the mean of no active triplet is not a number",
        check.test_without_an_active_triplet_the_loss_is_0_and_can_be_stepped,
    ),
    Bug(
        TRIPLETS,
        "if x.shape != y.shape or x.ndim != 2",
        "if x.shape[1:] != y.shape[1:] or x.ndim != 2",
        "one negative is compared with every anchor",
        partial(check.test_embeddings_that_do_not_fit_are_refused, ((4, 3), (1, 3))),
    ),
    # Mining
    Bug(
        TRIPLETS,
        "is_same.fill_diagonal_(False) &",
        "is_same &",
        "an image is its own positive, at distance 0, also where it is the only one of its class",
        partial(check.test_a_batch_without_a_triplet_is_refused, "hard"),
    ),
    Bug(
        TRIPLETS,
        "    is_negative = ~is_same\n    is_positive = is_same.fill_diagonal_(False) &",
        "    is_positive = is_same.fill_diagonal_(False)\n    is_negative = ~is_same\n"
        "    is_positive = is_positive &",
        "an image is its own negative",
        _mining,
    ),
    Bug(
        TRIPLETS,
        "    if not is_positive.any():\n",
        "    if False:\n",
        "a batch with one image a class trains on nothing, without a word",
        partial(check.test_a_batch_without_a_triplet_is_refused, "all"),
    ),
    Bug(
        TRIPLETS,
        " & is_negative.any(dim=1, keepdim=True)",
        "",
        "a batch of one class has a negative at infinity",
        partial(check.test_a_batch_without_a_triplet_is_refused, "hard"),
    ),
    Bug(
        TRIPLETS,
        "d.where(is_positive, -math.inf).argmax(dim=1)",
        "d.where(is_positive, math.inf).argmin(dim=1)",
        "the nearest positive, the easiest, is taken for the hardest",
        _mining,
    ),
    Bug(
        TRIPLETS,
        "d.where(is_negative, math.inf).argmin(dim=1)",
        "(d * is_negative).argmin(dim=1)",
        "what is masked with 0 is the nearest: the anchor is its own negative",
        _mining,
    ),
    Bug(
        TRIPLETS,
        "return Triplets(anchor, farthest[anchor], nearest[anchor])",
        "return Triplets(anchor, nearest[anchor], farthest[anchor])",
        "positive and negative change places",
        _line,
    ),
    Bug(
        TRIPLETS,
        "        anchor = anchor.unique()\n",
        "        anchor = torch.arange(len(labels))\n",
        "an image alone in its class is an anchor, with the first image for a positive",
        check.test_one_image_of_a_class_is_no_anchor_but_a_negative,
    ),
    Bug(
        TRIPLETS,
        "(d[anchor] > d[anchor, positive][:, None])",
        "(d[anchor] < d[anchor, positive][:, None])",
        "hard negatives are called semihard",
        _mining,
    ),
    Bug(
        TRIPLETS,
        "(d[anchor] > d[anchor, positive][:, None])",
        "(d[anchor] >= d[anchor, positive][:, None])",
        "in a collapsed network all are semihard",
        check.test_of_equals_all_are_semihard_none,
    ),
    Bug(
        TRIPLETS,
        "    return Triplets(anchor[there_is], positive[there_is], negative[there_is])",
        "    return Triplets(anchor, positive, negative)",
        "where no negative is farther the first image is taken, of whatever class",
        check.test_a_pair_without_a_farther_negative_is_left_out,
    ),
    # Pairs and random triplets
    Bug(
        TRIPLETS,
        "far = (relu(margin - d).square() * ~is_same)",
        "far = (relu(margin - d.square()) * ~is_same)",
        "the margin of squared distances, as in many published codes",
        check.test_the_loss_of_pairs_here,
    ),
    Bug(
        TRIPLETS,
        "near = (d.square() * is_same).sum() / is_same.sum().clamp(min=1)",
        "near = (d.square() * ~is_same).sum() / (~is_same).sum().clamp(min=1)",
        "0 for alike as in the paper, 1 for alike as here: pairs of two classes are drawn together",
        check.test_the_loss_of_pairs_here,
    ),
    Bug(
        TRIPLETS,
        "* is_same).sum() / is_same.sum().clamp(min=1)",
        "* is_same).mean()",
        "pairs of one class weigh as little as they are few",
        check.test_the_loss_of_pairs_here,
    ),
    Bug(
        TRIPLETS,
        "    anchor = draw(is_positive.any(dim=1), n)\n",
        "    anchor = draw(torch.ones(len(labels)), n)\n",
        "an image alone in its class is an anchor",
        check.test_random_triplets_are_triplets_and_all_come_up,
    ),
    Bug(
        TRIPLETS,
        "draw(of[anchor], 1)[:, 0] for of in (is_positive, is_negative)",
        "draw(of.any(dim=0), n) for of in (is_positive, is_negative)",
        "positives and negatives of anybody",
        check.test_random_triplets_are_triplets_and_all_come_up,
    ),
    # Batches
    Bug(
        TRIPLETS,
        'whole_number("images", images, at_least=2)',
        'whole_number("images", images, at_least=1)',
        "batches with one image a class, which hold no positive",
        partial(
            check.test_batches_that_there_are_not_are_refused_at_once,
            (2, 1, 1),
            "images must be a whole number of at least 2",
        ),
    ),
    Bug(
        TRIPLETS,
        "if len(decks[k]) < images:",
        "if True:",
        "the deck is shuffled for every batch: some images come again before others came",
        _deck,
    ),
    Bug(
        TRIPLETS,
        "            decks[k] = decks[k][images:]\n",
        "",
        "every batch holds the same images of a class",
        _deck,
    ),
    Bug(
        TRIPLETS,
        "decks[k] = members[k][order(len(members[k]))]",
        "decks[k] = members[k]",
        "images that stand together in the data are always together in a batch",
        _deck,
    ),
    Bug(
        TRIPLETS,
        "for k in order(len(members))[:classes].tolist():",
        "for k in range(classes):",
        "the first classes make every batch, and the others are never seen",
        check.test_every_class_gets_its_turn,
    ),
    Bug(
        TRIPLETS,
        "torch.randperm(n, generator=generator, device=generator.device)",
        "torch.randperm(n, device=generator.device)",
        "the generator is not used",
        check.test_a_seed_decides_the_batches,
    ),
    Bug(
        TRIPLETS,
        'torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")',
        "torch.cdist(x, y)",
        "distances by way of products: equal rows are some hundredths apart",
        check.test_equal_rows_are_exactly_0_apart,
    ),
    # Measures
    Bug(
        MEASURES,
        "        d.scatter_(1, itself, torch.inf)\n",
        "",
        "the query is its own nearest neighbour, and wrong",
        _table,
    ),
    Bug(
        MEASURES,
        "        d.scatter_(1, itself, torch.inf)\n        is_hit.scatter_(1, itself, False)\n",
        "",
        "the query is counted as its own neighbour: precision at 1 is 100 %",
        _table,
    ),
    Bug(
        MEASURES,
        "        d.scatter_(1, itself, torch.inf)\n",
        "        d.scatter_(1, d.argmin(dim=1, keepdim=True), torch.inf)\n",
        "the nearest is taken for the query itself, where it may be a twin",
        _twins,
    ),
    Bug(
        MEASURES,
        "R = sizes[which] - 1  # [N]",
        "R = sizes[which]  # [N]",
        "R counts the query: what is perfect is not 100 %",
        _table,
    ),
    Bug(
        MEASURES,
        "R = sizes[which] - 1  # [N]",
        "R = (sizes[which] - 1).minimum(sizes.min() - 1).clamp(min=1) * (sizes[which] > 1)",
        "R of the smallest class for all",
        measure.test_the_measures_of_a_library_here,
    ),
    Bug(
        MEASURES,
        "d.topk(int(R.max()), dim=1, largest=False)",
        "d.topk(min(5, int(R.max())), dim=1, largest=False)",
        "k below R: what lies beyond is taken for wrong",
        _table,
    ),
    Bug(
        MEASURES,
        "torch.where(i <= R, m.double() / n, 0.0)",
        "m.double() / n",
        "small classes are asked for more than there is, the R of the largest",
        measure.test_the_measures_of_a_library_here,
    ),
    Bug(
        MEASURES,
        "torch.where(i <= R, m.double() / n, 0.0)",
        "torch.where(i < R, m.double() / n, 0.0)",
        "the R-th neighbour is left out",
        _table,
    ),
    Bug(
        MEASURES,
        "(share * precision).sum(dim=1) / R",
        "(share * precision).sum(dim=1) / share.sum(dim=1).clamp(min=1)",
        "divided by the hits and not by R: mean average precision, not MAP@R",
        _table,
    ),
    Bug(
        MEASURES,
        "(share * precision).sum(dim=1) / R",
        "precision.where(i <= R[:, None], 0.0).sum(dim=1) / R",
        "the precision at places that are no hits is counted, too",
        _table,
    ),
    Bug(
        MEASURES,
        "d.topk(int(R.max()), dim=1, largest=False)",
        "d.topk(int(R.max()), dim=1, largest=True)",
        "the farthest for the nearest, as if distances were cosines",
        _table,
    ),
    Bug(
        MEASURES,
        "    s = torch.searchsorted(nearest, nearest)\n"
        "    end = torch.searchsorted(nearest, nearest, right=True)\n",
        "    s = (i - 1).expand_as(nearest)\n    end = s + 1\n",
        "of equally far ones those are nearer that come first in the data",
        measure.test_a_collapsed_network_is_at_chance_in_any_order_of_its_rows,
    ),
    Bug(
        MEASURES,
        "    last = nearest[:, -1:]\n",
        "    last = -1.0\n",
        "equally far ones beyond the k nearest are forgotten",
        _ties,
    ),
    Bug(
        MEASURES,
        "(m - 1).double() / (n - 1).clamp(min=1)",
        "m.double() / n",
        "a hit counts itself among those before it in its group",
        _ties,
    ),
    Bug(
        MEASURES,
        "query = torch.where(R > 0)[0]",
        "query = torch.where(R >= 0)[0]",
        "a query whose class has no other image has measures that are not numbers",
        _alone,
    ),
    Bug(
        MEASURES,
        "distances(embeddings[rows], embeddings)",
        "distances(embeddings[rows], embeddings).where(R > 0, 1e9)",
        "a class of one is left out as an answer, too",
        _alone,
    ),
]
