"""What each form of convolution takes on a device, and whether what it gives there is right.

Each is run on the same noise, value and both gradients, and compared with `lax.conv_general_dilated` in float32
throughout. A form that is wrong or fails has no time, so that it cannot be the fastest; one that might end the process
is run in another (`apart`).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlseg_jax.models.lowering.apart import tried_apart
from tlseg_jax.models.lowering.forms import FORMS, Convolve, native

TOLERANCE = {"float32": 5e-3, "bfloat16": 2e-2}
"""Of the norm of a difference to the norm, and of its largest value to the largest. Rounding to TF32 (10 bits), as a
GPU's float32 is, gives 3e-4 to 1e-3, to bfloat16 (8 bits) 2e-3 to 1e-2."""

MOST = 3
"""Convolutions of a network that are measured, at most: those with the most work."""

SHARE = 0.8
"""Of all work, that is enough."""

VALUES = {"cpu": 2**22}
"""Of image and result together, by backend: larger ones are measured on a part."""

VALUES_ELSEWHERE = 2**27

NARROW = 16
"""Channels that fewer cost as much as: what a vector or a tile holds."""

RUNS, ENOUGH = 3, 0.2
"""Timed runs of one convolution, at most, and seconds after which there is no further one."""


@dataclasses.dataclass(frozen=True)
class ConvShape:
    """One convolution of a network.

    Attributes:
      image: (batch, *sides, channels).
      kernel: (*threes, channels, features).
      count: how often the network holds it.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    count: int = 1

    @property
    def work(self) -> float:
        """About in proportion to its time."""
        wide = math.prod(max(n, NARROW) for n in self.kernel[-2:])
        return float(self.count * math.prod(self.image[:-1]) * wide)

    def part(self, values: int) -> "ConvShape":
        """Of fewer samples, then of fewer slices, so that image and result have at most so many values; counts more."""
        batch, first, *rest = self.image
        voxels, channels = math.prod(rest[:-1]), sum(self.kernel[-2:])
        batch = max(min(batch, values // (first * voxels * channels)), 1)
        if batch == 1:
            first = max(min(first, values // (voxels * channels)), min(first, 3))
        return dataclasses.replace(self, image=(batch, first, *rest))


def heaviest(shapes: Iterable[ConvShape]) -> list[ConvShape]:
    """The few that make up most of the work, the heaviest first."""
    ordered = sorted(shapes, key=lambda s: s.work, reverse=True)
    total, taken = sum(s.work for s in ordered), list[ConvShape]()
    for shape in ordered[:MOST]:
        if sum(s.work for s in taken) < SHARE * total:
            taken.append(shape)
    return taken


@dataclasses.dataclass(frozen=True)
class Measured:
    """One form.

    Attributes:
      seconds: of all these convolutions and their gradients; None where it is not to be taken.
      fault: why it is not.
    """

    seconds: float | None
    fault: str = ""


def measure(names: Sequence[str], shapes: Iterable[ConvShape], dtype: str) -> dict[str, Measured]:
    """What each form of these names takes for the heaviest of `shapes`, or why it is not to be taken."""
    values = VALUES.get(jax.default_backend(), VALUES_ELSEWHERE)
    parts = [s.part(values) for s in heaviest(shapes)]
    found: dict[str, Measured] = {}
    for name in names:
        form = FORMS[name]
        found[name] = Measured(**(tried_apart if form.risky else measured_here)(form.convolve, parts, dtype))
    return found


def measured_here(convolve: Convolve, shapes: Iterable[ConvShape], dtype: str) -> dict[str, Any]:
    """The fields of `Measured` of one form, run in this process and compared with XLA's own."""
    total = 0.0
    for shape in shapes:
        operands = _operands(shape, dtype)
        try:
            program = jax.jit(_all(convolve))
            found = jax.block_until_ready(program(*operands))
            if fault := _difference(found, _expected(operands), dtype):
                return {"seconds": None, "fault": f"wrong for {shape.image} by {shape.kernel}: {fault}"}
            total += shape.count * _seconds(lambda p=program, o=operands: jax.block_until_ready(p(*o)))  # type: ignore[misc]
        except Exception as e:  # whatever a compiler or a library says of it: another form is taken
            return {"seconds": None, "fault": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:300]}
    return {"seconds": total, "fault": ""}


def _operands(shape: ConvShape, dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Image, kernel and the result's gradient, of noise."""
    rng = np.random.default_rng(0)
    sizes = (shape.image, shape.kernel, (*shape.image[:-1], shape.kernel[-1]))
    return tuple(jnp.asarray(rng.standard_normal(s, np.float32)).astype(dtype) for s in sizes)  # type: ignore[return-value]


def _all(convolve: Convolve) -> Callable[..., tuple[jax.Array, ...]]:
    def value_and_gradients(image: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        value, back = jax.vjp(convolve, image, kernel)
        return (value, *back(g))

    return value_and_gradients


def _expected(operands: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    # A program of its own: beside what it is to judge, the compiler could find that both do the same. Which algorithm
    # is fastest does not matter to what is expected, and a GPU takes long to try them.
    program = jax.jit(_all(native), compiler_options={"xla_gpu_autotune_level": 0})
    with jax.default_matmul_precision("highest"):
        return program(*(o.astype(jnp.float32) for o in operands))  # type: ignore[no-any-return]


def _difference(found: Sequence[jax.Array], expected: Sequence[jax.Array], dtype: str) -> str:
    """In what these are not the same; "" where they are."""
    for what, a, b in zip(("the value", "the image's gradient", "the kernel's gradient"), found, expected, strict=True):
        by_norm, largest = (float(v) for v in _differs(a, b))
        # A comparison with NaN is false: NaN is never right.
        if not max(by_norm, largest) <= TOLERANCE[dtype] or math.isnan(by_norm):
            return f"{what} differs by {by_norm:.2g} of its norm and {largest:.2g} of its largest value"
    return ""


@jax.jit
def _differs(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    difference = a.astype(jnp.float32) - b
    norm = jnp.linalg.norm(difference.ravel()) / jnp.linalg.norm(b.ravel())
    return norm, jnp.abs(difference).max() / jnp.abs(b).max()


def _seconds(run: Callable[[], object]) -> float:
    """The quickest of a few runs: what else the machine does only adds."""
    times: list[float] = []
    while len(times) < RUNS and sum(times) < ENOUGH:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
