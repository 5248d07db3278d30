"""Convolution, batch norm and ReLU, once for each of a list of widths: what the 3D networks are made of."""

import flax.linen as nn
from jaxtyping import Array, Float

from tlseg_jax.models.layers import Conv, Parts
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.norm import BatchNorm

Widths = tuple[int, ...]


class Block(nn.Module):
    """Convolution, batch norm, ReLU for each width.

    Attributes:
      widths: channels of each convolution's output.
      momentum: of the batch norms' running averages.
      lowering: of the convolutions.
      axis: of devices that the batch is divided over (`norm.BatchNorm`).
    """

    widths: Widths
    momentum: float
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self, parts: Parts, train: bool, running: frozenset[str], last_relu: bool
    ) -> Float[Array, "batch depth height width {self.widths[-1]}"]:
        """The block of parts with three sides.

        Args:
          parts: the input.
          train: whether batch statistics normalise (and move the running averages).
          running: names of batch norms, such as "encoder_0/bn_0", that use their running averages
            all the same and leave them as they are.
          last_relu: whether the last ReLU is applied too.
        """
        for i, width in enumerate(self.widths):
            x = Conv(width, lowering=self.lowering, name=f"conv_{i}")(parts)
            average = not train or f"{self.name}/bn_{i}" in running
            x = BatchNorm(self.momentum, self.axis, name=f"bn_{i}")(x, average, i + 1 < len(self.widths) or last_relu)
            parts = (x,)
        return x
