"""Refusing images of ten classes: OpenMax and the OSCR area, ours and pytorch-ood's.

Both are fitted to the same 5,000 logits before the clock starts. pytorch-ood's OpenMax goes through
the images one by one and asks each class's distribution for each; ours asks a distribution for all
images at once.
"""

import torch
from pytorch_ood.detector import OpenMax as TheirOpenMax
from pytorch_ood.metrics import oscr_score
from torch.nn.functional import one_hot
from turns import Benchmark

from mini import openset

N, K = 10_000, 10
FEW = 50  # for pytorch-ood's OpenMax, which takes some 0.25 ms an image


def main() -> None:
    bench = Benchmark(__file__, __doc__, "pytorch-ood", rounds=15)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5000) % K
    fitted = torch.randn(5000, K, generator=generator) + 4 * one_hot(labels, K)
    labels = labels[is_right := fitted.argmax(dim=1) == labels]
    fitted = fitted[is_right]
    logits = 2 * torch.randn(N, K, generator=generator)
    ours = openset.OpenMax(fitted, labels)
    theirs = TheirOpenMax(None, tailsize=20).fit_logits(fitted, labels)
    few = logits[:FEW]
    unknown = [ours.probabilities(few)[:, 0], theirs.predict_logits(few)]
    torch.testing.assert_close(*unknown, rtol=0, atol=1e-3, check_dtype=False)
    bench.compare_images(
        f"OpenMax, images of {K} classes",
        {
            "ours": (lambda n: ours.probabilities(logits[:n]), N),
            "pytorch-ood": (lambda n: theirs.predict_logits(logits[:n]), FEW),
        },
    )
    score, known = openset.max_logit(logits), torch.arange(N) % 2 == 0
    answer, true = logits.argmax(dim=1), torch.randint(K, (N,), generator=generator)
    true[~known] = -1
    right = (answer == true)[known]
    areas = {
        "ours": lambda: openset.oscr(score[known], right, score[~known]),
        "pytorch-ood": lambda: oscr_score(-score, answer, true),
    }
    assert abs(areas["ours"]() - float(areas["pytorch-ood"]())) < 1e-9
    bench.compare(f"OSCR, {N:,} images", areas)
    bench.finish()


if __name__ == "__main__":
    main()
