"""The forms in which a 3x3 or 3x3x3 convolution is lowered, each with where it can run and what it is good for.

native   XLA's own, with its own gradients: what its TPU compiler does best.
turned   for a GPU: planes, but the input's gradient of a 3D convolution of few channels (`FEW`) is a forward
         convolution with the kernel turned round: cuDNN's own takes five times as long there in float32. Elsewhere
         native.
folded   for a GPU: XLA's own, after so many neighbours along the last side have become channels of one place that
         there are `WIDE`: the same bytes and twice the products or more, but cuDNN is made for many channels. Where
         nothing can be folded, `turned`. On an H200 a step of `switch8x2` takes 0.64 of XLA's own time with it in
         bfloat16 and 0.73 in float32, and `turned` 0.96 and 0.85 (benchmarks/results/gpu-NVIDIA_H200).
planes   for a CPU: a 3D convolution as one 2D convolution over the concatenation of each plane with its two neighbours
         (a 2D one as it is), and the kernel's gradient block by block (`kernel_gradient`).
onednn   for a CPU whose jaxlib holds it: oneDNN's convolution (`onednn`), and the same kernel's gradient.
direct   for a CPU with GCC: our own loops, for the kernel's gradient too (`direct`). On two cores a step takes half to
         three quarters of its time with oneDNN (docs/performance.md).

Which is taken is no matter of this file: `choice` has it. benchmarks/conv_lowering.py compares them. Not here: the sum
of 27 shifted products. Alone it is the fastest for a single input channel, but those products are elementwise, and XLA
fuses them into whatever reads the result and computes them anew there: a training step with the encoder frozen took
3.6 s in place of 0.3 s.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tlseg_jax.models.lowering import direct, onednn
from tlseg_jax.models.lowering.kernel_gradient import kernel_gradient

FEW = 8
"""Channels, on both sides, up to which cuDNN's gradient of a 3D convolution's input is slow."""

WIDE = 32
"""Channels, on the side that has more, up to which places are folded together."""

LAYOUTS = {4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}

Convolve = Callable[[jax.Array, jax.Array], jax.Array]
"""(batch, *sides, channels), (*threes, channels, features) -> (batch, *sides, features)."""

GPU = frozenset(("gpu", "cuda", "rocm"))


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to do a convolution of stride 1 with zero padding.

    Attributes:
      convolve: what does it, a function of a module: differentiable by both, the same as XLA's own up to rounding.
      backends: that it is for, as `jax.default_backend` names them; None: all.
      sides: of the images for which it is another form than the rest.
      dtypes: of image and kernel; None: all.
      lacking: what this machine lacks for it, in words, "" for nothing; None: nothing ever.
      cached: whether the compilation cache can keep a program that holds it.
      divided: whether XLA can divide its program over devices within a volume.
      exported: whether its program can be handed on, for any sides, to run where none of our code is.
      risky: whether it might end the process on a jaxlib that it was not tried on, and not only fail.
    """

    convolve: Convolve
    backends: frozenset[str] | None = None
    sides: tuple[int, ...] = (2, 3)
    dtypes: frozenset[str] | None = None
    lacking: Callable[[], str] | None = None
    cached: bool = True
    divided: bool = False
    exported: bool = False
    risky: bool = False

    def runs(self, backend: str, sides: int | None = None, dtype: str | None = None) -> bool:
        """Whether it can run here; of images of so many sides and a type, where these are given."""
        return (
            (self.backends is None or backend in self.backends)
            and (sides is None or sides in self.sides)
            and (dtype is None or self.dtypes is None or dtype in self.dtypes)
            and not (self.lacking and self.lacking())
        )


def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own."""
    return lax.conv_general_dilated(x, kernel, (1,) * (x.ndim - 2), "SAME", dimension_numbers=LAYOUTS[x.ndim])


def turned(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """With the input's gradient as a forward convolution, in 3D and of few channels; else XLA's own."""
    few = x.ndim == 5 and max(kernel.shape[-2:]) <= FEW
    return _turned(x, kernel) if few else native(x, kernel)


def folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Over groups of neighbours along the last side, with a kernel that holds every tap where it belongs."""
    *sides, channels = x.shape
    features = kernel.shape[-1]
    places = folded_places(sides[-1], max(channels, features))
    if places == 1:
        return turned(x, kernel)
    # From place p of a group, -1, 0 or +1 groups away, to place q is a step of so many voxels.
    group, p, q = np.ogrid[-1:2, :places, :places]
    taps = np.stack([places * group + p - q == tap for tap in (-1, 0, 1)]).astype(kernel.dtype)
    wide = jnp.einsum("tgpq,...tco->...gpcqo", taps, kernel, precision="highest")
    wide = wide.reshape(*kernel.shape[:-2], places * channels, places * features)
    groups = x.reshape(*sides[:-1], sides[-1] // places, places * channels)
    return native(groups, wide).reshape(*sides, features)


def folded_places(side: int, channels: int) -> int:
    """How many neighbours are folded together: the most, a power of two, that divides the side and stays in `WIDE`."""
    places = 1
    while side % (2 * places) == 0 and 2 * places * channels <= WIDE:
        places *= 2
    return places


def planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3D convolution as a 2D one over each plane with its neighbours; the kernel's gradient goes block by block."""
    return _with_gradients(_planes, kernel_gradient, x, kernel)


def by_onednn(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """OneDNN's; the kernel's gradient goes block by block."""
    return _with_gradients(onednn.convolve, kernel_gradient, x, kernel)


def directly(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Our own loops, for the kernel's gradient too."""
    return _with_gradients(direct.convolve, direct.kernel_gradient, x, kernel)


FORMS: dict[str, Form] = {
    "native": Form(native, divided=True, exported=True),
    "turned": Form(turned, GPU, sides=(3,)),
    "folded": Form(folded, GPU),
    "planes": Form(planes, frozenset(("cpu",)), exported=True),
    "onednn": Form(
        by_onednn, frozenset(("cpu",)), dtypes=onednn.DTYPES, lacking=onednn.lacking, cached=False, risky=True
    ),
    "direct": Form(directly, frozenset(("cpu",)), dtypes=direct.DTYPES, lacking=direct.lacking),
}
"""Every form by its name, the plainest first. What is divided or exported besides goes by XLA's own."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _with_gradients(forward: Convolve, to_kernel: Convolve, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return forward(x, kernel)


def _back(
    forward: Convolve, to_kernel: Convolve, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return forward(g, _turned_round(kernel)), to_kernel(x, g).astype(kernel.dtype)


_with_gradients.defvjp(lambda forward, to_kernel, x, kernel: (forward(x, kernel), (x, kernel)), _back)


def _turned_round(kernel: jax.Array) -> jax.Array:
    """The kernel with which, at stride 1, the input's gradient is the convolution of the output's."""
    return jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)


def _planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    if x.ndim == 4:
        return native(x, kernel)
    b, d, h, w, c = x.shape
    features = kernel.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    triples = jnp.concatenate([padded[:, i : i + d] for i in range(3)], axis=-1)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(3, 3, 3 * c, features)
    return native(triples.reshape(b * d, h, w, 3 * c), flat).reshape(b, d, h, w, features)


_turned = jax.custom_vjp(_planes)


def _turned_back(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    # Behind a barrier, or XLA recognises what it is and asks cuDNN for the gradient after all.
    to_kernel = jax.linear_transpose(lambda k: native(x, k), kernel)(g)[0]
    return native(g, lax.optimization_barrier(_turned_round(kernel))), to_kernel


_turned.defvjp(lambda x, kernel: (_planes(x, kernel), (x, kernel)), _turned_back)
