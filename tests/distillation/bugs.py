"""Bugs in distillation: several from reports on public repositories."""

from functools import partial

from tests.distillation import test_distillation as check
from tests.planted import Bug

_statistics = check.test_images_are_brought_to_other_statistics
_together = check.test_several_answer_with_the_mean_of_their_probabilities
_timm = partial(check.test_the_losses_are_those_of_timm, 5.0, 2.5, check.labels_of())
_alone = check.test_an_answer_does_not_depend_on_the_rest_of_the_batch
_orders = check.test_all_orders_of_the_wrong_ones_are_alike
_shift = check.test_the_best_shift_counts_the_other_classes_too

BUGS = [
    # The loss
    Bug(
        "mini.distillation",
        'reduction="batchmean", log_target=True)',
        'reduction="none", log_target=True).mean()',  # "mean" as it is today
        "the mean over the classes too: the soft loss is weaker by their number",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "temperature**2 * kl_div(",
        "kl_div(",
        "without the factor T^2 a high temperature silences the teacher",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "temperature**2 * kl_div(",
        "temperature * kl_div(",
        "the factor is T and not its square",
        _timm,
    ),
    Bug(
        "mini.distillation",
        "log_softmax(student_logits / temperature, dim=1)",
        "log_softmax(student_logits, dim=1)",
        "only the teacher is softened",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "softmax(teacher_logits.detach() / temperature, dim=1)",
        "softmax(teacher_logits.detach(), dim=1)",
        "only the student is softened",
        _timm,
    ),
    Bug(
        "mini.distillation",
        "kl_div(log_q, log_p, ",
        "kl_div(log_p, log_q, ",
        "the divergence the wrong way round",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "log_softmax(teacher_logits.detach() / temperature, dim=1)",
        "log_softmax(teacher_logits.detach() / temperature, dim=1).exp()",
        "kl_div is given probabilities where it wants their logarithms",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "log_q = log_softmax(student_logits / temperature, dim=1)",
        "log_q = log_softmax(student_logits / temperature, dim=0)",
        "softmax over the batch",
        check.test_soft_loss_here,
    ),
    Bug(
        "mini.distillation",
        "teacher_logits.detach()",
        "teacher_logits",
        "the loss pulls the teacher towards the student as well",
        check.test_no_gradient_reaches_the_teacher,
    ),
    Bug(
        "mini.distillation",
        "cross_entropy(student_logits, labels) + weight * soft",
        "(1 - weight) * cross_entropy(student_logits, labels) + weight * soft",
        "the labels weigh what a share leaves them, -4 where the weight is 5",
        check.test_mixed_labels_here,
    ),
    Bug(
        "mini.distillation",
        "cross_entropy(student_logits, labels) + weight * soft",
        "cross_entropy(student_logits / temperature, labels) + weight * soft",
        "the loss with labels is softened too",
        _timm,
    ),
    Bug(
        "mini.distillation",
        "soft = soft_loss(student_logits, teacher_logits, temperature=temperature)",
        "soft = soft_loss(student_logits, teacher_logits)",
        "the temperature is not passed on",
        _timm,
    ),
    Bug(
        "mini.distillation",
        "        labels = whole_labels(labels)\n    elif",
        "        pass\n    elif",
        "labels of a smaller type are not taken",
        check.test_whole_labels_are_of_any_type,
    ),
    Bug(
        "mini.distillation",
        "student_logits.shape != teacher_logits.shape or",
        "student_logits.shape[1:] != teacher_logits.shape[1:] or",
        "one row of the teacher is spread over the whole batch",
        partial(check.test_logits_that_do_not_fit_are_refused, (4, 5), (1, 5)),
    ),
    # The teacher
    Bug(
        "mini.distillation",
        "answers = [network(images) for network in self.networks]",
        "answers = [network.train()(images) for network in self.networks]",
        "a helper leaves the teacher in training mode: batch norm follows the student's batches",
        _alone,
    ),
    Bug(
        "mini.distillation",
        "any(module.training for network in self.networks for module in network.modules())",
        "any(network.training for network in self.networks)",
        "a part of a network that is in training mode goes unseen",
        check.test_in_training_mode_it_refuses_to_answer,
    ),
    Bug(
        "mini.distillation",
        "copy.deepcopy(network).requires_grad_(False)",
        "network.requires_grad_(False)",
        "the teacher is no copy: its original is frozen, and changes answers when it is trained",
        check.test_it_is_a_frozen_copy,
    ),
    Bug(
        "mini.distillation",
        "torch.stack(answers).log_softmax(dim=2).logsumexp(dim=0)",
        "torch.stack(answers).mean(dim=0)",
        "logits are averaged where probabilities should be",
        _together,
    ),
    Bug(
        "mini.distillation",
        "torch.stack(answers).log_softmax(dim=2).logsumexp(dim=0)",
        "torch.stack(answers).logsumexp(dim=0)",
        "networks with larger logits count for more",
        _together,
    ),
    Bug(
        "mini.distillation",
        "a.float() if a.dtype is torch.bfloat16 else a for a",
        "a.float() for a",
        "an answer in float64 loses its digits",
        check.test_float64_stays,
    ),
    Bug(
        "mini.distillation",
        "a.float() if a.dtype is torch.bfloat16 else a for a",
        "a for a",
        "the loss is computed from logits in bfloat16",
        check.test_in_bfloat16_the_answer_is_float32_and_near,
    ),
    Bug(
        "mini.distillation",
        "(images * s + m - to_m) / to_s",
        "images * s / to_s - (to_m - m)",
        "means are subtracted undivided, as in the published code",
        _statistics,
    ),
    Bug(
        "mini.distillation",
        "(images * s + m - to_m) / to_s",
        "(images - to_m) / to_s",
        "images that are normalised are normalised again",
        _statistics,
    ),
    Bug(
        "mini.distillation",
        "renormalise(images, self.given, self.wanted)",
        "renormalise(images, self.wanted, self.given)",
        "the statistics of student and teacher are confused",
        check.test_each_of_several_teachers_sees_its_statistics,
    ),
    # What takes its place
    Bug(
        "mini.distillation",
        "return logits.scatter(1, rest, logits.gather(1, order))",
        "return logits.gather(1, keys.argsort(dim=1))",
        "the largest is moved as well, so that the answer changes",
        _orders,
    ),
    Bug(
        "mini.distillation",
        "keys = torch.rand(logits.shape, generator=generator, device=device).to(logits.device)",
        "keys = torch.rand(logits.shape[1:], generator=generator, device=device).expand_as(logits)",
        "one order for all rows, which a student can learn",
        _orders,
    ),
    Bug(
        "mini.distillation",
        "torch.rand(logits.shape, generator=generator, device=device)",
        "torch.rand(logits.shape, device=device)",
        "the generator is not used",
        check.test_a_seed_decides_the_order,
    ),
    Bug(
        "mini.distillation",
        "torch.special.entr(p).sum(dim=-1)",
        "-(p * p.log()).sum(dim=-1)",
        "0 ln 0 is not a number",
        check.test_entropy_is_that_of_scipy,
    ),
    Bug(
        "mini.distillation",
        "share / targets.shape[-1]",
        "share * (1 - targets) / (targets.shape[-1] - 1)",
        "the share goes to the other classes alone",
        check.test_smoothed_labels_are_the_label_smoothing_of_torch,
    ),
    Bug(
        "mini.distillation",
        "brentq(lambda e: float(entropy(smoothed(label, e))) - nats, 0.0, 1.0, xtol=1e-14)",
        "nats / (ends[1] + nats)",
        "the entropy is taken to grow in proportion to the share",
        check.test_smoothing_is_found_again,
    ),
    # A class left out
    Bug(
        "mini.distillation",
        "(shift_class(logits, k, by).argmax(dim=1) == labels).sum()",
        "(shift_class(logits, k, by).argmax(dim=1) == labels)[labels == k].sum()",
        "the best shift looks at the recall of the class alone, and gives it every image",
        _shift,
    ),
    Bug(
        "mini.distillation",
        "in sorted(map(float, candidates), key=abs)",
        "in sorted(map(float, candidates))",
        "of equals the lowest is taken, not the smallest in size",
        _shift,
    ),
    Bug(
        "mini.distillation",
        "return logits + by * one_hot(",
        "logits[:, k] += by\n    return logits + 0 * one_hot(",
        "the caller's logits are shifted, and by every candidate after the other",
        check.test_a_shift_moves_one_class_and_leaves_its_input,
    ),
]
