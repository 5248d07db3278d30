"""What both frameworks are given: one network, one batch, one precision."""

import dataclasses

from benchmarks.sizes import Size

Precision = str
"""Of the activations: "float32" or "bfloat16" (parameters stay float32 on both sides)."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
      size: the network, and the batch and sides of what it trains on.
      tf32: whether float32 products may be rounded to TF32 where the hardware has it, on both sides or on neither.
    """

    size: Size
    dtype: Precision = "float32"
    tf32: bool = True


CHECKED = {2: (2, (36, 28)), 3: (2, (16, 16, 24))}
"""Dimensions -> batch and sides that values and gradients are compared on; in 2D they have to be padded."""
