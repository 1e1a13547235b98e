"""Bugs in mixup, CutMix and Manifold Mixup: several from reports on public repositories."""

from functools import partial

from tests.mixup import test_mixup as check
from tests.planted import Bug

_lambda = partial(check.test_lambda_is_beta_distributed, 8.0)
_layer_2 = partial(check.test_states_and_labels_are_mixed_after_k_stages, 2)

BUGS = [
    # mixup
    Bug(
        "mini.mixup",
        "mix(images, lam, order), mix(targets, lam, order), lam\n",
        "mix(images, lam, order), mix(targets, 1 - lam, order), lam\n",
        "lambda weighs the wrong label",
        check.test_mixup_here,
    ),
    Bug(
        "mini.mixup",
        "mix(images, lam, order), mix(targets, lam, order), lam\n",
        "mix(images, lam, order), mix(targets, lam, torch.randperm(len(order))), lam\n",
        "the permutation is drawn again for the labels",
        check.test_mixup_here,
    ),
    Bug(
        "mini.mixup",
        "mix(images, lam, order), mix(targets, lam, order), lam\n",
        "mix(images, lam, order), targets, lam\n",
        "the labels are not mixed",
        check.test_mixup_here,
    ),
    Bug(
        "mini.mixup",
        "lam * values + (1 - lam) * values[order]",
        "values.mul_(lam).add_((1 - lam) * values[order])",
        "mixed in place: the partners are mixed already, and the caller's batch is changed",
        check.test_input_is_left_alone_and_types_are_kept,
    ),
    Bug(
        "mini.mixup",
        "lam * values + (1 - lam) * values[order]",
        "lam * values + (1 - lam) * values[order].to(torch.uint8)",
        "the partners are rounded to whole numbers, as a uint8 collate function does",
        check.test_mixup_here,
    ),
    Bug(
        "mini.mixup",
        "if not images.is_floating_point():",
        "if images.is_complex():",
        "uint8 images are let in, and the mix rounds or wraps around",
        check.test_uint8_is_refused_here,
    ),
    Bug(
        "mini.mixup",
        "betaincinv(alpha, alpha, uniform)",
        "betaincinv(alpha, 1, uniform)",
        "lambda comes from Beta(alpha, 1)",
        _lambda,
    ),
    Bug(
        "mini.mixup",
        "float(scipy.special.betaincinv(alpha, alpha, uniform))",
        "max(x := float(scipy.special.betaincinv(alpha, alpha, uniform)), 1 - x)",
        "lambda is folded to at least 1/2, the convention of another method",
        _lambda,
    ),
    Bug(
        "mini.mixup",
        "torch.rand((), dtype=torch.float64, generator=generator, device=device)",
        "torch.rand((), dtype=torch.float64)",
        "lambda is drawn outside the generator, so that a seed does not decide it",
        check.test_a_seed_decides_lambda_and_partners,
    ),
    Bug(
        "mini.mixup",
        "torch.randperm(batch_size, generator=generator, device=device)",
        "torch.arange(batch_size, device=device).flip(0)",
        "partners are the reversed batch: pairs repeat when the data is not shuffled",
        check.test_partners_are_every_permutation_alike,
    ),
    Bug(
        "mini.mixup",
        "if alpha else 1.0",
        "if alpha else 0.5",
        "alpha 0 averages every pair instead of switching mixing off",
        check.test_alpha_0_changes_nothing,
    ),
    Bug(
        "mini.mixup",
        "-(targets * log_p).sum(dim=1).mean()",
        "-(targets * log_p).mean()",
        "the loss is averaged over the classes too, K times too small",
        check.test_loss_agrees_with_torch_and_timm,
    ),
    Bug(
        "mini.mixup",
        "-(targets * log_p).sum(dim=1).mean()",
        "-(targets.round() * log_p).sum(dim=1).mean()",
        "only the heavier label of a pair is in the loss",
        check.test_mixing_targets_is_mixing_losses,
    ),
    Bug(
        "mini.mixup",
        "if logits.shape != targets.shape:",
        "if len(logits) != len(targets):",
        "integer labels are taken for targets and broadcast",
        check.test_loss_refuses_integer_labels,
    ),
    Bug(
        "mini.mixup",
        "misses = (predicted != y_i) & (predicted != y_j)",
        "misses = (predicted != y_i) | (predicted != y_j)",
        "a prediction of one of the two labels counts as a miss",
        check.test_between_counts_misses,
    ),
    Bug(
        "mini.mixup",
        "soft_cross_entropy(logits, targets) * len(x)",
        "soft_cross_entropy(logits, targets)",
        "the input gradient is that of the batch's mean loss",
        check.test_between_agrees_with_finite_differences,
    ),
    Bug(
        "mini.mixup",
        "return Between(misses.float(), jacobian.sqrt()",
        "return Between(misses.float(), squared(logits.sum()).sqrt()",
        "the gradient of the sum of the logits is taken for that of the model",
        check.test_between_agrees_with_finite_differences,
    ),
    Bug(
        "mini.mixup",
        "order[members] = members[shuffle.to(members.device)]",
        "order[members] = shuffle.to(members.device)",
        "places among those of a label are taken for places in the batch",
        check.test_partners_of_the_same_label_are_every_such_permutation_alike,
    ),
    # CutMix
    Bug(
        "mini.mixup",
        "side = math.sqrt(1 - lam)",
        "side = 1 - lam",
        "the sides of the box, and not its area, are 1 - lambda of the image's",
        check.test_the_box_here,
    ),
    Bug(
        "mini.mixup",
        "min(at + int(side * length / 2), length)",
        "at + int(side * length / 2)",
        "the box reaches beyond the image, and its label counts what is not there",
        check.test_cutmix_keeps_lambda_of_the_pixels_and_of_the_label,
    ),
    Bug(
        "mini.mixup",
        "pasted, lam = paste(images, order, *box(lam, *sizes, middle))",
        "pasted, _ = paste(images, order, *box(lam, *sizes, middle))",
        "the label is mixed by the lambda that was drawn, not by the area that was pasted",
        check.test_cutmix_keeps_lambda_of_the_pixels_and_of_the_label,
    ),
    Bug(
        "mini.mixup",
        "pasted = images.clone()",
        "pasted = images",
        "the caller's batch is pasted into, and so are partners that were pasted into before",
        check.test_cutmix_with_alpha_0_changes_nothing_and_leaves_its_input,
    ),
    Bug(
        "mini.mixup",
        "        for at, length in zip(middle, (height, width), strict=True)",
        "        for at, length in zip(middle, (width, height), strict=True)",
        "height and width are confused: right for square images alone",
        check.test_the_box_here,
    ),
    Bug(
        "mini.mixup",
        "if images.ndim != 4:",
        "if images.ndim < 2:",
        "vectors are let in, and rows of the batch are pasted",
        check.test_cutmix_refuses_vectors_here,
    ),
    # Manifold Mixup
    Bug(
        "mini.mixup",
        "mix(h, lam, order), mix(targets, lam, order)",
        "mix(h, lam, order), mix(targets, 1 - lam, order)",
        "one lambda for the states, another for the labels",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        "mix(h, lam, order), mix(targets, lam, order)",
        "mix(h, lam, order), mix(targets, lam, torch.randperm(len(h)))",
        "states and labels have different partners",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        """        if depth == k:
            h, targets = mix(h, lam, order), mix(targets, lam, order)
        h = stage(h)
""",
        """        h = stage(h)
        if depth == k:
            h, targets = mix(h, lam, order), mix(targets, lam, order)
""",
        "mixed one stage too late: layer 2 is in truth layer 3",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        "        h = stage(h)\n",
        "        h = stage(h) + (mix(h, lam, order) - h if depth == k and k else 0)\n",
        "mixed in one branch of a residual stage, not before the whole of it",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        "        if depth == k:\n",
        "        if depth >= k:\n",
        "mixed again after every later stage",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        "k = layers[torch.randint(len(layers), (), generator=generator, device=device)]",
        "k = int(torch.randint(len(layers), (), generator=generator, device=device))",
        "the place in the list is taken for the layer",
        check.test_every_layer_of_the_set_is_drawn_and_no_other,
    ),
    Bug(
        "mini.mixup",
        "k = layers[torch.randint(len(layers), (), generator=generator, device=device)]",
        "k = layers[0]",
        "always the first layer of the set",
        check.test_every_layer_of_the_set_is_drawn_and_no_other,
    ),
    Bug(
        "mini.mixup",
        "mix(h, lam, order), mix(targets, lam, order)",
        "mix(h.detach(), lam, order), mix(targets, lam, order)",
        "the gradient stops at the mix, so that the layers before it learn nothing",
        check.test_gradients_reach_the_layers_before_the_mix,
    ),
    Bug(
        "mini.mixup",
        "h, targets = mix(h, lam, order), mix(targets, lam, order)",
        "h = mix(h, lam, order)",
        "states are mixed and labels are not",
        _layer_2,
    ),
    Bug(
        "mini.mixup",
        "not set(layers) <= set(range(len(stages)))",
        "min(layers) < 0",
        "a layer beyond the last stage is let in, and nothing is mixed at all",
        partial(check.test_layers_that_are_not_there_are_refused, [4]),
    ),
    Bug(
        "mini.mixup",
        "states - states.mean(dim=0)",
        "states - hidden.mean(dim=0)",
        "classes are centred at the mean of all",
        check.test_singular_values_here,
    ),
    Bug(
        "mini.mixup",
        "pad(values, (0, states.shape[1] - len(values)))",
        "pad(values, (states.shape[1] - len(values), 0))",
        "the zeros of a small class come first, so that the largest value is 0",
        check.test_a_class_of_few_samples_spans_few_directions,
    ),
    Bug(
        "mini.mixup",
        "torch.linalg.svdvals(states)",
        "torch.linalg.svdvals(states) ** 2",
        "eigenvalues are reported as singular values",
        check.test_singular_values_here,
    ),
    Bug(
        "mini.mixup",
        "(targets == 0) & log_p.isinf()",
        "log_p.isnan()",
        "a logit of -inf makes the loss NaN where nothing is asked of it",
        check.test_a_logit_of_minus_infinity_costs_nothing_where_its_target_is_zero,
    ),
]
