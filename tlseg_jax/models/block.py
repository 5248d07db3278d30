"""Convolution, batch norm and ReLU, once for each of a list of widths: what the networks are made of."""

import flax.linen as nn
from jaxtyping import Array, Float, Integer

from tlseg_jax.models.dropout import Dropout
from tlseg_jax.models.layers import Conv, Init, Parts, Projection
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.norm import BatchNorm

Widths = tuple[int, ...]


class Block(nn.Module):
    """Convolution, batch norm, ReLU for each width.

    Attributes:
      widths: channels of each convolution's output.
      momentum: of the batch norms' running averages.
      short_skip: whether a 1x1 projection of the input is added to the output.
      dropout: share of values set to zero before each convolution in training; none on the short skip.
      kernel_init: see `models/layers.py`.
      lowering: of the convolutions.
      axis: of devices that the batch is divided over (`norm.BatchNorm`).
    """

    widths: Widths
    momentum: float
    short_skip: bool = False
    dropout: float = 0.0
    kernel_init: Init | None = None
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self,
        parts: Parts,
        train: bool,
        running: frozenset[str],
        last_relu: bool = True,
        samples: Integer[Array, " batch"] | None = None,
    ) -> Float[Array, "batch *sides {self.widths[-1]}"]:
        """The block of parts with two or three sides.

        Args:
          parts: the input.
          train: whether batch statistics normalise (and move the running averages) and dropout acts.
          running: names of batch norms, such as "encoder_0/bn_0", that use their running averages
            all the same and leave them as they are.
          last_relu: whether the last ReLU is applied too.
          samples: places of the rows in the whole batch, by which dropout draws; None: 0, 1, ...
        """
        short = None
        if self.short_skip:
            short = Projection(self.widths[-1], self.kernel_init, bias=False, name="short")(parts)
        for i, width in enumerate(self.widths):
            parts = [Dropout(self.dropout)(p, train, samples) for p in parts]
            x = Conv(width, self.kernel_init, self.lowering, name=f"conv_{i}")(parts)
            average = not train or f"{self.name}/bn_{i}" in running
            last = i + 1 == len(self.widths)
            x = BatchNorm(self.momentum, self.axis, name=f"bn_{i}")(x, average, not last or last_relu)
            parts = (x,)
        return x if short is None else x + short
