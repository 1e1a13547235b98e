"""Bugs in the corruptions of CIFAR-10-C; more of them stand in tests/augmix/bugs.py."""

from functools import partial

from tests.corruptions import test_corruptions as check
from tests.planted import Bug

snow = partial(check.test_snow_is_that_of_scipy_and_of_loops, 4)
frost = partial(check.test_frost_is_a_part_of_a_photograph_on_a_part_of_the_image, 5)
elastic = partial(check.test_elastic_is_that_of_scipy, 3)

BUGS = [
    # What all have in common
    Bug(
        "mini.corruptions.families",
        "(255 * corrupted + 1e-3).floor() / 255",
        "(255 * corrupted).round() / 255",
        "the result is rounded to 8 bits, not cut off as in the data set",
        partial(check.test_contrast_shrinks_towards_the_mean_of_each_channel, 1),
    ),
    Bug(
        "mini.corruptions.families",
        'EXTRA = ("speckle_noise", "gaussian_blur", "saturate")',
        'EXTRA = ("speckle_noise", "saturate")',
        "an extra corruption is counted among the fifteen",
        check.test_the_fifteen_are_those_of_the_benchmark_and_the_others_extra,
    ),
    Bug(
        "mini.corruptions.families",
        "90 * random.uniform(len(x)) - 45)",
        "90 * random.uniform(1).expand(len(x)) - 45)",
        "one direction of motion for the whole batch",
        partial(check.test_each_image_has_its_own_and_the_generator_decides, "motion_blur"),
    ),
    Bug(
        "mini.corruptions.families",
        "= four / 4 + wibble * noise",
        "= four / 4 + noise",
        "the cloud's noise is drawn as wide as the step, and not multiplied by it again",
        check.test_the_cloud_is_the_scripts,
    ),
    Bug(
        "mini.corruptions.blurs",
        "(rows <= reach) | (columns <= reach)",
        "(rows < reach) | (columns < reach)",
        "glass blur starts one row and one column early",
        check.test_glass_blur_copies_from_up_and_left_as_the_scripts_swap_does,
    ),
    # Snow
    Bug(
        "mini.corruptions.families",
        "random.normal(len(x), 1, *x.shape[2:])",
        "random.normal(*x.shape)",
        "flakes in three colours",
        check.test_snow_falls_and_is_white,
    ),
    Bug(
        "mini.corruptions.families",
        "flakes * (flakes >= least)",
        "flakes.clamp(min=least)",
        "what is no flake is grey instead of black",
        snow,
    ),
    Bug(
        "mini.corruptions.families",
        "(255 * flakes.clamp(max=1)).floor() / 255",
        "flakes",
        "flakes brighter than white make longer streaks",
        snow,
    ),
    Bug(
        "mini.corruptions.families",
        "-45 - 90 * random.uniform(len(x))",
        "90 * random.uniform(len(x)) - 45",
        "snow blows sideways: the angles of motion blur",
        check.test_snow_falls_and_is_white,
    ),
    Bug(
        "mini.corruptions.families",
        "torch.maximum(x, 1.5 * grey + 0.5)",
        "torch.maximum(x, 1.5 * x + 0.5)",
        "the image is lightened in its colours",
        snow,
    ),
    Bug(
        "mini.corruptions.families",
        "flakes.rot90(2, (2, 3))",
        "flakes.flip(3)",
        "the second layer of flakes is mirrored instead of rotated",
        snow,
    ),
    Bug(
        "mini.corruptions.blurs",
        "round(kept * factor)",
        "int(kept * factor)",
        "sides are cut off where scipy rounds them",
        snow,
    ),
    # Frost
    Bug(
        "mini.corruptions.families",
        "added * torch.stack(layers).to(x) / 255",
        "added * torch.stack(layers).to(x)",
        "photographs in 0 to 255 on images in 0 to 1",
        frost,
    ),
    Bug(
        "mini.corruptions.families",
        "kept * x + added",
        "(1 - added) * x + added",
        "the two weights are made to have the sum 1",
        frost,
    ),
    Bug(
        "mini.corruptions.families",
        "random.below(len(photos), len(x))",
        "random.below(len(photos), 1).expand(len(x))",
        "one photograph for the whole batch",
        frost,
    ),
    Bug(
        "mini.corruptions.photographs",
        '"frost5.jpg")',
        '"frost5.jpg", "frost6.jpg")',
        "six photographs, where the script draws of five",
        frost,
    ),
    Bug(
        "mini.corruptions.photographs",
        "[2::5, 2::5]",
        "[::5, ::5]",
        "resized at the corners of squares instead of their centres",
        frost,
    ),
    Bug(
        "mini.corruptions.photographs",
        '.convert("RGB")',
        "",
        "the alpha channel of a PNG is taken for a fourth colour",
        frost,
    ),
    Bug(
        "mini.corruptions.photographs",
        "if package is None:",
        "if not package.has_location:",
        "an absent package is looked into before it is missed",
        check.test_frost_says_what_to_install,
    ),
    # Elastic
    Bug(
        "mini.corruptions.families",
        "2 * random.uniform(len(x), 2, *x.shape[2:]) - 1",
        "random.uniform(len(x), 2, *x.shape[2:])",
        "displacements point right and down only: the image slides",
        elastic,
    ),
    Bug(
        "mini.corruptions.families",
        "height, sigma, reach = (share * x.shape[2] for share in shares)",
        "height, sigma, reach = shares[0] * x.shape[2], shares[1], shares[2] * x.shape[2]",
        "the Gaussian's width is a share of the side, taken for pixels",
        elastic,
    ),
    Bug(
        "mini.corruptions.warps",
        "torch.linalg.solve(matrix, target)",
        "matrix @ target",
        "the map is used the wrong way round",
        elastic,
    ),
    Bug(
        "mini.corruptions.warps",
        "torch.stack([second - third, first - second], dim=2)",
        "torch.stack([second - third, first - second], dim=1)",
        "the columns of the map become its rows",
        elastic,
    ),
    Bug(
        "mini.corruptions.warps",
        "    moved = (first + third) / 2\n",
        "    moved = 0 * first\n",
        "the map turns and stretches, and leaves the middle where it is",
        check.test_the_affine_map_moves_the_image_as_its_corners_move,
    ),
    Bug(
        "mini.corruptions.warps",
        "unit.movedim(1, 3)",
        "unit.flip(1).movedim(1, 3)",
        "rows and columns change places, as grid_sample wants (x, y)",
        check.test_a_displaced_pixel_is_the_one_that_lies_there,
    ),
    Bug(
        "mini.corruptions.warps",
        'padding_mode="reflection"',
        'padding_mode="zeros"',
        "corners turn black",
        check.test_the_affine_map_moves_the_image_as_its_corners_move,
    ),
    Bug(
        "mini.corruptions.warps",
        'mirror="edge"',
        'mirror="pixel"',
        "one border for both warps",
        check.test_a_displaced_pixel_is_the_one_that_lies_there,
    ),
    Bug(
        "mini.corruptions.warps",
        "np.arange(-int(3 * sigma + 0.5), int(3 * sigma + 0.5) + 1)",
        "np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)",
        "the field's Gaussian ends at four sigma, as that of gaussian_blur does",
        partial(check.test_fields_are_smoothed_as_by_scipy, 1.92, 32),
    ),
    Bug(
        "mini.corruptions.warps",
        "np.add.at(matrix, (rows, np.minimum(columns, 2 * size - 1 - columns)), weights)",
        "matrix[rows, np.minimum(columns, 2 * size - 1 - columns)] += weights",
        "weights that fold back onto one pixel are not added up: numpy keeps the last",
        partial(check.test_fields_are_smoothed_as_by_scipy, 1.92, 32),
    ),
]
