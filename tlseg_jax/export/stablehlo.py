"""A network as one StableHLO program (`jax.export`): weights inside, any batch, any sides, several platforms.

What runs it needs JAX and no code of ours (https://docs.jax.dev/en/latest/export/export.html).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from numpy.typing import NDArray

from tlseg_jax.checkpoints.checkpoint_files import first_line
from tlseg_jax.models.lowering.forms import FORMS
from tlseg_jax.models.networks import is_exclusive, probability
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError

PLATFORMS = ("cpu", "cuda", "tpu")
"""What a program is made for where nobody says otherwise."""

KNOWN_PLATFORMS = (*PLATFORMS, "rocm")


def check_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """The platforms, each once.

    Raises:
      InputError: there is none, or JAX has no platform of that name.
    """
    chosen = tuple(dict.fromkeys(platforms))
    unknown = [p for p in chosen if p not in KNOWN_PLATFORMS]
    if unknown or not chosen:
        raise InputError(
            f"`platforms={','.join(platforms)}` names no platform that a network can be exported for: "
            f"choose from {', '.join(KNOWN_PLATFORMS)}."
        )
    return chosen


def input_shape(config: UNetConfig) -> str:
    """The shape that the program takes, as `jax.export.symbolic_shape` writes it: "b, 8*x, 8*y, 8*z" and so on."""
    sides = [f"{config.divisor}*{axis}" for axis in "xyz"[: config.dimensions]]
    channels = [str(config.channels)] if config.dimensions == 2 else []
    return ", ".join(["b", *sides, *channels])


def calling_convention(config: UNetConfig) -> dict[str, Any]:
    """The program's one argument and one result, in words and shapes, for the card."""
    shown, how = config.outputs, "each by itself; above 0.5 is inside"
    if is_exclusive(config):
        shown = shown[1:]
        how = "above 0.5 is inside" if len(shown) == 1 else "the largest counts where it is above 1 less their sum"
    planes = config.dimensions == 2
    what = "patches or volumes; x left to right, y back to front, z up"
    if planes:
        what = "planes; x left to right, y back to front, and neighbouring planes as channels"
    sides = input_shape(config).rsplit(", ", 1)[0] if planes else input_shape(config)
    return {
        "input": {"shape": input_shape(config), "dtype": "float32", "meaning": f"prepared {what}"},
        "output": {
            "shape": f"{sides}, {len(shown)}",
            "dtype": "float32",
            "meaning": f"probability of {', '.join(shown)}, {how}",
        },
        "sides": f"multiples of {config.divisor}: fill others up with zeros at their far end, and crop the result "
        "back; an example does not depend on the others in its batch",
    }


def export_network(config: UNetConfig, params: Any, batch_stats: Any, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """The network as a serialised program that `load_network` reads.

    A CPU gets the convolutions' fast portable form (`planes`), which takes a fifth of the time of XLA's own. The
    oneDNN call cannot be exported. No path of this machine is in it, and it needs none of the platforms.

    Returns:
      (batch, *sides) or (batch, *sides, channels) float32 -> probabilities, as `calling_convention` says.
    """
    variables = {"params": params, "batch_stats": batch_stats}
    exported = [n for n, form in FORMS.items() if form.exported]
    best = {p: next(n for n in reversed(exported) if FORMS[n].runs(p)) for p in platforms}
    by_platform = {p: probability(config, n) for p, n in best.items() if n != "native"}
    native = probability(config, "native")

    def program(image: jax.Array) -> jax.Array:
        constants = jax.tree.map(jnp.asarray, variables)
        if not by_platform:
            return native(constants, image)
        return jax.lax.platform_dependent(constants, image, default=native, **by_platform)  # type: ignore[no-any-return]

    shape = export.symbolic_shape(input_shape(config))
    limit = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    # Or the source files' paths on this machine would be handed on.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        made = export.export(jax.jit(program), platforms=tuple(platforms))(jax.ShapeDtypeStruct(shape, jnp.float32))
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    return bytes(made.serialize())


def load_network(program: bytes, divisor: int, where: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The program as a plain function on NumPy arrays of any sides, compiled once a shape.

    Args:
      divisor: of the network; sides are filled up with zeros at the far end and the result is cropped, as the
        network itself does.
      where: the file, for messages.

    Returns:
      As `train.predictors.make_predictor`'s.

    Raises:
      InputError: this version of JAX cannot read it, or it is not for this machine's kind of device.
    """
    try:
        exported = export.deserialize(bytearray(program))
    except Exception as e:  # what another version, or something else than a program, raises here is listed nowhere
        raise InputError(
            f"{where} cannot be read by JAX {jax.__version__} ({first_line(e)}): "
            "give the folder that it lies in, whose checkpoint every version reads."
        ) from None
    backend = jax.default_backend()
    if not set(exported.platforms) & ({"cuda", "rocm"} if backend == "gpu" else {backend}):
        raise InputError(
            f"{where} was exported for {', '.join(exported.platforms)} and this machine computes on {backend}: "
            "give the folder that it lies in, or export again with other `platforms`."
        )
    call = jax.jit(exported.call)

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        given = np.asarray(image, np.float32)
        sides = given.shape[1 : 1 + _spatial(exported)]
        pad = [(0, 0), *((0, -s % divisor) for s in sides)]
        pad += [(0, 0)] * (given.ndim - len(pad))
        out = np.asarray(call(np.pad(given, pad)))
        if out.ndim == len(sides) + 1:  # of one structure, as programs of volumes once were
            out = out[..., None]
        return out[(slice(None), *(slice(s) for s in sides))]

    return predict


def _spatial(exported: export.Exported) -> int:
    """Sides of an example: those of the shape that are not fixed, besides the batch."""
    (taken,) = exported.in_avals
    return sum(not isinstance(s, int) for s in taken.shape) - 1


def program_version() -> dict[str, Any]:
    """What tells whether a later JAX reads a program made now."""
    return {"jax": jax.__version__, "calling_convention_version": export.maximum_supported_calling_convention_version}
