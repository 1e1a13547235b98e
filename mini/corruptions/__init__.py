"""The corruptions of CIFAR-10-C (Hendrycks & Dietterich, ICLR 2019)."""

from mini.corruptions.families import COMMON, CORRUPTIONS, EXTRA, corrupt

__all__ = ["COMMON", "CORRUPTIONS", "EXTRA", "corrupt"]
