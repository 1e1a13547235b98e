"""AugMix (Hendrycks et al., ICLR 2020): chains of operations, mixed, and the loss over views."""

from mini.augmix.mixing import Recipe, augmix, draw, jensen_shannon, mix, objective
from mini.augmix.operations import OPERATIONS, operate

__all__ = [
    "OPERATIONS",
    "Recipe",
    "augmix",
    "draw",
    "jensen_shannon",
    "mix",
    "objective",
    "operate",
]
