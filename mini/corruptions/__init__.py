"""The corruptions of CIFAR-10-C (Hendrycks & Dietterich, ICLR 2019)."""

from mini.corruptions.families import CORRUPTIONS, corrupt

__all__ = ["CORRUPTIONS", "corrupt"]
