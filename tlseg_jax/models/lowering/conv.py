"""3x3 and 3x3x3 convolutions, in the form that is asked for or that `choice` has for the device."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from tlseg_jax.models.lowering.choice import usual_lowering
from tlseg_jax.models.lowering.forms import FORMS

Lowering = str
"""A name of `FORMS`."""

Kernel = Float[Array, "*threes channels features"]


def convolution(
    x: Float[Array, "batch *sides channels"], kernel: Kernel, lowering: Lowering | None = None
) -> Float[Array, "batch *sides features"]:
    """Convolution of stride 1 with zero padding, no bias.

    Args:
      x: of two or three sides.
      kernel: as many threes as sides.
      lowering: one form, or None for what is usual on the device (`usual_lowering`).

    Returns:
      The same for every lowering up to rounding, and so are its gradients.
    """
    name = lowering or usual_lowering(x.ndim - 2, x.dtype.name)
    return FORMS[name].convolve(x, kernel)


def convolution_of_parts(
    parts: Sequence[Float[Array, "batch *sides _"]], kernel: Kernel, lowering: Lowering | None = None
) -> Float[Array, "batch *sides features"]:
    """`convolution` of the parts' concatenation along the channels, which is never made.

    A gradient that nothing asks for, such as that of a frozen encoder's skip, is then not computed either.

    Args:
      parts: of two or three sides.
      kernel: of the channels of all parts.
      lowering: as for `convolution`.
    """
    total: jax.Array | None = None
    start = 0
    for part in parts:
        stop = start + part.shape[-1]
        y = convolution(part, kernel[..., start:stop, :], lowering)
        total, start = y if total is None else total + y, stop
    assert total is not None and start == kernel.shape[-2]
    return total
