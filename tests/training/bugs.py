"""Bugs planted into the training loop and the small network."""

from tests.planted import Bug
from tests.training import test_models, test_training

TRAINING, MODELS, METRICS = "mini.training.loop", "mini.training.models", "mini.training.metrics"

BUGS = [
    Bug(
        TRAINING,
        "        stepper.zero_grad()\n",
        "",
        "gradients of all steps add up: the forgotten zero_grad",
        test_training.test_full_batch_steps_equal_gradient_descent_by_hand,
    ),
    Bug(
        TRAINING,
        "            scheduler.step()\n        row",
        "        scheduler.step()\n        row",
        "the schedule of steps advances once an epoch",
        test_training.test_history_has_a_row_per_epoch_with_what_was_measured,
    ),
    Bug(
        TRAINING,
        "        model.train()\n",
        "",
        "the first evaluation leaves dropout and batch norm off for the rest of the training",
        test_training.test_history_has_a_row_per_epoch_with_what_was_measured,
    ),
    Bug(
        TRAINING,
        ".detach() * len(labels)",
        ".detach() * batch_size",
        "a last small batch counts as a full one in the mean loss",
        test_training.test_every_image_counts_once_also_in_a_last_small_batch,
    ),
    Bug(
        TRAINING,
        "isinstance(m, layers)}",
        'hasattr(m, "weight")}',
        "weight decay pulls the gains of norm layers to zero",
        test_training.test_only_weights_of_linear_and_convolutional_layers_decay,
    ),
    Bug(
        TRAINING,
        "    model.eval()\n",
        "",
        "testing in training mode: statistics of the test batch, and running ones spoilt",
        test_training.test_predict_uses_running_statistics_and_restores_the_mode,
    ),
    Bug(
        TRAINING,
        "    model.train(was_training)\n",
        "    model.train()\n",
        "evaluating a frozen network switches it to training mode",
        test_training.test_predict_uses_running_statistics_and_restores_the_mode,
    ),
    Bug(
        TRAINING,
        "shuffle=False, device=device",
        "shuffle=True, generator=torch.default_generator, device=device",
        "predictions come shuffled while labels stay in order",
        test_training.test_predict_uses_running_statistics_and_restores_the_mode,
    ),
    Bug(
        TRAINING,
        "generator=generator,",
        "generator=torch.default_generator,",
        "the explicit generator is ignored, so that runs differ",
        test_training.test_same_generator_and_weights_give_the_same_bits,
    ),
    Bug(
        MODELS,
        "return x + gelu(self.norm2(self.conv(x)))",
        "return gelu(self.norm2(self.conv(x)))",
        "the shortcut is lost in a refactoring",
        test_models.test_a_stage_equals_its_formula,
    ),
    Bug(
        MODELS,
        "x + gelu(self.norm2(",
        "x + gelu(self.norm1(",
        "two convolutions share one batch norm, copied and not renamed",
        test_models.test_a_stage_equals_its_formula,
    ),
    Bug(
        MODELS,
        "    model.stem.requires_grad_(False)\n",
        "",
        "the whitened stem goes on training, at the cost that whitening was to save",
        test_models.test_whitening_freezes_the_stem_and_nothing_else,
    ),
    Bug(
        MODELS,
        "(components / (variance + 0.01).sqrt()).T.flip(0)",
        "(components / (variance + 0.01).sqrt()).flip(0)",
        "rows of eigh's result taken for eigenvectors, which are its columns",
        test_models.test_whitening_decorrelates_what_the_stem_sees,
    ),
    Bug(
        METRICS,
        "logits.argmax(dim=1)",
        "logits.argmin(dim=1)",
        "logits taken for losses: the least likely class is the answer",
        test_training.test_accuracy_and_nll_equal_scikit_learn,
    ),
    Bug(
        METRICS,
        "if labels.shape != logits.shape[:1]:",
        "if len(labels) != len(logits):",
        "labels in a column are compared with every row",
        test_training.test_accuracy_wants_one_label_a_row,
    ),
    Bug(
        METRICS,
        "    probabilities = logits.softmax(dim=1)\n",
        "    probabilities = logits.softmax(dim=0)\n",
        "softmax over the batch instead of the classes",
        test_training.test_calibration_error_equals_its_definition,
    ),
]
