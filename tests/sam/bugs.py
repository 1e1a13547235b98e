"""Bugs in sharpness-aware minimisation: several from reports on public repositories."""

from functools import partial

from tests.planted import Bug
from tests.sam import test_sam as check

SGD = check.BASES[0].values[0]

BUGS = [
    Bug(
        "mini.sam",
        "w.copy_(before)",
        "w.sub_(w - before)",
        "the old weights are computed, by taking the climb off again, instead of copied",
        check.test_learning_rate_zero_leaves_the_weights_bit_identical,
    ),
    Bug(
        "mini.sam",
        "w.copy_(before)",
        "pass",
        "the step is taken from the perturbed weights",
        check.test_step_is_that_of_the_closed_form_on_a_quadratic,
    ),
    Bug(
        "mini.sam",
        "e = self.direction(g) ",
        "e = [self.direction([part])[0] for part in g] ",
        "every tensor climbs by rho: the norm is per tensor instead of global",
        check.check_momentum_parity,
    ),
    Bug(
        "mini.sam",
        'alpha=group["rho"]',
        'alpha=self.param_groups[0]["rho"]',
        "every group climbs by the first one's rho",
        check.check_group_parity,
    ),
    Bug(
        "mini.sam",
        "with frozen_batch_norm():",
        "with torch.enable_grad():",
        "batch norm's statistics are updated twice",
        check.test_running_statistics_are_updated_once_from_the_unperturbed_pass,
    ),
    Bug(
        "mini.sam",
        "        loss = closure()\n        old",
        "        with frozen_batch_norm():\n            loss = closure()\n        old",
        "batch norm's statistics are never updated",
        check.test_fit_with_sam_counts_every_batch_once,
    ),
    Bug(
        "mini.sam",
        "module.track_running_stats = False",
        "module.eval()",
        "the second pass normalises by the running statistics",
        check.test_the_second_pass_still_normalises_by_its_batch,
    ),
    Bug(
        "mini.sam",
        "            module.track_running_stats = True",
        "            pass",
        "batch norm stays frozen after the first step",
        partial(
            check.test_frozen_batch_norm_leaves_statistics_alone_and_comes_back,
            named=True,
            momentum=0.1,
        ),
    ),
    Bug(
        "mini.sam",
        "self.base.step()",
        "for group in self.param_groups:\n"
        "            for w in group['params']:\n"
        "                if w.grad is not None:\n"
        "                    w.grad.add_(w, alpha=group['weight_decay'])\n"
        "        self.base.step()",
        "weight decay is counted twice",
        check.check_momentum_parity,
    ),
    Bug(
        "mini.sam",
        "g = [w.grad if t is None",
        'g = [w.grad + self.param_groups[0]["weight_decay"] * w if t is None',
        "weight decay bends the climb",
        check.check_momentum_parity,
    ),
    Bug(
        "mini.sam",
        "base_optimizer(self.param_groups, **base_kwargs)\n"
        "        self.param_groups, self.state = self.base.param_groups, self.base.state\n"
        "        self.defaults",
        "base_optimizer([dict(group) for group in self.param_groups], **base_kwargs)\n"
        "        self.param_groups = [dict(group) for group in self.base.param_groups]\n"
        "        self.defaults",
        "a scheduler bound to SAM changes copies: the base optimizer never hears of it",
        check.test_a_scheduler_on_sam_moves_the_base_optimizer,
    ),
    Bug(
        "mini.sam",
        "self.base.load_state_dict(state_dict)\n"
        "        self.param_groups, self.state = self.base.param_groups, self.base.state",
        "super().load_state_dict(state_dict)",
        "loading replaces the shared groups and state, and the base keeps its old ones",
        partial(check.test_state_dict_round_trip_continues_the_same_run, SGD),
    ),
    Bug(
        "mini.sam",
        "self.defaults = self.base.defaults | self.defaults",
        "pass",
        "a group that is added later has no learning rate",
        check.test_an_added_group_is_stepped_by_the_base_too,
    ),
    Bug(
        "mini.sam",
        "            self._climb()\n            self.zero_grad()\n",
        "            self._climb()\n",
        "the gradient of the first pass leaks into the second",
        check.test_the_gradient_of_the_first_pass_does_not_leak_into_the_second,
    ),
    Bug(
        "mini.sam",
        "        self.zero_grad()\n        loss",
        "        loss",
        "the last step's gradient leaks into the climb",
        check.test_the_gradient_of_the_first_pass_does_not_leak_into_the_second,
    ),
    Bug(
        "mini.sam",
        "                    closure()",
        "                    loss = closure()",
        "the loss that is reported is that of the perturbed weights",
        check.test_step_is_that_of_the_closed_form_on_a_quadratic,
    ),
    Bug(
        "mini.sam",
        "rho * part.sign() * part",
        "rho * part",
        "the climb forgets the sign of the gradient",
        check.test_limits_are_the_largest_coordinate_and_the_sign,
    ),
    Bug(
        "mini.sam",
        "part.abs().pow(q - 1)",
        "part.abs().pow(q)",
        "the exponent of eq. 2 is q",
        check.test_climb_has_length_rho_and_attains_the_dual_norm,
    ),
    Bug(
        "mini.sam",
        "length := get_total_norm(g)",
        "length := get_total_norm(g).square()",
        "the norm is squared, as appendix C.5 prints it",
        check.test_step_is_that_of_the_closed_form_on_a_quadratic,
    ),
    Bug(
        "mini.sam",
        "total.pow(1 / p)",
        "total.pow(1 / q)",
        "the wrong root, which nobody notices at p = 2",
        check.test_climb_has_length_rho_and_attains_the_dual_norm,
    ),
    Bug(
        "mini.sam",
        ".clamp(min=torch.finfo(g[0].dtype).tiny)",
        "",
        "a zero gradient gives NaN",
        check.test_parameters_without_gradient_and_zero_gradients_are_left_alone,
    ),
    Bug(
        "mini.sam",
        "w.add_(part if t is None else t * part, ",
        "w.add_(part, ",
        "the adaptive climb is scaled once instead of twice",
        check.check_adaptive_parity,
    ),
    Bug(
        "mini.sam",
        "w.abs() + ETA",
        "w.abs()",
        "weights at zero can never be perturbed: ASAM's 0.01 is missing",
        check.test_adaptive_climb_is_that_of_asam,
    ),
    Bug(
        "mini.sam",
        "sum(seen) / len(closures)",
        "sum(seen)",
        "m-sharpness adds the parts' gradients instead of averaging them",
        check.test_each_part_climbs_for_itself_and_gradients_are_averaged,
    ),
    Bug(
        "mini.sam",
        '"which": "LA"',
        '"which": "LM"',
        "the largest eigenvalue in size is taken for the top one",
        partial(check.test_top_is_the_largest_not_the_largest_in_size, [1.0, 0.5, -5.0]),
    ),
    Bug(
        "mini.sam",
        "differentiate(gradient, along)]) * T",
        "differentiate(gradient, along)])",
        "the Hessian is scaled by T on one side alone",
        check.test_top_eigenvalues_agree_with_the_dense_hessian_of_a_network,
    ),
    Bug(
        "mini.sam",
        "images.split(m), labels.split(m)",
        "images.split(m), labels.flip(0).split(m)",
        "a part of the batch has another part's labels",
        check.test_the_parts_of_a_batch_are_its_examples_in_order,
    ),
    Bug(
        "mini.sam",
        'set_stance("force_eager") if hook',
        'set_stance("force_eager") if False',
        "compiled code does not notice that batch norm is frozen",
        partial(check.test_statistics_are_updated_once_where_code_is_compiled, check.compiled),
    ),
    Bug(
        "mini.sam",
        "in reversed(kept)",
        "in kept",
        "the statistics of a scripted model that is called twice are put back to the first call's",
        partial(check.test_statistics_are_updated_once_where_code_is_compiled, check.scripted),
    ),
    Bug(
        "mini.sam",
        "return super().__getstate__() | own",
        "return super().__getstate__()",
        "a copy lacks its norm and its base optimizer",
        partial(check.test_a_copy_goes_on_as_the_original_does, SGD, check.COPIES[1]),
    ),
    Bug(
        "mini.sam",
        "group.setdefault(name, value)",
        "pass",
        "the state of a plain optimizer takes rho away",
        check.test_the_state_of_a_base_optimizer_alone_continues_its_run,
    ),
    Bug(
        "mini.sam",
        "def _step_supports_amp_scaling(self)",
        "def _steps_support_scaling(self)",
        "gradients that a GradScaler has scaled are stepped along as they are",
        check.test_scaled_gradients_are_refused,
    ),
]
