"""Every network by name, 3D and 2D, and what is done alike with each: start, rebuild, count."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.models.unet2d import SliceUNetConfig
from tlseg_jax.models.unet3d import UNet3DConfig
from tlseg_jax.runtime.errors import InputError

NetworkConfig = UNetConfig | UNet3DConfig | SliceUNetConfig

NETWORKS: Mapping[str, NetworkConfig] = {
    n.name: n
    for n in (
        UNetConfig("switch32", ((32,),) * 3, (32,), ((32,),) * 3, (), "concatenate"),
        UNetConfig("switch8x2", ((8, 8), (16, 16), (32, 32)), (64, 32), ((), (32, 16), (16, 8)), (8, 8), "add"),
        UNet3DConfig("unet3d256"),
        SliceUNetConfig("unet2d"),
    )
}


def get_network(name: str) -> NetworkConfig:
    """A network by name.

    Raises:
      InputError: no network has that name; the nearest is suggested.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(NETWORKS)}."
        raise InputError(f"There is no network named '{name}': {hint}")
    return NETWORKS[name]


def config_from_dict(d: Mapping[str, Any]) -> NetworkConfig:
    """The config that `to_dict` described; one that says no dimensions is 3D and un-pools, as all once did.

    Raises:
      InputError: networks of that many dimensions do not exist here.
    """
    dimensions = d.get("dimensions", UNetConfig.dimensions)
    if d.get("architecture") == UNet3DConfig.architecture:
        return UNet3DConfig.from_dict(d)
    for kind in (UNetConfig, SliceUNetConfig):
        if dimensions == kind.dimensions:
            return kind.from_dict(d)
    raise InputError(f"The saved network has {dimensions} dimensions: this version reads those of 2 or 3.")


def init_variables(config: NetworkConfig, key: Key[Array, ""]) -> dict[str, Any]:
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


def variable_shapes(config: NetworkConfig) -> dict[str, Any]:
    """Shapes and dtypes of what `init_variables` makes, at no cost."""
    return dict(jax.eval_shape(config.module().init, jax.random.key(0), config.example()))


def probability(
    config: NetworkConfig, lowering: Lowering | None = None
) -> Callable[[Any, Float[Array, "batch x y _"]], Float[Array, "batch x y _"]]:
    """A network's probabilities, to be jitted or exported.

    Returns:
      (variables, image) -> probabilities (batch, *sides, structures) of an image (batch, x, y, z) in 3D and (batch, x,
      y, channels) in 2D: a softmax where the first output is the background, whose own is left out, else sigmoids.
    """
    module = config.module(lowering=lowering)

    def of(variables: Any, image: Float[Array, "batch x y _"]) -> Float[Array, "batch x y *_"]:
        logits: Any = module.apply(variables, image if config.dimensions == 2 else image[..., None])
        return jax.nn.softmax(logits)[..., 1:] if is_exclusive(config) else jax.nn.sigmoid(logits)

    return of


def is_exclusive(config: NetworkConfig) -> bool:
    """Whether the outputs share a softmax, the first of which is the background."""
    return config.outputs[0] == BACKGROUND


def count_parameters(params: Any) -> int:
    """Number of trainable values in a tree of arrays or shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
