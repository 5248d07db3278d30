"""Every network by name, 3D and 2D, and what is done alike with each: start, rebuild, count."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError

NETWORKS: Mapping[str, UNetConfig] = {
    n.name: n
    for n in (
        # The brain paper's 3D U-Net with switch un-pooling (Weatheritt et al. 2020, section 3.1 and Fig. 3). The figure
        # does not survive in the text: two readings meet "about 220,000 parameters", with 222,626 and 220,282.
        UNetConfig("switch32", ((32,),) * 3, (32,), ((32,),) * 3),
        UNetConfig("switch8x2", ((8, 8), (16, 16), (32, 32)), (64, 32), ((), (32, 16), (16, 8)), (8, 8), "add"),
        # The 3D U-Net that the liver report could not fit into memory (Wang & Tang 2020). It says three layers, 256
        # channels and "more than 30 GB"; the form is that of Çiçek et al. 2016 with one level less. 4,584,866
        # parameters with two outputs.
        UNetConfig.concatenating("unet3d256", ((32, 64), (64, 128), (128, 256))),
        # The liver report's 2D U-Net (section 3.2.2, after Chlebus et al. 2018): four levels, long and short skips,
        # dropout before each convolution on the way up, one sigmoid output a structure. Its channel numbers and the
        # short skips' form are in neither text: these are this project's reading, of 2,012,514 parameters.
        UNetConfig.residual("unet2d", (32, 64, 128, 256)),
        # This project's own, for users: most Dice a second. Cells of 2x2x2 voxels are its finest level, so that nothing
        # is computed at full resolution, and no switches are kept; 1,101,474 parameters with two outputs.
        UNetConfig(
            "unet_fast",
            ((32, 32), (64, 64)),
            (128, 128),
            ((64,), (32,)),
            skip="add",
            up="transposed",
            narrow_up=True,
            short_skips=True,
            patch=2,
        ),
        # The same of slices, a level deeper; 402,129 parameters with one output.
        UNetConfig(
            "unet2d_fast",
            ((16, 16), (32, 32), (64, 64)),
            (128, 128),
            ((64,), (32,), (16,)),
            skip="add",
            up="transposed",
            narrow_up=True,
            short_skips=True,
            patch=2,
            dimensions=2,
        ),
    )
}


def get_network(name: str) -> UNetConfig:
    """A network by name.

    Raises:
      InputError: no network has that name; the nearest is suggested.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(NETWORKS)}."
        raise InputError(f"There is no network named '{name}': {hint}")
    return NETWORKS[name]


def config_from_dict(d: Mapping[str, Any]) -> UNetConfig:
    """The config that `to_dict` described, now or in an earlier version, also after a trip through JSON.

    One that says no dimensions is 3D and un-pools, as all once did.

    Raises:
      InputError: networks of that many dimensions, or of such fields, do not exist here.
    """

    def tuples(v: Any) -> Any:
        return tuple(map(tuples, v)) if isinstance(v, list | tuple) else v

    given = {k: tuples(v) for k, v in d.items()}
    if given.get("dimensions", 3) not in (2, 3):
        raise InputError(f"The saved network has {d['dimensions']} dimensions: this version reads those of 2 or 3.")
    concatenating = given.pop("architecture", "") == "concatenating"
    form: Any = UNetConfig.residual if "widths" in d else UNetConfig.concatenating if concatenating else UNetConfig
    try:
        return form(**given)  # type: ignore[no-any-return]
    except TypeError as e:
        raise InputError(f"The saved network is of another version than this one ({e}): use that one.") from None


def init_variables(config: UNetConfig, key: Key[Array, ""]) -> dict[str, Any]:
    """Fresh parameters and batch statistics.

    Args:
      config: the network.
      key: random key.

    Returns:
      {"params": ..., "batch_stats": ...}, nested dicts of float32 arrays.
    """
    # It runs once: optimising it takes XLA:CPU seconds and gains milliseconds.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = config.module(lowering="native").init
    return dict(jax.jit(init, compiler_options=quick)(key, config.example()))


def variable_shapes(config: UNetConfig) -> dict[str, Any]:
    """Shapes and dtypes of what `init_variables` makes, at no cost."""
    return dict(jax.eval_shape(config.module(lowering="native").init, jax.random.key(0), config.example()))


def probability(
    config: UNetConfig, lowering: Lowering | None = None
) -> Callable[[Any, Float[Array, "batch x y _"]], Float[Array, "batch x y _"]]:
    """A network's probabilities, to be jitted or exported.

    Returns:
      (variables, image) -> probabilities (batch, *sides, structures) of an image (batch, x, y, z) in 3D and (batch, x,
      y, channels) in 2D: a softmax where the first output is the background, whose own is left out, else sigmoids.
    """
    module = config.module(lowering=lowering)

    def of(variables: Any, image: Float[Array, "batch x y _"]) -> Float[Array, "batch x y *_"]:
        logits: Any = module.apply(variables, image if image.ndim > config.dimensions + 1 else image[..., None])
        return probabilities_of(config, logits)

    return of


def probabilities_of(config: UNetConfig, logits: Any) -> Any:
    """(..., structures) of (..., outputs): a softmax, whose background is left out, or sigmoids."""
    return jax.nn.softmax(logits)[..., 1:] if is_exclusive(config) else jax.nn.sigmoid(logits)


def is_exclusive(config: UNetConfig) -> bool:
    """Whether the outputs share a softmax, the first of which is the background."""
    return config.outputs[0] == BACKGROUND


def count_parameters(params: Any) -> int:
    """Number of trainable values in a tree of arrays or shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
