"""The 3x3 and 3x3x3 convolutions that a network holds, and the form that they are done in."""

import collections
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tlseg_jax.models.lowering.choice import Choice, ConvWork, choose_lowering
from tlseg_jax.models.lowering.measure import ConvShape
from tlseg_jax.models.networks import variable_shapes
from tlseg_jax.models.unet import UNetConfig


def network_convolutions(config: UNetConfig, image: tuple[int, ...]) -> list[ConvShape]:
    """The distinct ones of the forward pass on images of a size (batch, *sides, channels), in its order."""
    module = config.module(lowering="native")
    given = jax.ShapeDtypeStruct(image, jnp.float32)
    program = jax.make_jaxpr(lambda v, x: module.apply(v, x))(variable_shapes(config), given)
    found = collections.Counter(
        tuple(tuple(v.aval.shape) for v in equation.invars[:2])
        for equation, _ in equations(program.jaxpr)
        if equation.primitive.name == "conv_general_dilated"
    )
    return [ConvShape(x, kernel, count) for (x, kernel), count in found.items()]


def network_lowering(config: UNetConfig, image: tuple[int, ...], asked: str | None = None, **how: Any) -> Choice:
    """The form for a network on images of a size (batch, *sides, channels); for the rest see `choose_lowering`."""
    told = ("name", "outputs", "momentum", "dtype", "dropout", "init")  # no matter of the convolutions
    settings = {k: v for k, v in config.to_dict().items() if k not in told}
    work = ConvWork(config.name, settings, image, config.dtype, lambda: network_convolutions(config, image))
    return choose_lowering(work, asked, **how)


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every equation of a program and of the programs within, with how often it runs."""
    for equation in jaxpr.eqns:
        yield equation, times
        inner = times * int(equation.params.get("length", 1)) if equation.primitive.name == "scan" else times
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            program = getattr(value, "jaxpr", value)
            if hasattr(program, "eqns"):
                yield from equations(program, inner)
