"""Bugs in AugMix and in the corruptions: several from reports on public repositories."""

from functools import partial

from tests.augmix import test_augmix as check
from tests.corruptions import test_corruptions as check_corruptions
from tests.planted import Bug

views = partial(check.test_views_are_those_of_a_loop_over_images_with_pillow, {})
objective = check.test_objective_is_timms_loss_of_one_batch_of_clean_and_two_views


def operation(name: str):
    return partial(check.test_operations_are_those_of_pillow, name, (24, 40))


def corruption(name: str, severity: int = 5):
    return partial(getattr(check_corruptions, name), severity)


BUGS = [
    Bug(
        "mini.augmix.mixing",
        "(log_p.exp() * (log_p - log_m)).sum(dim=2).mean()",
        "(log_p.exp() * (log_p - log_m)).mean()",
        "the divergence is averaged over the classes too: reduction mean for batchmean",
        partial(check.test_loss_is_that_of_timm, 12.0),
    ),
    Bug(
        "mini.augmix.mixing",
        "log_m = log_p.logsumexp(dim=0) - math.log(len(logits))",
        "log_m = log_p.mean(dim=0)",
        "divergence from the mean of the log-probabilities, the wrong mean",
        check.test_divergence_is_the_mean_of_kl_to_the_mean_by_scipy,
    ),
    Bug(
        "mini.augmix.mixing",
        "log_m = log_p.logsumexp(dim=0) - math.log(len(logits))",
        "log_m = torch.stack(logits).mean(dim=0).log_softmax(dim=1)",
        "divergence from the softmax of the mean logits, the wrong mean",
        check.test_divergence_is_the_mean_of_kl_to_the_mean_by_scipy,
    ),
    Bug(
        "mini.augmix.mixing",
        "log_p.exp() * (log_p - log_m)",
        "log_m.exp() * (log_m - log_p)",
        "KL the wrong way round, as kl_div's order of arguments invites",
        check.test_divergence_is_the_mean_of_kl_to_the_mean_by_scipy,
    ),
    Bug(
        "mini.augmix.mixing",
        "cross_entropy(logits[0], labels)",
        "cross_entropy(torch.cat(logits), labels.repeat(1 + views))",
        "cross-entropy on the views too",
        objective,
    ),
    Bug(
        "mini.augmix.mixing",
        "jensen_shannon(*logits)\n",
        "jensen_shannon(*logits[1:])\n",
        "the clean prediction is left out of the divergence",
        objective,
    ),
    Bug(
        "mini.augmix.mixing",
        "jensen_shannon(*logits)\n",
        "jensen_shannon(logits[0].detach(), *logits[1:])\n",
        "no gradient through the clean prediction",
        objective,
    ),
    Bug(
        "mini.augmix.mixing",
        "weights=random.dirichlet([alpha] * width, n)",
        "weights=np.tile(random.dirichlet([alpha] * width), (n, 1))",
        "all images of a batch share one draw of the weights",
        check.test_what_is_drawn_has_the_papers_distribution,
    ),
    Bug(
        "mini.augmix.mixing",
        "random.integers(1, 4, n * width)",
        "random.integers(1, 3, n * width)",
        "the upper end of a range is left out: depths 1 and 2",
        check.test_what_is_drawn_has_the_papers_distribution,
    ),
    Bug(
        "mini.augmix.mixing",
        "np.array(kept)[random.integers(len(kept), size=steps)]",
        "random.integers(len(kept), size=steps)",
        "what is left out is the end of the list, whatever was named",
        check.test_what_is_left_out_is_never_drawn_and_the_rest_alike,
    ),
    Bug(
        "mini.augmix.mixing",
        "random.uniform(0.1, severity, steps)",
        "np.full(steps, severity)",
        "the largest level at every call, instead of a fresh one",
        check.test_what_is_drawn_has_the_papers_distribution,
    ),
    Bug(
        "mini.augmix.mixing",
        "np.where(recipe.depths > step, operations, -1)",
        "operations",
        "the depth of a chain is ignored",
        views,
    ),
    Bug(
        "mini.augmix.mixing",
        ".repeat_interleave(w.shape[1], dim=0)",
        ".repeat(w.shape[1], 1, 1, 1)",
        "chains are ordered by number, but read by image",
        views,
    ),
    Bug(
        "mini.augmix.mixing",
        "torch.lerp(x_aug, images, m.view(-1, 1, 1, 1))",
        "torch.lerp(images, x_aug, m.view(-1, 1, 1, 1))",
        "m is the share of the chains",
        check.test_special_recipes,
    ),
    Bug(
        "mini.augmix.mixing",
        "unit_images(images)\n",
        "images = images.float()\n",
        "uint8 images are mixed as they come",
        check.test_images_of_another_kind_are_refused,
    ),
    Bug(
        "mini.augmix.operations",
        '    "translate_y": translate_y,\n',
        '    "translate_y": translate_y,\n    "color": lambda images, _: images,\n',
        "an operation is added that is none of the nine",
        check.test_no_operation_overlaps_with_the_corruptions,
    ),
    Bug(
        "mini.augmix.operations",
        '    "solarize": solarize,\n',
        '    "solarize": lambda images, level: (images * (1 - 0.03 * level)).byte(),\n',
        "brightness, which the test measures, in the place of an operation",
        operation("solarize"),
    ),
    Bug(
        "mini.data.operations",
        "order = np.argsort(np.concatenate(groups))",
        "order = np.concatenate(groups)",
        "groups of images are put back by the wrong permutation",
        check.test_each_image_gets_its_own_operation_at_its_own_level,
    ),
    Bug(
        "mini.data.operations",
        "counts.cumsum(2) - counts",
        "counts.cumsum(2)",
        "equalize counts the pixels of a value as below it",
        operation("equalize"),
    ),
    Bug(
        "mini.augmix.operations",
        "4 - (0.4 * level.abs()).int()",
        "8 - (0.4 * level.abs()).int()",
        "posterize drops so many bits, instead of 4 more",
        operation("posterize"),
    ),
    Bug(
        "mini.augmix.operations",
        "images, 256 - ",
        "images, 257 - ",
        "solarize starts one level too high",
        operation("solarize"),
    ),
    Bug(
        "mini.data.operations",
        "[1, slope, slope, 0, 1, 0]",
        "[1, slope, 0, 0, 1, 0]",
        "shear turns about the centre",
        operation("shear_x"),
    ),
    Bug(
        "mini.data.operations",
        "-ratio * sin, 0, sin / ratio",
        "-sin, 0, sin",
        "rotation forgets that the image is not square",
        operation("rotate"),
    ),
    Bug(
        "mini.data.operations",
        "(2 * torch.arange(width, **kind) + 1) / width - 1",
        "2 * torch.arange(width, **kind) / (width - 1) - 1",
        "the grid is that of the pixels' centres",
        operation("rotate"),
    ),
    Bug(
        "mini.data.operations",
        ".byte() * inside[:, None]\n",
        ".byte()\n",
        "the border is repeated where Pillow is black",
        operation("rotate"),
    ),
    Bug(
        "mini.augmix.operations",
        "(level * images.shape[3] / 30).int()",
        "(level * images.shape[3] / 30).round().int()",
        "shifts are rounded, not cut off",
        operation("translate_x"),
    ),
    Bug(
        "mini.corruptions.families",
        "random.poisson(x * photons) / photons",
        "x + random.normal(*x.shape) / photons**0.5",
        "shot noise as strong in the dark as in the light",
        check_corruptions.test_dark_pixels_have_no_shot_and_no_speckle_noise,
    ),
    Bug(
        "mini.corruptions.families",
        "random.uniform(*x.shape), random.uniform(*x.shape)",
        "*[random.uniform(len(x), 1, *x.shape[2:])] * 2,",
        "impulses hit all channels at once, and salt or pepper depends on the place's draw",
        corruption("test_noise_has_the_spread_it_should"),
    ),
    Bug(
        "mini.corruptions.families",
        "parameters[severity - 1]",
        "parameters[severity - 2]",
        "severities are off by one",
        corruption("test_contrast_shrinks_towards_the_mean_of_each_channel"),
    ),
    Bug(
        "mini.corruptions.families",
        "mean = x.mean((2, 3), keepdim=True)",
        "mean = x.mean((1, 2, 3), keepdim=True)",
        "contrast about the mean of all channels",
        corruption("test_contrast_shrinks_towards_the_mean_of_each_channel"),
    ),
    Bug(
        "mini.corruptions.families",
        "torch.where(value > 0, x * brighter / value, brighter)",
        "x + added",
        "brightness is added to every channel, which fades the colours",
        corruption("test_brightness_and_saturation_are_those_of_colorsys"),
    ),
    Bug(
        "mini.corruptions.families",
        "(x + thickness * cloud) * brightest / (brightest + thickness)",
        "x + thickness * cloud",
        "fog without scaling back burns the image out",
        corruption("test_fog_is_a_fractal_cloud_on_every_channel_alike"),
    ),
    Bug(
        "mini.corruptions.families",
        "quality=quality",
        "quality=100 - quality",
        "JPEG quality the wrong way round",
        corruption("test_jpeg_is_that_of_pillow"),
    ),
    Bug(
        "mini.corruptions.blurs",
        '_convolve(_convolve(x, weights[:, None], "replicate"), weights[None], "replicate")',
        '_convolve(_convolve(x, weights[:, None], "constant"), weights[None], "constant")',
        "the blur fades to black at the border",
        corruption("test_gaussian_blur_is_that_of_scipy"),
    ),
    Bug(
        "mini.corruptions.blurs",
        "align_corners=True",
        "align_corners=False",
        "zoom aligns areas where scipy aligns corners",
        corruption("test_zoom_blur_is_that_of_scipy"),
    ),
    Bug(
        "mini.corruptions.blurs",
        "weights = (-(steps**2) / (2 * sigma**2)).exp()",
        "weights = (-((steps - radius) ** 2) / (2 * sigma**2)).exp()",
        "motion blur with the whole Gaussian, which also moves the image",
        corruption("test_motion_blur_is_half_a_gaussian_along_a_line"),
    ),
    Bug(
        "mini.augmix.mixing",
        "    log_p = log_p.clamp(min=torch.finfo(log_p.dtype).min)",
        "    log_p = log_p",
        "a logit of -inf makes the divergence NaN",
        check.test_a_logit_of_minus_infinity_is_a_probability_of_zero,
    ),
    Bug(
        "mini.corruptions.blurs",
        "int(4 * sigma + 0.5)",
        "int(4 / sigma + 0.5)",
        "a narrow blur is cut off late and a wide one early",
        partial(check_corruptions.test_the_gaussian_ends_at_four_sigma, 1.5),
    ),
    Bug(
        "mini.corruptions.families",
        "(80, 65, 58, 50, 40)",
        "(81, 65, 58, 50, 40)",
        "a severity is not that of the data set",
        check_corruptions.test_the_parameters_are_those_of_the_script,
    ),
]
