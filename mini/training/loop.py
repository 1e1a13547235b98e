"""One training loop for every notebook, short enough to read before it is trusted.

The recipe is the field's common one: shuffled batches, mirror and pad-crop augmentation, linear
warm-up and cosine decay (Loshchilov & Hutter 2017), label smoothing (Szegedy et al. 2016), weight
decay on the weights of linear and convolutional layers only. What a paper changes, it changes from
outside: `loss` replaces the objective (mixup, AugMix), `optimizer` the step (SAM; every step gets a
closure, so an optimizer may ask for the gradient twice).
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from mini.data import Batches, Dataset, Split
from mini.data.batches import whole_number
from mini.training import metrics
from mini.training.precision import device_of, forward_in

History = list[dict[str, float]]
ADAMW = partial(torch.optim.AdamW, fused=True)  # one kernel a step instead of one a parameter


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    lr: float,
    batch_size: int = 128,
    optimizer: Callable[..., torch.optim.Optimizer] = ADAMW,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    label_smoothing: float = 0.0,
    clip: float | None = 1.0,
    pad: int = 2,
    mirror: bool | None = None,
    precision: str = "float32",
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place on `data.train`, on the device its parameters are on.

    Give one of three lengths: `epochs`; `steps`, by which data sets of different sizes compare; or
    `seconds` of training, when the schedule follows the clock and no run repeats another exactly.

    `optimizer` is called as `optimizer(groups, lr=lr)`; bind its other options with `partial`.
    `warmup` is the share of the training spent raising the learning rate to `lr`, `clip` the
    largest global gradient norm, `pad` the margin in pixels of the random crop, `mirror` whether to
    mirror half of the images (default: what `data` allows), `precision` what the model's forward
    pass computes in ("float32" or "bfloat16", see `precision_for`; losses are always float32).
    `loss(model, images, labels)` gives the scalar to minimise; `measure(model)` is called after
    each epoch and at the end. `generator` decides order and augmentation (default: torch's own,
    which `torch.manual_seed` seeds); the weights are the caller's to seed.

    Returns one row per epoch, of which the last may be cut short by `steps` or `seconds`: `epoch`,
    `steps` (done so far), `seconds` (training only), `lr`, `train_loss` (the mean over the images
    of the row), and whatever `measure` gave. Raises ValueError on impossible settings and
    FloatingPointError when the loss stops being a number.
    """
    if [epochs, steps, seconds].count(None) != 2:
        raise ValueError(
            f"Give one of epochs, steps and seconds, not {epochs=}, {steps=}, {seconds=}."
        )
    for name, length in (("epochs", epochs), ("steps", steps)):
        if length is not None:
            whole_number(name, length, at_least=1)
    if lr <= 0 or not 0 <= warmup < 1 or (seconds is not None and not 0 < seconds < math.inf):
        raise ValueError(
            f"Expected lr > 0, 0 <= warmup < 1, seconds > 0, not {lr=}, {warmup=}, {seconds=}."
        )
    groups = parameter_groups(model, weight_decay)
    device = device_of(model)
    batches = Batches(
        data.train,
        batch_size,
        mean=data.mean,
        std=data.std,
        pad=pad,
        mirror=data.mirror if mirror is None else mirror,
        generator=generator,
        device=device,
    )
    if epochs is not None:
        steps = epochs * len(batches)
    if loss is None:
        loss = partial(_cross_entropy, label_smoothing=label_smoothing)
    stepper = optimizer(groups, lr=lr)
    done, spent, start = 0, 0.0, perf_counter()  # steps, seconds of earlier epochs, of this one

    def share() -> float:
        """Of the training: how much is over by the middle of the next step, or by the clock."""
        if seconds is None:
            return (done + 0.5) / steps
        return (spent + perf_counter() - start) / seconds

    scheduler = torch.optim.lr_scheduler.LambdaLR(
        stepper, lambda _: ramp_and_cosine(min(share(), 1.0), warmup)
    )

    def gradient(images: Tensor, labels: Tensor) -> Tensor:
        stepper.zero_grad()
        with forward_in(precision, model):
            value = loss(model, images, labels)
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return value

    history: History = []
    epochs = math.ceil(steps / len(batches)) if seconds is None else None
    bar = partial(tqdm, total=epochs, unit="epoch", leave=False) if progress else iter
    for epoch in bar(itertools.count(1)):
        start, total, seen = perf_counter(), 0.0, 0
        model.train()
        for images, labels in batches:
            total += stepper.step(partial(gradient, images, labels)).detach() * len(labels)
            seen += len(labels)
            lr_now = scheduler.get_last_lr()[0]
            done += 1
            scheduler.step()
            if is_over := share() > 1:
                break
        row = {"epoch": epoch, "steps": done, "lr": lr_now, "train_loss": float(total) / seen}
        row["seconds"] = perf_counter() - start
        spent += row["seconds"]
        if not math.isfinite(row["train_loss"]):
            raise FloatingPointError(f"Loss {row['train_loss']} in epoch {epoch}: lower {lr=}.")
        history.append(row | (measure(model) if measure else {}))
        if is_over:
            return history


def schedule(step: int, *, steps: int, warmup: float) -> float:
    """Share of the full learning rate, in (0, 1], at `step` of 0..`steps` - 1.

    `ramp_and_cosine` at t = (step + 1/2) / steps, the middle of the step.
    """
    return ramp_and_cosine((step + 0.5) / steps, warmup)


def ramp_and_cosine(t: float, warmup: float) -> float:
    """Share of the full learning rate, in [0, 1], once the share `t` of the training is over.

    With w = `warmup`, t / w while t < w (Goyal et al. 2017), then
    (1 + cos(pi (t - w) / (1 - w))) / 2 (Loshchilov & Hutter 2017, eq. 5: one period, to zero).
    """
    if t < warmup:
        return t / warmup
    return 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def _cross_entropy(model: nn.Module, images: Tensor, labels: Tensor, **options: float) -> Tensor:
    return cross_entropy(model(images), labels, **options)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two optimizer groups: weights of linear and convolutional layers, which decay, and the rest.

    Biases, norms, class tokens and position embeddings are left alone, as timm and the ViT code do;
    frozen parameters are in neither. Raises ValueError when nothing is left to train.
    """
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    decaying = {id(m.weight) for m in model.modules() if isinstance(m, layers)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("The model has no parameter to train: set requires_grad on some.")
    return [
        {"params": [p for p in parameters if id(p) in decaying], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decaying], "weight_decay": 0.0},
    ]


@torch.no_grad()  # in inference mode the logits could not be trained on
def predict(
    model: nn.Module, split: Split, data: Dataset, *, batch_size: int = 500, mirror: bool = False
) -> Tensor:
    """Logits `[N, K]` (float32, on the CPU) of `model` in evaluation mode on the images of `split`.

    `mirror` averages the logits of each image with those of its mirror image.
    """
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    batches = Batches(split, batch_size, mean=data.mean, std=data.std, shuffle=False, device=device)
    rows = []
    try:
        for images, _ in batches:
            logits = model(images)
            rows.append((logits + model(images.flip(3))) / 2 if mirror else logits)
    finally:
        for module, mode in modes:  # a part may be frozen, in a model that trains
            module.training = mode
    return torch.cat(rows).float().cpu()


def accuracy(
    model: nn.Module, data: Dataset, split: Split | None = None, *, mirror: bool = False
) -> float:
    """Share of the images of `split`, or of the test set, that `model` gets right (`predict`)."""
    split = data.test if split is None else split
    return metrics.accuracy(predict(model, split, data, mirror=mirror), split.labels)
