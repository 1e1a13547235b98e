"""Bugs in AutoAugment and its operations: several from reports on public repositories."""

from functools import partial

from tests.autoaugment import test_autoaugment as check
from tests.planted import Bug


def operation(name: str):
    return partial(check.test_operations_are_those_of_torchvision_on_pictures, name)


def whole(what: str):
    return partial(check.test_whole_augmentations_are_those_of_torchvision_for_what_was_drawn, what)


independent = check.test_what_is_drawn_is_independent_between_images_operations_and_directions
identity = partial(check.test_strength_zero_is_the_identity, "OPERATIONS")
table = partial(
    check.test_strengths_are_those_of_torchvision, check.v2.AutoAugment, "OPERATIONS", 10
)
wide = partial(
    check.test_strengths_are_those_of_torchvision, check.v2.TrivialAugmentWide, "WIDE", 31
)
average = check.test_the_baseline_is_a_moving_average_that_the_sample_is_not_in

BUGS = [
    Bug(
        "mini.data.operations",
        "(256 - 2 ** (8 - _column(bits).int())).byte()",
        "(256 - 2 ** _column(bits).int()).byte()",
        "posterize drops the bits that it should keep",
        operation("posterize"),
    ),
    Bug(
        "mini.data.operations",
        "images >= _column(threshold)",
        "images > _column(threshold)",
        "solarize starts one level too high",
        operation("solarize"),
    ),
    Bug(
        "mini.data.operations",
        "return ~images",
        "return 256 - images",
        "black stays black, as 256 is 0 in eight bits",
        operation("invert"),
    ),
    Bug(
        "mini.data.operations",
        "change.add_(plain).clamp_(0, 255)",
        "change.add_(plain)",
        "what is brighter than white comes out dark",
        operation("brightness"),
    ),
    Bug(
        "mini.data.operations",
        "mean = (2 * grey.int().sum((2, 3), keepdim=True) + n) // (2 * n)",
        "mean = images.int().sum((2, 3), keepdim=True) // n",
        "contrast about the mean of each channel",
        operation("contrast"),
    ),
    Bug(
        "mini.data.operations",
        "19595 * red + 38470 * green + 7471 * blue",
        "7471 * red + 38470 * green + 19595 * blue",
        "channels are taken for blue, green, red",
        operation("color"),
    ),
    Bug(
        "mini.data.operations",
        "+ 4 * middle",
        "",
        "sharpness blurs with the mean of nine pixels",
        operation("sharpness"),
    ),
    Bug(
        "mini.data.operations",
        "* size / 2 + TIE)",
        "* (size - 1) / 2 + TIE)",
        "places are told between pixels' centres, cut off there",
        operation("rotate"),
    ),
    Bug(
        "mini.data.operations",
        "TIE = 1e-6",
        "TIE = 0",
        "rounding tells which of two pixels is nearest",
        partial(check.test_no_place_depends_on_rounding, "OPERATIONS", 10),
    ),
    Bug(
        "mini.data.operations",
        "(centre - pixels // 2)",
        "centre",
        "the centre of a cutout is its corner",
        check.test_cutout_is_a_grey_square_cut_off_at_the_edge,
    ),
    Bug(
        "mini.data.operations",
        "torch.arange(width, device=images.device) - _column(pixels)[:, 0].int()",
        "(torch.arange(width, device=images.device) - _column(pixels)[:, 0].int()) % width",
        "what is shifted out comes in on the other side",
        check.test_a_shift_and_back_loses_the_border_alone,
    ),
    Bug(
        "mini.autoaugment",
        "np.where(share > 0, threshold, limits.still)",
        "threshold",
        "solarize turns white black at strength 0",
        identity,
    ),
    Bug(
        "mini.autoaugment",
        '"posterize": Range(8, 4),',
        '"posterize": Range(4, 0),',
        "posterize keeps 0 to 4 bits, as in the code that was released",
        table,
    ),
    Bug(
        "mini.autoaugment",
        "limits.still + (sign * change if limits.signed else change)",
        "limits.still + change",
        "always in one direction",
        independent,
    ),
    Bug(
        "mini.autoaugment",
        "np.trunc(np.round(strength * side, 6))",
        "np.round(strength * side)",
        "shifts are rounded, not cut off",
        table,
    ),
    Bug(
        "mini.autoaugment",
        '    "posterize": Range(8, 2),\n',
        "",
        "TrivialAugment's range is forgotten for one operation",
        wide,
    ),
    Bug(
        "mini.autoaugment",
        "level[chosen].T / (LEVELS - 1)",
        "level[chosen].T / LEVELS",
        "level 9 of 0 to 9 is not the top",
        independent,
    ),
    Bug(
        "mini.autoaugment",
        "random.random((2, n)) < probability[chosen].T",
        "random.random(n) < probability[chosen].T",
        "one draw decides over both operations",
        independent,
    ),
    Bug(
        "mini.autoaugment",
        "chosen = random.integers(len(policy), size=n)",
        "chosen = np.full(n, random.integers(len(policy)))",
        "all images of a batch share one sub-policy",
        independent,
    ),
    Bug(
        "mini.autoaugment",
        "random.random((2, n)) < probability[chosen].T",
        "random.random((2, n)) < 1 - probability[chosen].T",
        "probabilities of staying away are taken for those of happening",
        check.test_a_fifth_of_the_images_is_untouched_and_one_operation_happens,
    ),
    Bug(
        "mini.autoaugment",
        '(Operation("solarize", 0.5, 2), Operation("invert", 0.0, 3))',
        '(Operation("solarize", 0.5, 2), Operation("invert", 0.9, 3))',
        "a typo in sub-policy 15, as one repository had it",
        check.test_policy_is_that_of_the_paper_and_of_torchvision,
    ),
    Bug(
        "mini.autoaugment",
        "np.full((n, images), m / 10)",
        "np.full((n, images), m / 30)",
        "the strength of RandAugment is torchvision's: 9 is 9 degrees",
        check.test_strengths_of_rand_augment_are_the_papers,
    ),
    Bug(
        "mini.autoaugment",
        "operations = random.choice(RANDOM, (n, images))",
        "operations = np.tile(random.choice(RANDOM, images), (n, 1))",
        "one operation for each image, n times",
        check.test_random_draws_are_even_and_fresh,
    ),
    Bug(
        "mini.autoaugment",
        "np.array([-1, *(",
        "np.array([*(",
        "RandAugment lacks the identity",
        check.test_random_draws_are_even_and_fresh,
    ),
    Bug(
        "mini.autoaugment",
        "strength[rows]\n",
        "strength[: len(rows)]\n",
        "an image gets another one's strength",
        whole("random, 3 at 9"),
    ),
    Bug(
        "mini.autoaugment",
        "zip(*recipe, strict=True):",
        "zip(*(part[::-1] for part in recipe), strict=True):",
        "the second operation comes first",
        whole("policy"),
    ),
    Bug(
        "mini.autoaugment",
        "zip(operations[::2], operations[1::2], strict=True)",
        "zip(operations[: len(operations) // 2], operations[len(operations) // 2 :], strict=True)",
        "tokens are read as all first operations, then all second ones",
        check.test_policies_keep_their_order_in_tokens,
    ),
    Bug(
        "mini.autoaugment",
        "p / (PROBABILITIES - 1)",
        "p / PROBABILITIES",
        "the highest of eleven probabilities is not 1",
        check.test_policies_keep_their_order_in_tokens,
    ),
    Bug(
        "mini.autoaugment",
        "one_hot(t, len(row)) - row.softmax(0)",
        "one_hot(t, len(row)) * (1 - row.softmax(0))",
        "the gradient of log p for the token that was drawn alone",
        partial(check.test_the_gradient_is_exact_on_average_for_every_baseline, 0.0),
    ),
    Bug(
        "mini.autoaugment",
        "advantage = reward - (reward if self.baseline is None else self.baseline)",
        "advantage = reward",
        "no baseline, and five times the noise",
        check.test_a_baseline_near_the_mean_cuts_the_variance,
    ),
    Bug(
        "mini.autoaugment",
        "self.decay * before + (1 - self.decay) * reward",
        "(1 - self.decay) * before + self.decay * reward",
        "the baseline follows the last reward",
        average,
    ),
    Bug(
        "mini.autoaugment",
        "logits += self.lr * slope",
        "logits -= self.lr * slope",
        "the search goes for the worst policy",
        check.test_the_controller_finds_the_best_of_a_small_space,
    ),
]
