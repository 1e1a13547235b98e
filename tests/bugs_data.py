"""Bugs in the data sets, their caches and the batches."""

from functools import partial

import test_batches
import test_data
import test_faults
from planted import Bug

BUGS = [
    Bug(
        "mini.batches",
        "self.labels[chosen]",
        "self.labels[start : start + self.batch_size]",
        "labels stay in the old order when the images are shuffled",
        test_batches.test_epochs_of_a_few_sizes,
    ),
    Bug(
        "mini.batches",
        "range(0, len(self) * self.batch_size, self.batch_size)",
        "range(0, n - self.batch_size, self.batch_size)",
        "the last, smaller batch is lost",
        test_batches.test_epochs_of_a_few_sizes,
    ),
    Bug(
        "mini.batches",
        "torch.rand((n, 1), generator",
        "torch.rand((1, 1), generator",
        "one coin decides about the mirroring of all images",
        test_batches.test_augmentation_uses_every_shift_and_mirrors_half,
    ),
    Bug(
        "mini.batches",
        "torch.randint(-pad, pad + 1,",
        "torch.randint(-pad, pad,",
        "the upper end of randint is left out, so images drift up and left",
        test_batches.test_augmentation_uses_every_shift_and_mirrors_half,
    ),
    Bug(
        "mini.batches",
        "1 / (255 * std), -mean / std",
        "1 / (255 * std), -mean",
        "the mean is subtracted after the division by the deviation",
        test_batches.test_batches_are_normalised_as_torchvision_does,
    ),
    Bug(
        "mini.batches",
        "images = _gather(images, rows[here], columns[here])",
        "images = _gather(images, rows[: len(images)], columns[: len(images)])",
        "every batch gets the shifts drawn for the first one",
        test_batches.test_batches_augment_each_image_of_each_batch_in_its_own_way,
    ),
    Bug(
        "mini.data",
        "_mean_and_std(train.images)",
        "_mean_and_std(test.images)",
        "test statistics normalise the training images",
        test_data.test_digits_have_their_shapes_types_and_statistics,
    ),
    Bug(
        "mini.data",
        'shuffled[np.argsort(rounds, kind="stable")[:n]]',
        "shuffled[:n]",
        "a subset is random, not stratified",
        test_data.test_subsets_are_balanced_nested_and_keep_their_labels,
    ),
    Bug(
        "mini.data",
        "Split(split.images[index], split.labels[index])",
        "Split(split.images[index], split.labels[:n])",
        "a subset takes the labels of the first images",
        test_data.test_subsets_are_balanced_nested_and_keep_their_labels,
    ),
    Bug(
        "mini.digits",
        'pool[:split] if part == "test" else pool[split:]',
        'pool[:split] if part == "test" else pool',
        "test digits are among the train digits",
        test_data.test_train_and_test_share_no_digit_and_no_photo_region,
    ),
    Bug(
        "mini.digits",
        "(end - first - SIZE + 1)",
        "(end - first)",
        "train crops reach over the border into the test region",
        test_data.test_train_and_test_share_no_digit_and_no_photo_region,
    ),
    Bug(
        "mini.digits",
        "cos * y - sin * x",
        "cos * y + sin * x",
        "a wrong sign makes the rotation a shear",
        test_data.test_a_digit_is_enlarged_turned_moved_and_blended,
    ),
    Bug(
        "mini.digits",
        "np.abs(crops - strokes).astype(np.uint8)",
        "(crops - strokes).astype(np.uint8)",
        "a negative difference wraps around in uint8",
        test_data.test_a_digit_is_enlarged_turned_moved_and_blended,
    ),
    Bug(
        "mini.archives",
        ".transpose(0, 3, 1, 2)",
        ".transpose(0, 3, 2, 1)",
        "height and width of CIFAR images are swapped",
        test_data.check_cifar,
    ),
    Bug(
        "mini.archives",
        'train=part == "train"',
        "train=True",
        "the test set is the train set",
        test_data.check_cifar,
    ),
    Bug(
        "mini.folders",
        "s.st_size, s.st_mtime_ns)",
        "s.st_size)",
        "an edited image of unchanged size is not noticed by the cache",
        test_faults.test_a_changed_image_makes_a_new_cache_and_removes_the_old_one,
    ),
    Bug(
        "mini.folders",
        "enumerate(some, start)",
        "enumerate(some)",
        "every task of the pool writes to the first places",
        test_data.test_many_images_stay_in_order,
    ),
    Bug(
        "mini.files",
        "if is_valid(arrays):",
        "if arrays:",
        "a cache that lacks a label is believed",
        partial(test_faults.check_damaged_cache, test_faults.cut_short),
    ),
    Bug(
        "mini.files",
        "os.replace(temporary, path)",
        "path.write_bytes(temporary.read_bytes())",
        "a copy instead of a rename can be seen half-written",
        test_faults.test_a_write_is_whole_or_absent,
    ),
]
