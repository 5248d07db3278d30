"""A network in two parts gives what the whole gives, and each part reads only its own parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import he_variables
from tlseg_jax.models.networks import get_network
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.transfer.freeze import FREEZING, frozen_batch_norms, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")

# None divides by the network's divisor.
SIDES = {
    "switch32": (9, 8, 5),
    "switch8x2": (9, 8, 5),
    "unet_fast": (9, 8, 5),
    "unet3d256": (5, 8, 6),
    "unet2d": (20, 13),
}


def moved_variables(config: UNetConfig) -> dict[str, Any]:
    """Parameters, and running averages and scales that are not those of the start."""
    variables = he_variables(config)
    noise = np.random.default_rng(1)
    for tree in (variables["batch_stats"], variables["params"]):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if path[-1].key in ("mean", "var", "scale", "bias"):
                leaf += np.abs(noise.normal(size=leaf.shape)).astype(np.float32) * 0.3
    return variables


def image(config: UNetConfig) -> jax.Array:
    return jax.random.normal(jax.random.key(2), (2, *SIDES[config.name], 1))


def is_frozen(block: str, config: UNetConfig, levels: int) -> bool:
    number = config.levels - 1 if block == "bottleneck" else int(block.removeprefix("encoder_"))
    return number < levels


def split(variables: dict[str, Any], config: UNetConfig, levels: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of the first levels, and the others."""
    first = [
        b for b in variables["params"] if b.startswith(("encoder_", "bottleneck")) and is_frozen(b, config, levels)
    ]
    return (
        {c: {k: v for k, v in tree.items() if k in first} for c, tree in variables.items()},
        {c: {k: v for k, v in tree.items() if k not in first} for c, tree in variables.items()},
    )


@pytest.mark.parametrize(
    ("name", "dtype", "numbers"),
    [
        ("switch32", "float32", (1, 4)),
        ("switch8x2", "float32", (3,)),
        pytest.param("switch8x2", "bfloat16", (4,), marks=pytest.mark.slow),
        pytest.param("unet_fast", "float32", (1, 3), marks=pytest.mark.slow),
        pytest.param("unet3d256", "float32", (1, 3), marks=pytest.mark.slow),
        ("unet2d", "float32", (2, 4)),
        pytest.param("unet2d", "bfloat16", (2,), marks=pytest.mark.slow),
    ],
)
def test_the_parts_give_what_the_whole_gives(name: str, dtype: str, numbers: tuple[int, ...]) -> None:
    config = dataclasses.replace(get_network(name), dtype=dtype)
    model, variables, x = config.module(), moved_variables(config), image(config)
    expected: Any = jax.jit(model.apply)(variables, x)
    for levels in numbers:
        first, others = split(variables, config, levels)
        features = jax.jit(lambda v, x, n=levels: model.apply(v, x, part="features", levels=n))(first, x)
        found = jax.jit(lambda v, f, n=levels: model.apply(v, f, part="rest", levels=n))(others, features)
        assert found.shape == expected.shape == (2, *SIDES[name], len(config.outputs)) and found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=1e-6 * float(jnp.abs(expected).max()))


def trained(
    config: UNetConfig, variables: dict[str, Any], freeze: str, levels: int, remat: Remat = "none"
) -> tuple[Any, Any, float]:
    """Gradients of the trained part, moved averages, and FLOPs of a training step's forward and backward pass."""
    labels = label_parameters(variables["params"], FREEZING[freeze])
    frozen = {k: v for k, v in variables["params"].items() if "trained" not in jax.tree.leaves(labels[k])}
    rest = {k: v for k, v in variables["params"].items() if k not in frozen}
    model, part = config.module(remat, "native"), "rest" if levels else "all"
    x: Any = image(config)
    if levels:
        x = jax.jit(lambda v, x: model.apply(v, x, part="features", levels=levels))(variables, x)

    def loss(rest: Any, x: Any) -> Any:
        y, moved = model.apply(
            {"params": rest | frozen, "batch_stats": variables["batch_stats"]},
            x,
            train=True,
            running=frozen_batch_norms(labels),
            part=part,
            levels=levels,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(3)},
        )
        return jnp.sum(jnp.sin(y)), moved["batch_stats"]

    step = jax.jit(jax.grad(loss, has_aux=True))
    grads, moved = step(rest, x)
    return grads, moved, float(step.lower(rest, x).cost_analysis()["flops"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "freeze", "levels", "remat"),
    [
        ("switch32", "encoder", 4, "none"),
        pytest.param("switch8x2", "encoder_without_bottleneck", 3, "full", marks=pytest.mark.slow),
        pytest.param("unet_fast", "encoder", 3, "block", marks=pytest.mark.slow),
        pytest.param("unet3d256", "encoder", 3, "block", marks=pytest.mark.slow),
        pytest.param("unet2d", "first_two", 2, "full", marks=pytest.mark.slow),  # with dropout
    ],
)
def test_training_the_rest_is_training_the_whole(name: str, freeze: str, levels: int, remat: Remat) -> None:
    config = get_network(name)
    variables = moved_variables(config)
    expected, averages, work = trained(config, variables, freeze, 0)
    found, moved, less = trained(config, variables, freeze, levels, remat)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: None, found, expected)  # of one structure
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * largest)
    # Those of the frozen levels are handed on as they were.
    jax.tree.map(lambda a, b: None, moved, variables["batch_stats"])  # of one structure
    for a, b in zip(jax.tree.leaves(averages), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert less < work or remat != "none"


def test_features_are_small() -> None:
    config = dataclasses.replace(get_network("switch32"), dtype="bfloat16")
    shapes: Any = jax.eval_shape(
        lambda v, x: config.module().apply(v, x, part="features", levels=4), moved_variables(config), image(config)
    )
    cells = 2 * 16 * 8 * 8 * 32
    assert shapes.pop("frame").size == 0
    assert {k: (v.size, str(v.dtype)) for k, v in shapes.items()} == {
        f"{what}_{i}": (cells // 8 ** (i + smaller), dtype)
        for i in range(3)
        for what, smaller, dtype in (("skip", 0, "bfloat16"), ("switches", 1, "uint8"))
    } | {"below": (cells // 8**3, "bfloat16")}


@pytest.mark.parametrize("levels", [0, 4])
def test_levels_that_are_not_there_are_refused(levels: int) -> None:
    config = get_network("unet3d256")
    with pytest.raises(ValueError, match="give 0 with 'all', else 1 to 3"):
        config.module().apply({}, image(config), part="features", levels=levels)


def test_an_image_is_no_features() -> None:
    config = get_network("unet2d")
    with pytest.raises(ValueError, match="takes features"):
        config.module().apply({}, image(config), part="rest", levels=1)
    with pytest.raises(ValueError, match="takes an image"):
        config.module().apply({}, {"frame": jnp.zeros((1, 8, 8, 0))})
