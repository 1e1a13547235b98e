"""MAP@R of 10,000 embeddings, and triplets of a batch: ours and pytorch-metric-learning's.

Embeddings have 64 numbers; the 10,000 are of 10 classes, so that R is 999. pytorch-metric-learning
is asked for as many neighbours, with its own search in blocks of 500 queries (by default it asks
for all, and needs faiss). It takes distances by way of products, which are less exact, and does not
look for equal ones. A batch is 128 embeddings of 8 classes.
"""

from collections.abc import Callable
from functools import partial

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor
from torch.nn.functional import one_hot
from turns import Benchmark

from mini import metric_learning

PEER = "pytorch-metric-learning"
PLAIN = LpDistance(normalize_embeddings=False)
DIM, BATCH = 64, 128


def clusters(n: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normal clouds, whose centres stand 1.4 deviations from each other."""
    labels = torch.arange(n) % classes
    noise = torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))
    return (noise + one_hot(labels, DIM)).to(device), labels.to(device)


def theirs(embeddings: Tensor, labels: Tensor) -> float:
    """MAP@R by pytorch-metric-learning."""
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r",),
        k="max_bin_count",
        device=embeddings.device,
        knn_func=CustomKNN(PLAIN, batch_size=500),
        kmeans_func=lambda *_: None,
    )
    return calculator.get_accuracy(embeddings, labels)["mean_average_precision_at_r"]


def main() -> None:
    bench = Benchmark(__file__, __doc__, PEER, rounds=15, n=10_000)
    embeddings, labels = clusters(bench.chosen.n, 10, bench.device)
    measures: dict[str, Callable[[], float]] = {
        "ours": partial(metric_learning.map_at_r, embeddings, labels),
        PEER: partial(theirs, embeddings, labels),
    }
    assert abs(measures["ours"]() - measures[PEER]()) < 1e-5
    bench.compare(f"MAP@R of {len(labels):,} embeddings", measures)
    embeddings, labels = clusters(BATCH, 8, bench.device)
    miners = {
        "all": TripletMarginMiner(margin=1e9, type_of_triplets="all", distance=PLAIN),
        "hard": BatchHardMiner(distance=PLAIN),
    }
    for kind, miner in miners.items():
        ours, peer = metric_learning.mine(embeddings, labels, kind), miner(embeddings, labels)
        for places, their_places in zip(ours, peer, strict=True):
            assert torch.equal(places, their_places)
        steps = {
            "ours": partial(metric_learning.mine, embeddings, labels, kind),
            PEER: partial(miner, embeddings, labels),
        }
        bench.compare(f"mining {kind} of a batch of {BATCH}", steps)
    bench.finish()


if __name__ == "__main__":
    main()
