"""3x3 and 3x3x3 convolutions, and the one place that chooses how they are lowered.

native   XLA's own, with its own gradients: what its TPU compiler does best.
turned   for a GPU: XLA's own, but the input's gradient of a 3D convolution of few channels (`FEW`) is a forward
         convolution with the kernel turned round: cuDNN's own takes five times as long there in float32.
folded   for a GPU: XLA's own, after so many neighbours along the last side have become channels of one place that
         there are `WIDE`: the same bytes and twice the products or more, but cuDNN is made for many channels. Where
         nothing can be folded, `turned`. On an H200 a step of `switch8x2` takes 0.64 of XLA's own time with it in
         bfloat16 and 0.73 in float32, and `turned` 0.96 and 0.85 (benchmarks/results/gpu-NVIDIA_H200).
planes   for a CPU: a 3D convolution as one 2D convolution over the concatenation of each plane with its two neighbours
         (a 2D one as it is), and the kernel's gradient block by block (`kernel_gradient`).
onednn   for a CPU whose jaxlib holds it: oneDNN's convolution (`onednn`), and the same kernel's gradient.

benchmarks/conv_lowering.py compares them. Not here: the sum of 27 shifted products. Alone it is the fastest for a
single input channel, but those products are elementwise, and XLA fuses them into whatever reads the result and computes
them anew there: a training step with the encoder frozen took 3.6 s in place of 0.3 s.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from tlseg_jax.models.lowering import onednn
from tlseg_jax.models.lowering.kernel_gradient import kernel_gradient

Lowering = Literal["native", "turned", "folded", "planes", "onednn"]

Kernel = Float[Array, "*threes channels features"]

FEW = 8
"""Channels, on both sides, up to which cuDNN's gradient of a 3D convolution's input is slow."""

WIDE = 32
"""Channels, on the side that has more, up to which places are folded together."""

LAYOUTS = {4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def choose_lowering(backend: str | None = None) -> Lowering:
    """The fastest lowering of a convolution on a backend ("cpu", "gpu", "tpu"; None: the default one)."""
    backend = backend or jax.default_backend()
    if backend != "cpu":
        return "folded" if backend in ("gpu", "cuda", "rocm") else "native"
    return "onednn" if onednn.available(backend) else "planes"


def convolution(
    x: Float[Array, "batch *sides channels"], kernel: Kernel, lowering: Lowering | None = None
) -> Float[Array, "batch *sides features"]:
    """Convolution of stride 1 with zero padding, no bias.

    Args:
      x: of two or three sides.
      kernel: as many threes as sides.
      lowering: one form, or None for the backend's fastest.

    Returns:
      The same for every lowering up to rounding, and so are its gradients.
    """
    lowering = lowering or choose_lowering()
    if lowering == "folded" and folded_places(x.shape[-2], max(kernel.shape[-2:])) == 1:
        lowering = "turned"
    if lowering == "turned" and (x.ndim == 4 or max(kernel.shape[-2:]) > FEW):
        lowering = "native"
    if lowering == "folded":
        return _folded(x, kernel)
    return _native(x, kernel) if lowering == "native" else _by_hand(lowering, x, kernel)


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


def _native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1,) * (x.ndim - 2), "SAME", dimension_numbers=LAYOUTS[x.ndim])


def folded_places(side: int, channels: int) -> int:
    """How many neighbours are folded together: the most, a power of two, that divides the side and stays in `WIDE`."""
    places = 1
    while side % (2 * places) == 0 and 2 * places * channels <= WIDE:
        places *= 2
    return places


def _folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution over groups of neighbours along the last side, whose kernel holds every tap where it belongs."""
    *sides, channels = x.shape
    features = kernel.shape[-1]
    places = folded_places(sides[-1], max(channels, features))
    # From place p of a group, -1, 0 or +1 groups away, to place q is a step of so many voxels.
    group, p, q = np.ogrid[-1:2, :places, :places]
    taps = np.stack([places * group + p - q == tap for tap in (-1, 0, 1)]).astype(kernel.dtype)
    wide = jnp.einsum("tgpq,...tco->...gpcqo", taps, kernel, precision="highest")
    wide = wide.reshape(*kernel.shape[:-2], places * channels, places * features)
    groups = x.reshape(*sides[:-1], sides[-1] // places, places * channels)
    return _native(groups, wide).reshape(*sides, features)


def _forward(lowering: Lowering, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if lowering == "onednn":
        return onednn.convolve(x, kernel)
    return _planes(x, kernel) if x.ndim == 5 else _native(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_hand(lowering: Lowering, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _forward(lowering, x, kernel)


def _keep(lowering: Lowering, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(lowering, x, kernel), (x, kernel)


def _gradients(lowering: Lowering, kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    # Stride 1: the input's gradient is the convolution of the output's with the kernel turned round.
    turned = jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)
    if lowering == "turned":
        # Behind a barrier, or XLA recognises what it is and asks cuDNN for the gradient after all.
        to_kernel = jax.linear_transpose(lambda k: _native(x, k), kernel)(g)[0]
        return _native(g, lax.optimization_barrier(turned)), to_kernel
    return _forward(lowering, g, turned), kernel_gradient(x, g).astype(kernel.dtype)


_by_hand.defvjp(_keep, _gradients)


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, d, h, w, c = x.shape
    features = kernel.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    triples = jnp.concatenate([padded[:, i : i + d] for i in range(3)], axis=-1)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(3, 3, 3 * c, features)
    return _native(triples.reshape(b * d, h, w, 3 * c), flat).reshape(b, d, h, w, features)
