"""Test accuracy against training seconds on CIFAR-10: our small network beside PyTorch's tutorial.

    MINI_DATA=cifar10 python benchmarks/cifar10_seconds.py --budgets 60 600 --record

Three rivals get the same seconds:

- **ours**: `SmallResNet` with a whitened stem and the recipe below;
- **tutorial**: PyTorch's "Training a classifier": two convolutions, three linear layers, SGD with
  learning rate 0.001 and momentum 0.9, batches of four, images scaled to [-1, 1], no augmentation;
- **tutorial, our recipe**: the same network with our batches, augmentation and schedule, so that
  what the network gives is seen apart from what the training gives.

Seconds run from images in memory to the last change of a weight: whitening and every batch count,
loading and testing do not. Our schedule follows the clock, by the share of the seconds that is
over; every rival stops after the step in which they end. The seconds printed are those that the
whole run took. Each accuracy is of one pass over the test set, and with the mirror image's logits
averaged in (`mirrored`); both are medians over seeds. The rivals take turns, since a processor's
speed wavers: what one seed finds, all find within the same minutes.

`--ablate` leaves out one trick at a time, at equal epochs, and prints accuracy and seconds of each.
"""

import argparse
import itertools
import json
import math
import os
import platform
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, relu

from mini import data, training
from mini.course.notebook import processor, seeded
from mini.files import write_atomically
from mini.training import models

ROOT = Path(__file__).resolve().parent.parent

# Strong smoothing and two pixels of shift are Jordan 2024's; the rest was found by trial.
RECIPE = {
    "optimizer": partial(torch.optim.SGD, momentum=0.85, nesterov=True),
    "lr": 0.5,
    "batch_size": 256,
    "weight_decay": 0.002,
    "warmup": 0.2,
    "label_smoothing": 0.2,
    "clip": None,
    "pad": 2,
}
WIDTHS = {60: 32, 600: 64}
RIVALS = ["ours", "tutorial, our recipe", "tutorial"]
ADAMW = {"optimizer": torch.optim.AdamW, "lr": 0.005, "weight_decay": 0.05}
# Without norm layers, so: a smaller step, clipped; smoothing would cost a net that underfits.
TUTORIAL = RECIPE | {"lr": 0.05, "clip": 1.0, "weight_decay": 5e-4, "label_smoothing": 0.0}


class TutorialNet(nn.Module):
    """The network of PyTorch's tutorial "Training a classifier": 62,006 parameters."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        sizes = (400, 120, 84, num_classes)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, images: Tensor) -> Tensor:
        x = max_pool2d(relu(self.conv1(images)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2).flatten(1)
        return self.layers[2](relu(self.layers[1](relu(self.layers[0](x)))))


def ours(dataset: data.Dataset, seed: int, *, width: int, whitened: bool = True, **options) -> dict:
    """Train a `SmallResNet`; `budget` seconds or `epochs`, whichever is in `options`."""
    generator = seeded(seed)
    model = models.SmallResNet(width, len(dataset.classes))
    recipe = RECIPE | {"generator": generator} | options
    start = perf_counter()
    if whitened:
        models.whiten(model, some_images(dataset, generator))
    whitening = perf_counter() - start
    return finish(model, dataset, seconds=whitening, width=width, **recipe)


def tutorial_our_recipe(dataset: data.Dataset, seed: int, *, budget: float) -> dict:
    """Train the tutorial's network as we train ours."""
    generator = seeded(seed)
    model = TutorialNet(len(dataset.classes))
    return finish(model, dataset, budget=budget, **TUTORIAL, generator=generator)


def finish(
    model: nn.Module,
    dataset: data.Dataset,
    *,
    seconds: float = 0.0,
    budget: float | None = None,
    epochs: int | None = None,
    width: int | None = None,
    **recipe,
) -> dict:
    """Train with `fit`, test, and tell what came of it; `seconds` were spent before."""
    # One step at least, though whitening may have used up a very small budget.
    left = None if budget is None else max(budget - seconds, 1e-3)
    start = perf_counter()
    history = training.fit(model, dataset, epochs=epochs, seconds=left, progress=False, **recipe)
    seconds += perf_counter() - start
    batches = math.ceil(len(dataset.train.labels) / recipe["batch_size"])
    epochs = round(history[-1]["steps"] / batches, 2)
    return tested(model, dataset) | {"seconds": seconds, "epochs": epochs, "width": width}


def tutorial(dataset: data.Dataset, seed: int, *, budget: float) -> dict:
    """Train the tutorial's network by the tutorial's own recipe until the seconds are over."""
    generator = seeded(seed)
    model = TutorialNet(len(dataset.classes))
    dataset = replace(dataset, mean=torch.full((3,), 0.5), std=torch.full((3,), 0.5))
    batches = data.Batches(
        dataset.train, 4, mean=dataset.mean, std=dataset.std, generator=generator
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    start, seen = perf_counter(), 0
    while perf_counter() - start < budget:
        for images, labels in batches:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
            seen += len(labels)
            if perf_counter() - start >= budget:
                break
    seconds = perf_counter() - start
    epochs = round(seen / len(dataset.train.labels), 2)
    return tested(model, dataset) | {"seconds": seconds, "epochs": epochs}


def some_images(dataset: data.Dataset, generator: torch.Generator) -> Tensor:
    """2,000 random train images, normalised as `fit` does."""
    options = {"mean": dataset.mean, "std": dataset.std, "generator": generator}
    images, _ = next(iter(data.Batches(dataset.train, 2000, **options)))
    return images


def tested(model: nn.Module, dataset: data.Dataset) -> dict[str, float]:
    return {
        "accuracy": training.accuracy(model, dataset),
        "mirrored": training.accuracy(model, dataset, mirror=dataset.mirror),
    }


def median_of(rows: list[dict]) -> dict[str, float]:
    keys = ("accuracy", "mirrored", "seconds", "epochs")
    return {key: statistics.median(row[key] for row in rows) for key in keys}


def show(label: str, rows: list[dict]) -> None:
    middle = median_of(rows)
    print(
        f"{label:34} {middle['accuracy']:8.1%} {middle['mirrored']:9.1%}"
        f" {middle['seconds']:8.1f} {middle['epochs']:7.1f} {len(rows):6}",
        flush=True,
    )


def compare(dataset: data.Dataset, chosen: list[str], budgets: list[int], seeds: int) -> list[dict]:
    """The chosen rivals at all budgets, one after the other with every seed."""
    runs = []
    for budget in budgets:
        width = WIDTHS[min(WIDTHS, key=lambda known: abs(math.log(budget / known)))]
        rivals = {
            "ours": partial(ours, width=width),
            "tutorial, our recipe": tutorial_our_recipe,
            "tutorial": tutorial,
        }
        found = {name: [] for name in chosen}
        for seed, name in itertools.product(range(seeds), chosen):
            found[name].append(rivals[name](dataset, seed, budget=budget))
            show(f"{name}, {budget} s, seed {seed}", found[name][-1:])
        for name, rows in found.items():
            show(f"{name}, {budget} s", rows)
            runs.append({"rival": name, "budget": budget, "median": median_of(rows), "runs": rows})
    return runs


@contextmanager
def relu_instead_of_gelu() -> Iterator[None]:
    gelu, models.gelu = models.gelu, relu
    yield
    models.gelu = gelu


def ablate(dataset: data.Dataset, epochs: int, seeds: int) -> list[dict]:
    """Leave out, or swap, one trick of the one-minute recipe at a time."""
    variants = {
        "all of it": {},
        "no whitening": {"whitened": False},
        "no label smoothing": {"label_smoothing": 0.0},
        "no shift": {"pad": 0},
        "no mirror image": {"mirror": False},
        "no warm-up": {"warmup": 0.0},
        "batches of 128": {"batch_size": 128},
        "batches of 512": {"batch_size": 512},
        "AdamW": ADAMW,
        "bfloat16": {"precision": "bfloat16"},
        "three quarters of the width": {"width": 3 * WIDTHS[60] // 4},
    }
    runs = []
    for name, options in variants.items():
        options = {"epochs": epochs, "width": WIDTHS[60]} | options
        rows = [ours(dataset, seed, **options) for seed in range(seeds)]
        show(name, rows)
        runs.append({"variant": name, "median": median_of(rows), "runs": rows})
    with relu_instead_of_gelu():
        rows = [ours(dataset, seed, epochs=epochs, width=WIDTHS[60]) for seed in range(seeds)]
    show("ReLU for GELU", rows)
    return [*runs, {"variant": "ReLU for GELU", "median": median_of(rows), "runs": rows}]


def rows(runs: list[dict], title: str) -> list[dict]:
    """Ours beside each rival with the same seconds, as the README's table shows it."""
    found = []
    percents = {
        (run["rival"], run["budget"]): [100 * row["accuracy"] for row in run["runs"]]
        for run in runs
        if "rival" in run
    }
    for (rival, budget), theirs in percents.items():
        if rival != "ours" and ("ours", budget) in percents:
            ours = percents["ours", budget]
            times = [a / b for a, b in zip(ours, theirs, strict=True)]
            values = {"ours": ours, "theirs": theirs, "times": times}
            what = f"{title}: test accuracy after {budget} s"
            row = {"what": what, "unit": "%", "peer": rival}
            found.append(row | {key: statistics.median(of) for key, of in values.items()})
    return found


def record(dataset: data.Dataset, kind: str, runs: list[dict], config: dict) -> None:
    path = ROOT / "results" / "benchmarks" / f"{kind}-{dataset.name}.json"
    content = {
        "benchmark": kind,
        "dataset": dataset.name,
        "dataset_title": dataset.title,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "device": "cpu"},
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "config": config,
        "rows": rows(runs, dataset.title),
        "results": runs,
    }
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=1).encode()))
    print(f"{path.relative_to(ROOT)} written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=[60], help="in seconds")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=RIVALS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ablate", action="store_true", help="leave out one trick at a time")
    parser.add_argument("--epochs", type=int, default=3, help="of each run with --ablate")
    parser.add_argument("--record", action="store_true", help="write the JSON into results/")
    args = parser.parse_args()
    if (os.environ.get("MINI_DATA") or "digits") == "digits":
        print("Left out: set MINI_DATA to cifar10, or to a folder of its images.")
        return
    torch.set_num_threads(args.threads)
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)  # the first one loads torch's compiler
    dataset = data.load()
    print(f"{dataset.title}, {args.threads} threads on {processor()}")
    print(f"{'':34} accuracy  mirrored  seconds  epochs  seeds", flush=True)
    kind = "cifar10_ablation" if args.ablate else "cifar10_seconds"
    if args.ablate:
        runs = ablate(dataset, args.epochs, args.seeds)
    else:
        runs = compare(dataset, args.rivals, args.budgets, args.seeds)
    if args.record:
        config = {key: value for key, value in RECIPE.items() if key != "optimizer"}
        config |= {"optimizer": "SGD, Nesterov momentum 0.85", "widths": WIDTHS}
        record(dataset, kind, runs, config | {"seeds": args.seeds})


if __name__ == "__main__":
    main()
