"""Least squares with the least norm: ours, numpy's, scipy's and torch's; ridge: scikit-learn's.

300 examples in float64 with 3,000 features and with 300, two columns of targets. numpy's and
scipy's `lstsq` call the driver gelsd, as torch's does here; `pinv` forms the inverse first. All
have ours's cutoff. Ridge is solved by a singular value decomposition in both.
"""

from functools import partial

import numpy as np
import scipy.linalg
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from turns import Benchmark

from mini import double_descent

N, WIDTHS, PENALTY = 300, (300, 3000), 1.0
CUTOFF = double_descent.CUTOFF


def pinv(X: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.pinv(X, rtol=CUTOFF) @ y


def main() -> None:
    bench = Benchmark(__file__, __doc__, "numpy", "scipy", "scikit-learn", rounds=9)
    generator = torch.Generator().manual_seed(0)
    for p in WIDTHS:
        X, y = (torch.randn(N, size, generator=generator, dtype=torch.float64) for size in (p, 2))
        on_device = X.to(bench.device), y.to(bench.device)
        arrays = X.numpy(), y.numpy()
        theirs = Ridge(alpha=PENALTY, fit_intercept=False, solver="svd")
        contests = {
            "least norm": {
                "ours": partial(double_descent.min_norm, *on_device),
                "numpy's lstsq": lambda a=arrays: np.linalg.lstsq(*a, rcond=CUTOFF)[0],
                "scipy's lstsq": lambda a=arrays: scipy.linalg.lstsq(*a, cond=CUTOFF)[0],
                "torch's pinv": partial(pinv, *on_device),
            },
            "ridge": {
                "ours": partial(double_descent.ridge, *on_device, PENALTY),
                "scikit-learn's Ridge": lambda a=arrays, m=theirs: m.fit(*a).coef_.T,
            },
        }
        for what, steps in contests.items():
            found = {who: torch.as_tensor(step()).cpu() for who, step in steps.items()}
            for who, b in found.items():
                torch.testing.assert_close(b, found["ours"], rtol=1e-6, atol=1e-9, msg=who)
            bench.compare(f"{what}, {N} x {p:,}, float64", steps)
    bench.finish()


if __name__ == "__main__":
    main()
