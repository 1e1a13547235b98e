"""Bugs in double descent: pinv's cutoff, formulas off by one, noise and features drawn anew."""

from functools import partial

from tests.double_descent import test_double_descent as check
from tests.planted import Bug

_fit = partial(check.test_min_norm_here, 40, 40)
_cutoff = check.test_a_direction_counts_down_to_the_cutoff_and_not_below
_below = partial(check.test_the_risks_here, 10)
_above = partial(check.test_the_risks_here, 160)
_drawn = partial(check.test_the_risk_is_that_of_draws, 80)
_numpy = check.test_random_features_are_those_of_numpy
_noise = check.test_exactly_the_share_is_wrong_and_only_in_training
_by_heart = check.test_wrong_labels_are_learned_by_heart_since_they_stay

BUGS = [
    # The fit
    Bug(
        "mini.double_descent",
        "CUTOFF = 1e-10 ",
        "CUTOFF = 1e-15 ",
        "numpy's default for pinv: rounding is divided by where rows repeat",
        _cutoff,
    ),
    Bug(
        "mini.double_descent",
        "CUTOFF = 1e-10 ",
        "CUTOFF = 0.0 ",
        "no cutoff: in bootstrap samples, whose rows repeat, rounding is divided by",
        check.test_above_p_equal_n_a_row_counts_once_in_a_sample,
    ),
    Bug(
        "mini.double_descent",
        "CUTOFF = 1e-10 ",
        "CUTOFF = 1e-2 ",
        "a cutoff so large that it is a ridge, just at p = n",
        _fit,
    ),
    Bug(
        "mini.double_descent",
        "s > cutoff * s[0]",
        "s > cutoff",
        "the cutoff is absolute: it depends on the units of X",
        check.test_a_cutoff_is_a_share_of_the_largest,
    ),
    Bug(
        "mini.double_descent",
        "if {X.dtype, y.dtype} != {torch.float64}:",
        "if False:",
        "float32 is taken, whose rounding is a ridge at p = n",
        check.test_float32_is_refused,
    ),
    Bug(
        "mini.double_descent",
        "b = Vh.mT @ (gain(S)[:, None] * (U.mT @ columns))",
        "b = torch.linalg.solve(X.mT @ X + 1e-6 * torch.eye(X.shape[1]), X.mT @ columns)",
        "normal equations with a jitter: a ridge, and half of the digits",
        _fit,
    ),
    # What it costs
    Bug(
        "mini.double_descent",
        "min(p, n) / (abs(p - n) - 1) if",
        "min(p, n) / abs(p - n) if",
        "p / (n - p): the limit in place of finite n",
        _below,
    ),
    Bug(
        "mini.double_descent",
        "min(p, n) / (abs(p - n) - 1) if",
        "p / (abs(p - n) - 1) if",
        "the formula of the side below n is used above it",
        _above,
    ),
    Bug(
        "mini.double_descent",
        "min(p, n) / (abs(p - n) - 1) if",
        "max(p, n) / (abs(p - n) - 1) if",
        "the sides are confused",
        _drawn,
    ),
    Bug(
        "mini.double_descent",
        "abs(p - n) > 1 else math.inf",
        "p != n else math.inf",
        "a division by zero beside p = n",
        partial(check.test_the_risks_here, 41),
    ),
    Bug(
        "mini.double_descent",
        "bias = r2 * max(0.0, 1 - n / p)\n    return",
        "bias = r2 * abs(1 - n / p)\n    return",
        "a bias below n, where the fit has none",
        _below,
    ),
    Bug(
        "mini.double_descent",
        "return bias + s2 * variance if s2 else bias",
        "return bias + s2 * variance",
        "0 times infinity, where there is no noise",
        check.test_without_noise_nothing_explodes,
    ),
    Bug(
        "mini.double_descent",
        "s2 * min(ratio, 1) / abs(ratio - 1)",
        "s2 * ratio / abs(ratio - 1)",
        "the limit of one side is used on both",
        partial(check.test_the_limit_is_reached_as_one_over_n, 2.0),
    ),
    Bug(
        "mini.double_descent",
        "noise = outside + s2",
        "noise = s2",
        "the signal of the features that are left out is forgotten: no peak without noise",
        partial(check.test_weak_features_are_those_of_draws, 30),
    ),
    Bug(
        "mini.double_descent",
        "s2=noise) + noise",
        "s2=noise) + s2",
        "the signal that is left out is forgotten in the test error, but not in the fit",
        partial(check.test_weak_features_are_those_of_draws, 30),
    ),
    Bug(
        "mini.double_descent",
        "max(0.0, 1 - n / p) ** 2",
        "max(0.0, 1 - n / p)",
        "what is due to the draw of X counts as bias, which no ensemble takes away",
        partial(check.test_ensembles_are_those_of_draws, 80),
    ),
    Bug(
        "mini.double_descent",
        "(alone - bias) / members",
        "(alone - bias) / members**0.5",
        "the standard deviation falls so, not the variance",
        check.test_of_one_member_an_ensemble_is_a_fit_and_of_many_their_mean,
    ),
    # Draws
    Bug(
        "mini.double_descent",
        "noise = math.sqrt(s2) * ",
        "noise = s2 * ",
        "a variance is taken for a standard deviation",
        _drawn,
    ),
    Bug(
        "mini.double_descent",
        "return fit(X[:, :p], X @ b + noise)",
        "return fit(X[:, :p], X[:, :p] @ b[:p] + noise)",
        "features that are not used have no part in the targets",
        partial(check.test_weak_features_are_those_of_draws, 30),
    ),
    Bug(
        "mini.double_descent",
        " + b[p:].square().sum())",
        ")",
        "features that are not used are not missed",
        check.test_weak_features_that_are_not_alike,
    ),
    Bug(
        "mini.double_descent",
        "sum(estimate() for _ in range(members)) / members",
        "estimate()",
        "an ensemble of one",
        partial(check.test_ensembles_are_those_of_draws, 80),
    ),
    # Ridge and bagging
    Bug(
        "mini.double_descent",
        "s / (s.square() + penalty)",
        "s / (s.square() + penalty / len(X))",
        "the penalty is divided by n, as for a loss that is a mean",
        partial(check.test_ridge_here, 40, 80),
    ),
    Bug(
        "mini.double_descent",
        "s / (s.square() + penalty)",
        "s / (s.square() + len(X) * penalty)",
        "the penalty is multiplied by n",
        partial(check.test_ridge_here, 40, 80),
    ),
    Bug(
        "mini.double_descent",
        "s / (s.square() + penalty)",
        "1 / (s + penalty)",
        "the penalty is added to singular values, not to their squares",
        partial(check.test_ridge_here, 40, 80),
    ),
    Bug(
        "mini.double_descent",
        "at_least=1) * s2 / r2",
        "at_least=1) * r2 / s2",
        "the optimal penalty upside down",
        partial(check.test_the_optimal_penalty_is_the_best, 40),
    ),
    Bug(
        "mini.double_descent",
        'whole_number("p", p, at_least=1) * s2 / r2',
        "s2 / r2",
        "one penalty for all widths: that of b whose every entry has variance r2",
        check.test_with_the_optimal_penalty_there_is_no_peak,
    ),
    Bug(
        "mini.double_descent",
        "fit(X[rows], y[rows])",
        "fit(X[rows], y)",
        "a bootstrap sample of rows with the targets of others",
        check.test_a_bag_is_the_mean_over_bootstrap_samples,
    ),
    Bug(
        "mini.double_descent",
        "torch.randint(len(X), (len(X),), generator=generator)",
        "torch.randperm(len(X), generator=generator)",
        "drawn without replacement: every member is the same fit",
        check.test_a_bag_is_the_mean_over_bootstrap_samples,
    ),
    # Random features
    Bug(
        "mini.double_descent",
        "sets.append((normalize(v, dim=1) @ W.mT).relu())",
        "sets.append((normalize(v, dim=1) @ W.mT).relu())\n"
        "        W = torch.randn(W.shape, generator=generator, dtype=W.dtype)",
        "features are drawn anew for the test images",
        check.test_an_image_has_the_same_features_in_each_set,
    ),
    Bug(
        "mini.double_descent",
        "    sets = []\n    for each in checks:",
        "    sets = []\n    for each in checks:\n"
        "        colour = each.double().mean(dim=(0, 2, 3), keepdim=True) / 255",
        "test images are centred by their own mean",
        _numpy,
    ),
    Bug(
        "mini.double_descent",
        "normalize(v, dim=1) @",
        "normalize(v, dim=0) @",
        "pixels are scaled to unit length instead of images",
        _numpy,
    ),
    Bug(
        "mini.double_descent",
        "@ W.mT).relu()",
        "@ W.mT)",
        "without the ReLU there are 192 features, whatever the width",
        check.test_on_images_the_error_peaks_and_ridge_flattens_it,
    ),
    Bug(
        "mini.double_descent",
        "(answers > 0) != (truth > 0)",
        "(answers > 0.5) != (truth > 0)",
        "the threshold of targets 0 and 1",
        check.test_by_width_measures_each_column,
    ),
    Bug(
        "mini.double_descent",
        "torch.stack(one).quantile(0.5, dim=0)",
        "torch.stack(one).mean(dim=0)",
        "the mean over draws, which at p = n is that of the worst",
        check.test_the_median_is_over_draws,
    ),
    Bug(
        "mini.double_descent",
        "X_test[:, :p] @ b",
        "X_test[:, -p:] @ b",
        "other features are tested than were fitted",
        check.test_by_width_measures_each_column,
    ),
    # Networks
    Bug(
        "mini.double_descent",
        '"keep_true": False,',
        '"keep_true": True,',
        "noise that may keep the label: of ten classes 18 % are wrong, of two 10 %",
        _noise,
    ),
    Bug(
        "mini.data.labels",
        "first = 0 if keep_true else 1 ",
        "first = 0 ",
        "noise that may keep the label, whatever was asked for",
        _noise,
    ),
    Bug(
        "mini.double_descent",
        "        model.train()\n",
        "        model.train()\n"
        "        batches.labels = flip_labels(\n"
        "            dataset.train.labels, 0.4, num_classes=10, keep_true=False, "
        "generator=generator\n        )\n",
        "noise is drawn anew in every epoch: smoothing, which nothing can learn by heart",
        _by_heart,
    ),
    Bug(
        "mini.double_descent",
        "torch.optim.Adam(model.parameters(), lr=lr, weight_decay=0.0)",
        "torch.optim.AdamW(model.parameters(), lr=lr)",
        "weight decay is left on, by a default",
        check.test_a_weight_without_a_gradient_stays,
    ),
    Bug(
        "mini.double_descent",
        "        model.train()\n",
        "",
        "a network that was looked at before trains in evaluation mode",
        check.test_every_epoch_trains_in_training_mode,
    ),
    Bug(
        "mini.double_descent",
        "        generator=generator,\n        device=device_of(model),",
        "        generator=generator,\n        pad=2,\n        device=device_of(model),",
        "augmentation is left on, which moves the peak",
        check.test_the_steps_are_those_of_adam,
    ),
    Bug(
        "mini.double_descent",
        "1 - accuracy(model, dataset, dataset.train)",
        "1 - accuracy(model, dataset, dataset.test)",
        "the train error is the test error",
        _by_heart,
    ),
    Bug(
        "mini.double_descent",
        "1 - accuracy(model, dataset, dataset.validation)",
        "1 - accuracy(model, dataset, dataset.test)",
        "the validation error is the test error: an epoch is chosen on test images",
        check.test_errors_are_measured_at_the_epochs_that_are_named,
    ),
    Bug(
        "mini.double_descent",
        "        if epoch in at:\n",
        "        if epoch - 1 in at:\n",
        "epochs are counted from 0",
        check.test_errors_are_measured_at_the_epochs_that_are_named,
    ),
]
