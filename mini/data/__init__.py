"""The data sets: whole sets of uint8 tensors, which a training loop goes through in `Batches`."""

from mini.data.batches import Batches, Split, augment
from mini.data.labels import flip_labels, select_classes, split_classes
from mini.data.sets import Dataset, content_digest, load, may_mirror, named, pool_digest, subset

__all__ = [
    "Batches",
    "Dataset",
    "Split",
    "augment",
    "content_digest",
    "flip_labels",
    "load",
    "may_mirror",
    "named",
    "pool_digest",
    "select_classes",
    "split_classes",
    "subset",
]
