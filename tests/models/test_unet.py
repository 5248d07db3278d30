"""The networks: exact sizes, and a whole forward pass written a second time in NumPy and SciPy."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from tlseg_jax.models.networks import NETWORKS, count_parameters, get_network, init_variables, variable_shapes
from tlseg_jax.models.unet import UNetConfig

pytestmark = pytest.mark.usefixtures("quick_compile")

Array = NDArray[Any]
PUBLISHED = {n: c for n, c in NETWORKS.items() if isinstance(c, UNetConfig)}


@pytest.mark.parametrize(("name", "count"), [("switch32", 222_626), ("switch8x2", 220_282)])
def test_exact_parameter_counts(name: str, count: int) -> None:
    shapes = variable_shapes(get_network(name))
    assert count_parameters(shapes["params"]) == count
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("sides", [(8, 16, 24), (9, 13, 20), (1, 8, 7)])
def test_the_output_has_the_input_s_sides(name: str, sides: tuple[int, ...]) -> None:
    net = SwitchUNet(PUBLISHED[name])
    variables = variable_shapes(PUBLISHED[name])
    out = jax.eval_shape(net.apply, variables, jax.ShapeDtypeStruct((2, *sides, 1), jnp.float16))
    assert out.shape == (2, *sides, 2)
    assert out.dtype == jnp.float32


def test_init_reads_any_key_and_differs(tiny_network: UNetConfig) -> None:
    a, b, c = (init_variables(tiny_network, jax.random.key(s)) for s in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))
    assert not jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a["params"], c["params"]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_survives_json(name: str) -> None:
    config = dataclasses.replace(PUBLISHED[name], outputs=("background", "liver", "tumour"))
    assert UNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(UNetConfig.from_dict(config.to_dict()))


def random_variables(config: UNetConfig, seed: int) -> dict[str, Any]:
    """Parameters and running averages that are all different from their first values."""
    rng = np.random.default_rng(seed)
    shapes = variable_shapes(config)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = rng.normal(size=leaf.shape) * 0.3
        value = 1 + np.abs(noise) if path[-1].key in ("var", "scale") else noise
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)  # type: ignore[no-any-return]


def numpy_block(x: Array, params: Any, stats: Any) -> Array:
    """Convolution and batch norm by running averages, with a ReLU between, none at the end."""
    for i in range(len(stats)):
        x = np.maximum(x, 0) if i else x
        kernel = np.asarray(params[f"conv_{i}"]["kernel"], np.float64)
        x = np.stack(
            [
                sum(scipy.ndimage.correlate(x[..., c], kernel[..., c, f], mode="constant") for c in range(x.shape[-1]))
                for f in range(kernel.shape[-1])
            ],
            axis=-1,
        )
        norm, average = params[f"bn_{i}"], stats[f"bn_{i}"]
        x = (x - average["mean"]) / np.sqrt(average["var"] + 1e-5) * norm["scale"] + norm["bias"]
    return x


def numpy_pool(x: Array) -> tuple[Array, Array]:
    """The maxima of 2x2x2 cells and a mask of where each first stood."""
    d, h, w, c = x.shape
    cells = x.reshape(d // 2, 2, h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 6, 1, 3, 5).reshape(-1, 8)
    return cells.max(-1).reshape(d // 2, h // 2, w // 2, c), np.eye(8)[cells.argmax(-1)]


def numpy_unpool(y: Array, mask: Array) -> Array:
    d, h, w, c = y.shape
    cells = (y.reshape(-1, 1) * mask).reshape(d, h, w, c, 2, 2, 2)
    return cells.transpose(0, 4, 1, 5, 2, 6, 3).reshape(2 * d, 2 * h, 2 * w, c)


def numpy_network(config: UNetConfig, variables: Any, x: Array, unpool: Any = numpy_unpool) -> Array:
    """(x, y, z, 1) -> logits, in float64; switches are those of the values before the ReLU."""
    params, stats = variables["params"], variables["batch_stats"]

    def block(name: str, x: Array) -> Array:
        return numpy_block(x, params[name], stats[name])

    remembered = []
    for i in range(len(config.encoder)):
        x = block(f"encoder_{i}", x)
        pooled, mask = numpy_pool(x)
        remembered.append((np.maximum(x, 0), mask))
        x = np.maximum(pooled, 0)
    x = np.maximum(block("bottleneck", x), 0)
    for i, widths in enumerate(config.decoder):
        if widths:
            x = np.maximum(block(f"decoder_{i}", x), 0)
        skip, mask = remembered.pop()
        x = unpool(x, mask)
        x = np.concatenate([x, skip], -1) if config.skip == "concatenate" else x + skip
    if config.final:
        x = np.maximum(block("final", x), 0)
    return x @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])


SMALL = {
    "concatenate": UNetConfig("a", ((3,), (4,)), (4,), ((4,), (3,)), (), "concatenate"),
    "add": UNetConfig("b", ((2, 3), (3, 4)), (5, 4), ((), (4, 3)), (3, 2), "add", ("o", "p", "q")),
}


@pytest.mark.parametrize("skip", SMALL)
def test_forward_pass_against_numpy(skip: str) -> None:
    """Also the proof that un-pooling goes by the encoder's switches: any other place gives other logits."""
    config = SMALL[skip]
    variables = random_variables(config, 1)
    x = np.random.default_rng(2).normal(size=(8, 4, 12, 1))
    expected = numpy_network(config, variables, x)
    found = jax.jit(config.module().apply)(variables, jnp.asarray(x[None], jnp.float32))[0]
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())

    rng = np.random.default_rng(3)

    def elsewhere(y: Array, mask: Array) -> Array:
        return numpy_unpool(y, rng.permuted(mask, axis=1))

    other = numpy_network(config, variables, x, elsewhere)
    assert np.abs(other - expected).max() > 100 * np.abs(found - expected).max()


def test_padding_is_zeros_at_the_far_end() -> None:
    config = SMALL["concatenate"]
    variables = random_variables(config, 4)
    x = np.random.default_rng(5).normal(size=(1, 6, 5, 8, 1)).astype(np.float32)
    apply = jax.jit(config.module().apply)
    by_hand = apply(variables, np.pad(x, ((0, 0), (0, 2), (0, 3), (0, 0), (0, 0))))[:, :6, :5, :8]
    np.testing.assert_allclose(apply(variables, x), by_hand, atol=1e-5)


def test_frozen_batch_norms_stay_or_move(tiny_network: UNetConfig) -> None:
    variables = random_variables(tiny_network, 6)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    before = variables["batch_stats"]
    net = SwitchUNet(tiny_network)

    def moved(running: frozenset[str]) -> dict[str, bool]:
        apply = jax.jit(lambda v, x: net.apply(v, x, train=True, running=running, mutable=["batch_stats"]))
        _, after = apply(variables, x)
        flat = {
            f"{block}/{bn}": not all(
                np.array_equal(before[block][bn][k], after["batch_stats"][block][bn][k]) for k in ("mean", "var")
            )
            for block in before
            for bn in before[block]
        }
        return flat

    every = moved(frozenset())
    assert all(every.values())
    assert len(every) == 5
    frozen = frozenset({"encoder_0/bn_0", "bottleneck/bn_0"})
    assert {k for k, v in moved(frozen).items() if not v} == frozen


def test_running_averages_move_by_the_momentum(tiny_network: UNetConfig) -> None:
    config = dataclasses.replace(tiny_network, momentum=0.7)
    variables = random_variables(config, 7)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    apply = jax.jit(lambda v, x: config.module().apply(v, x, train=True, mutable=["batch_stats"]))
    _, after = apply(variables, x)
    kernel = np.asarray(variables["params"]["encoder_0"]["conv_0"]["kernel"], np.float64)
    y = np.stack(
        [
            [scipy.ndimage.correlate(np.asarray(s[..., 0], np.float64), kernel[..., 0, f], mode="constant") for s in x]
            for f in range(4)
        ],
        axis=-1,
    )
    old = variables["batch_stats"]["encoder_0"]["bn_0"]
    new = after["batch_stats"]["encoder_0"]["bn_0"]
    np.testing.assert_allclose(new["mean"], 0.7 * old["mean"] + 0.3 * y.mean((0, 1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.7 * old["var"] + 0.3 * y.var((0, 1, 2, 3)), rtol=1e-4)
