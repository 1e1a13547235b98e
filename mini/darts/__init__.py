"""DARTS (Liu et al., ICLR 2019): the gradient here; cells, the search loop, the table beside it."""

from mini.darts.gradient import (
    ORDERS,
    Loss,
    MixedOp,
    SuperNet,
    discretise,
    hypergradient,
    leave_one_out,
    mixture,
    one_hot,
)

__all__ = [
    "ORDERS",
    "Loss",
    "MixedOp",
    "SuperNet",
    "discretise",
    "hypergradient",
    "leave_one_out",
    "mixture",
    "one_hot",
]
