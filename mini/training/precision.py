"""Which number format networks train in: bfloat16 where the processor has it and they gain by it.

With autocast (Micikevicius et al. 2018; for bfloat16, with 8 bits of precision and the range of
float32, Kalamkar et al. 2019) convolutions and matrix products take bfloat16, weights stay float32.
What it gains depends on the network: on a Zen 5 core with AVX512-BF16 a step of `SmallResNet` takes
.6 to .8 of its float32 time, that of a small ViT more than twice as long. So it is measured, but
once for an experiment, before it starts: arms and seeds that each measured their own steps could
come out in different formats, and be compared.

    precision = training.precision_for(model, images)  # "float32" or "bfloat16": keep it on record
    training.fit(model, data, epochs=10, lr=0.01, precision=precision)
"""

import copy
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

PRECISIONS = ("float32", "bfloat16")
# As torch names them, and Linux: x86 with AVX512 or AMX, and Arm.
BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
GAIN = 0.9  # less than a tenth is not worth the digits


def precision_for(networks: nn.Module | Sequence[nn.Module], *inputs: Tensor) -> str:
    """Whether to train `networks` in "bfloat16" or "float32": one answer for all of them.

    `inputs` are what a network is called with: a batch of the size that will be trained with, on
    the device of the networks. The answer is "bfloat16" where the device has it and `step_ratio` is
    below 0.9. To be called once, where an experiment is planned, never in its workers.
    """
    networks = _several(networks)
    if not has_fast_bfloat16(device_of(networks[0])):
        return "float32"
    return "bfloat16" if step_ratio(networks, *inputs) < GAIN else "float32"


def has_fast_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether `device` computes in bfloat16 itself: AVX512-BF16, AMX, Arm's BF16, CUDA from 8.0.

    Where nobody says so (another kind of device, old torch on a system other than Linux): False.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and not BFLOAT16_UNITS.isdisjoint(_processor_units())


def _processor_units() -> set[str]:
    """What the processor can do, in lower case: from torch where it tells, else from Linux."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {unit for unit, has_it in torch.cpu.get_capabilities().items() if has_it is True}
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").lower().split())
    except OSError:
        return set()


def step_ratio(
    networks: nn.Module | Sequence[nn.Module],
    *inputs: Tensor,
    rounds: int = 9,
    at_least: float = 3.0,
) -> float:
    """Seconds of a forward and backward pass in bfloat16, divided by those in float32.

    The median of `rounds`, or of as many as fit into `at_least` seconds, in which networks and
    formats take turns, so that a slow moment slows all; on one thread, as experiments run. Of
    several networks the seconds add up. Copies do the work: the networks and torch's random state
    stay as they are.
    """
    networks = [copy.deepcopy(network).train() for network in _several(networks)]
    device, threads = device_of(networks[0]), torch.get_num_threads()

    def seconds(precision: str) -> float:
        start = perf_counter()
        for network in networks:
            network.zero_grad()
            with autocast(precision, device):
                output = network(*inputs)
            output.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - start

    turns, begin = [], perf_counter()
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            while len(turns) < 2 + rounds or perf_counter() - begin < at_least:
                turns.append([seconds(precision) for precision in PRECISIONS])
    finally:
        torch.set_num_threads(threads)
    # The first two rounds choose kernels.
    return statistics.median(bfloat16 / float32 for float32, bfloat16 in turns[2:])


def autocast(precision: str, device: torch.device | str = "cpu") -> torch.autocast:
    """A context in which torch computes in `precision`; ValueError if it is none of PRECISIONS.

    For loops of one's own; compute losses outside of it, from `.float()` of what networks return.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"{precision=}: expected one of {', '.join(PRECISIONS)}.")
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"
    )


@contextmanager
def forward_in(precision: str, model: nn.Module) -> Iterator[None]:
    """While it is open, `model(...)` computes in `precision`, and what it returns is float32.

    All around the model, losses above all, keeps its digits. Raises ValueError if the model was to
    run in bfloat16 and was not called: what calls its layers one by one would stay in float32.
    """
    if precision == "float32":
        yield
        return
    device, forward, was_called = device_of(model), model.forward, False

    def forward_in_bfloat16(*inputs: Tensor, **options: Tensor) -> Tensor:
        nonlocal was_called
        was_called = True
        with autocast(precision, device):
            output = forward(*inputs, **options)
        return output.float()

    model.forward = forward_in_bfloat16
    try:
        yield
    finally:
        del model.forward  # the method of the class is there again
    if not was_called:
        raise ValueError(
            "precision='bfloat16', but the loss does not call the model as a whole: let it, or run "
            "the layers under mini.training.autocast and train with precision='float32'."
        )


def _several(networks: nn.Module | Sequence[nn.Module]) -> Sequence[nn.Module]:
    return [networks] if isinstance(networks, nn.Module) else networks


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
