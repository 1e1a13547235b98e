"""Bugs in the protocol: each is a way to be unfair that a survey of papers found, or a slip."""

from tests.metric_learning import test_protocol as check
from tests.planted import Bug

PROTOCOL = "mini.metric_learning.protocol"
_folds = check.test_folds_hold_out_each_class_at_most_once_and_train_on_the_others
_scores = check.test_scores_are_those_of_the_networks_by_hand
_choice = check.test_the_choice_is_the_mean_of_the_folds_and_never_looks_at_new_classes
_looks = check.test_looks_that_differ_are_refused_before_the_next_setting_is_trained

BUGS = [
    Bug(
        PROTOCOL,
        "mean = self.validation.mean(axis=1)",
        "mean = self.separate.mean(axis=1)",
        "the setting is chosen by the classes that it is reported on",
        _choice,
    ),
    Bug(
        PROTOCOL,
        "mean = self.validation.mean(axis=1)",
        "mean = self.validation.max(axis=1)",
        "the luckiest fold chooses",
        _choice,
    ),
    Bug(
        PROTOCOL,
        "[k for k in places if k not in out]",
        "list(places)",
        "held-out classes are trained on: validation is of other images only",
        _folds,
    ),
    Bug(
        PROTOCOL,
        "range(0, len(places) - held_out + 1, held_out)",
        "range(0, len(places) - held_out + 1)",
        "folds share their held-out classes",
        _folds,
    ),
    Bug(
        PROTOCOL,
        "normalize(predict(network, split, fold.train), dim=1)",
        "predict(network, split, fold.train)",
        "joined without a common length: the network with long embeddings decides",
        _scores,
    ),
    Bug(
        PROTOCOL,
        "normalize(predict(network, split, fold.train), dim=1)",
        "normalize(predict(network, split, self.new), dim=1)",
        "new images are normalised by themselves, as no network was trained",
        _scores,
    ),
    Bug(
        PROTOCOL,
        "torch.cat(parts, dim=1)",
        "torch.stack(parts).mean(dim=0)",
        "embeddings of networks that never met are averaged",
        _scores,
    ),
    Bug(
        PROTOCOL,
        "if len(counts) > 1 or 0 in counts:",
        "if 0 in counts:",
        "a setting that is looked at more often has more to choose from",
        _looks,
    ),
]
