"""The U-Net: exact sizes and names, and a whole forward pass of each form written a second time in NumPy and SciPy."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax.traverse_util import flatten_dict
from numpy.typing import NDArray

from tests.conftest import he_variables
from tlseg_jax.models.networks import NETWORKS, count_parameters, get_network, init_variables, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.transfer.freeze import frozen_batch_norms, get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")

Array = NDArray[Any]

SLICES = UNetConfig.residual("slices", (3, 4, 5), channels=3, outputs=("liver", "tumour", "vessel"))
SMALL = {
    "concatenated": UNetConfig("a", ((3,), (4,)), (4,), ((4,), (3,))),
    "added": UNetConfig("b", ((2, 3), (3, 4)), (5, 4), ((), (4, 3)), (3, 2), "add", ("o", "p", "q")),
    "transposed": UNetConfig.concatenating("c", ((2, 3), (3, 4), (4, 5))),
    "residual": SLICES,
    # What no paper's network has.
    "3d_with_short_skips": UNetConfig.concatenating("d", ((2, 3), (3, 4)), short_skips=True, dropout=0.25),
    "2d_un_pooling": dataclasses.replace(UNetConfig("e", ((3,), (4,)), (4,), ((4,), (3,)), (2,)), dimensions=2),
    "un_pooling_with_short_skips": UNetConfig("f", ((3,),), (3,), ((),), (4,), short_skips=True),
    "nearest": UNetConfig.concatenating("g", ((2, 3), (3, 4), (4, 5)), up="nearest", dimensions=2, channels=2),
    "nearest_added": UNetConfig("h", ((2, 3),), (3,), ((4,),), (2,), "add", up="nearest"),
    "cells": UNetConfig("j", ((3,),), (4,), ((3,),), skip="add", up="transposed", narrow_up=True, patch=2),
    "cells_of_slices": UNetConfig("k", ((3,),), (4,), ((3,),), (), "concatenate", dimensions=2, channels=3, patch=2),
    "narrow_added": UNetConfig("i", ((3,), (4,)), (5,), ((4,), (2,)), skip="add", up="transposed", narrow_up=True),
}
SIDES = {2: (12, 20), 3: (8, 4, 12)}
BATCH_NORMS = {
    f"{block}/bn_{i}" for block in ("encoder_0", "encoder_1", "bottleneck", "decoder_0", "decoder_1") for i in range(2)
}


def random_variables(config: UNetConfig, seed: int) -> dict[str, Any]:
    """Parameters and running averages that are all different from their first values."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = rng.normal(size=leaf.shape) * 0.3
        value = 1 + np.abs(noise) if path[-1].key in ("var", "scale") else noise
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variable_shapes(config))  # type: ignore[no-any-return]


def images(config: UNetConfig, batch: int, *sides: int, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(batch, *(sides or SIDES[config.dimensions]), config.channels)), jnp.float32)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (get_network("switch32"), 222_626),
        (get_network("switch8x2"), 220_282),
        (get_network("unet3d256"), 4_584_866),
        (get_network("unet2d"), 2_012_514),
        (get_network("unet_fast"), 1_101_474),
        (dataclasses.replace(get_network("unet2d_fast"), outputs=("liver",)), 402_129),
        (dataclasses.replace(get_network("unet2d"), outputs=("tumour",)), 2_012_514 - 33),
        # Of kernels of 9 in place of 27, and the products over the input's channels of five blocks.
        (dataclasses.replace(get_network("switch32"), dimensions=2), 222_626 - 18 * (222_626 - 7 * 64 - 130) // 27),
        (
            dataclasses.replace(get_network("unet3d256"), short_skips=True),
            4_584_866 + 64 + 64 * 128 + 128 * 256 + (256 + 128) * 128 + (128 + 64) * 64,
        ),
    ],
)
def test_exact_parameter_counts(config: UNetConfig, count: int) -> None:
    shapes = variable_shapes(config)
    assert count_parameters(shapes["params"]) == count
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


def test_the_first_two_levels_of_the_report_s_network() -> None:
    params = variable_shapes(get_network("unet2d"))["params"]
    assert count_parameters([params["encoder_0"], params["encoder_1"]]) == 67_264


def test_the_names_that_freezing_goes_by() -> None:
    params = variable_shapes(SLICES)["params"]
    names = {"/".join(p) for p in flatten_dict(params)}
    assert {"encoder_0/conv_0/kernel", "encoder_0/bn_0/scale", "encoder_0/short/kernel", "up_1/bias"} <= names
    assert {"head/kernel", "head/bias", "decoder_1/conv_1/kernel"} <= names
    frozen = frozen_batch_norms(label_parameters(params, get_rules("first_two")))
    assert frozen == {n for n in BATCH_NORMS if n.startswith("encoder")}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "sides"), [(5, (8, 16, 24)), (1, (9, 13, 20)), (1, (1, 8, 7))])
def test_the_output_has_the_input_s_sides(name: str, sides: tuple[int, ...], channels: int) -> None:
    config = dataclasses.replace(get_network(name), channels=channels)
    sides = sides[: config.dimensions]
    like = jax.ShapeDtypeStruct((2, *sides, channels), jnp.float16)
    out = jax.eval_shape(config.module().apply, variable_shapes(config), like)
    assert (out.shape, out.dtype) == ((2, *sides, 2), jnp.float32)


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (1, 8, 8, 8, 3), (8, 8, 3)])
def test_an_input_of_other_channels_or_sides_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"slices takes \(batch, x, y, 3\), not \(") as e:
        SLICES.module().apply({}, jnp.zeros(shape))
    assert str(shape) in str(e.value)


def test_half_precision_activations_still_give_float32_logits() -> None:
    config = dataclasses.replace(SLICES, dtype="bfloat16")
    variables, x = he_variables(config), images(config, 1, 8, 8)
    found: Any = jax.jit(config.module().apply)(variables, x)
    assert found.dtype == jnp.float32
    expected: Any = jax.jit(SLICES.module().apply)(variables, x)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert not np.allclose(found, expected, rtol=1e-4)


def test_init_reads_any_key_and_differs(tiny_network: UNetConfig) -> None:
    a, b, c = (init_variables(tiny_network, jax.random.key(s)) for s in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))
    assert not jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a["params"], c["params"]))


@pytest.mark.parametrize(
    ("init", "gain", "short"),
    [
        ("xavier", lambda i, o: 2 / (i + o), lambda i, o: 2 / (i + o)),
        ("he", lambda i, o: 2 / i, lambda i, o: 2 / i),
        (None, lambda i, o: 2 / i, lambda i, o: 1 / i),
    ],
)
def test_the_start(init: Any, gain: Any, short: Any) -> None:
    """Variance of the kernels from their fans; the norms start as the identity."""
    config = UNetConfig.residual("wide", (64, 128), init=init)
    params = init_variables(config, jax.random.key(0))["params"]
    for name, taps, expected in (("conv_0", 9, gain), ("short", 1, short)):
        kernel = np.asarray(params["bottleneck"][name]["kernel"])
        assert kernel.var() == pytest.approx(expected(64 * taps, 128 * taps), rel=0.05)
    assert (params["head"]["bias"] == 0).all()
    assert (params["encoder_0"]["bn_0"]["scale"] == 1).all()


def numpy_convolution(x: Array, kernel: Array) -> Array:
    def one(f: int) -> Any:
        pairs = ((x[..., c], kernel[..., c, f]) for c in range(x.shape[-1]))
        return sum(scipy.ndimage.correlate(image, k, mode="constant") for image, k in pairs)

    return np.stack([one(f) for f in range(kernel.shape[-1])], axis=-1)


def numpy_block(x: Array, params: Any, stats: Any) -> Array:
    """Convolution and batch norm by running averages, with a ReLU between, none at the end."""
    for i in range(len(stats)):
        x = np.maximum(x, 0) if i else x
        x = numpy_convolution(x, params[f"conv_{i}"]["kernel"])
        norm, average = params[f"bn_{i}"], stats[f"bn_{i}"]
        x = (x - average["mean"]) / np.sqrt(average["var"] + 1e-5) * norm["scale"] + norm["bias"]
    return x


def to_cells(x: Array) -> Array:
    """(*sides, c) -> (*halves, c, 4 or 8): the corners of each cell, the last side fastest."""
    *sides, c = x.shape
    n = len(sides)
    split = x.reshape(*(i for s in sides for i in (s // 2, 2)), c)
    return split.transpose(*range(0, 2 * n, 2), 2 * n, *range(1, 2 * n, 2)).reshape(*(s // 2 for s in sides), c, 2**n)


def from_cells(cells: Array) -> Array:
    *sides, c, _ = cells.shape
    n = len(sides)
    split = cells.reshape(*sides, c, *(2,) * n)
    order = (*(a for i in range(n) for a in (i, n + 1 + i)), n)
    return split.transpose(order).reshape(*(2 * s for s in sides), c)


def numpy_network(config: UNetConfig, variables: Any, x: Array) -> Array:
    """(*sides, channels) -> logits, in float64; switches are those of the values before the ReLU."""
    params, stats = jax.tree.map(lambda a: np.asarray(a, np.float64), (variables["params"], variables["batch_stats"]))

    def block(name: str, x: Array, relu: bool = True) -> Array:
        y = numpy_block(x, params[name], stats[name])
        if config.short_skips:
            return np.maximum(y, 0) + x @ params[name]["short"]["kernel"]
        return np.maximum(y, 0) if relu else y

    def up(i: int, x: Array, mask: Array, skip: Array) -> Array:
        if config.up == "switch":
            return from_cells(x[..., None] * mask)
        if config.up == "nearest":
            for axis in range(x.ndim - 1):
                x = np.repeat(x, 2, axis)
            return x
        kernel, bias = params[f"up_{i}"]["kernel"], params[f"up_{i}"]["bias"]
        assert len(bias) == (skip.shape[-1] if config.narrow_up else x.shape[-1])
        corners = kernel.reshape(-1, *kernel.shape[-2:])
        return from_cells(np.einsum("...c,kcf->...fk", x, corners)) + bias

    if config.patch > 1:
        assert config.patch == 2
        cells = np.moveaxis(to_cells(x), -1, -2)
        x = cells.reshape(*cells.shape[:-2], -1)
    remembered = []
    for i in range(len(config.encoder)):
        x = block(f"encoder_{i}", x, relu=False)
        if config.up != "switch" and not config.short_skips:
            x = np.maximum(x, 0)
        cells = to_cells(x)
        skip, x = x, cells.max(-1)
        if not config.short_skips:
            skip, x = np.maximum(skip, 0), np.maximum(x, 0)
        remembered.append((skip, np.eye(cells.shape[-1])[cells.argmax(-1)]))
    x = block("bottleneck", x)
    for i, widths in enumerate(config.decoder):
        skip, mask = remembered.pop()
        if widths and config.up == "switch":
            x = block(f"decoder_{i}", x)
        x = up(i, x, mask, skip)
        x = np.concatenate([x, skip], -1) if config.skip == "concatenate" else x + skip
        if widths and config.up != "switch":
            x = block(f"decoder_{i}", x)
    if config.final:
        x = block("final", x)
    kernel, bias = params["head"]["kernel"], params["head"]["bias"]
    if config.patch == 1:
        return x @ kernel + bias  # type: ignore[no-any-return]
    return from_cells(np.einsum("...c,kcf->...fk", x, kernel.reshape(-1, *kernel.shape[-2:]))) + bias


@pytest.mark.parametrize("form", SMALL)
def test_forward_pass_against_numpy(form: str) -> None:
    config = SMALL[form]
    variables, x = random_variables(config, 1), images(config, 2, seed=2)
    found: Any = jax.jit(config.module().apply)(variables, x)
    for image, logits in zip(np.asarray(x, np.float64), found, strict=True):
        expected = numpy_network(config, variables, image)
        np.testing.assert_allclose(logits, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["concatenated", "transposed", "residual"])
def test_sides_that_do_not_divide_are_padded_with_zeros_at_the_far_end_and_cropped(form: str) -> None:
    config = SMALL[form]
    variables, x = random_variables(config, 4), images(config, 1, *(6, 5, 8)[: config.dimensions])
    apply: Any = jax.jit(config.module().apply)
    pad = ((0, 0), (0, 2), (0, 3), *((0, 0),) * (config.dimensions - 1))
    np.testing.assert_allclose(apply(variables, x), apply(variables, np.pad(x, pad))[:, :6, :5], atol=1e-5)


@pytest.mark.slow
def test_a_voxel_is_seen_from_as_far_as_the_kernels_reach() -> None:
    # Two convolutions at full resolution, two at half, two at a quarter, and back: 2 + 4 + 8 + 4 + 2 voxels, and cells.
    config = UNetConfig.concatenating("narrow", ((2, 2), (2, 2), (2, 2)))
    variables = init_variables(config, jax.random.key(0))

    def middle(x: jax.Array) -> jax.Array:
        return config.module().apply(variables, x)[0, 32, 2, 2].sum()  # type: ignore[index, no-any-return]

    seen = np.flatnonzero(
        np.any(jax.grad(middle)(jax.random.normal(jax.random.key(2), (1, 64, 4, 4, 1))), axis=(0, 2, 3, 4))
    )
    assert 32 - 24 <= seen[0] <= 32 - 16 and 32 + 16 <= seen[-1] <= 32 + 24


@functools.cache
def program(config: UNetConfig, running: frozenset[str]) -> Any:
    """Logits, moved averages and every block's output, in training."""
    return jax.jit(
        lambda v, x, key: config.module().apply(
            v,
            x,
            train=True,
            running=running,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda m, _: type(m).__name__ == "Block",
        )
    )


def applied(config: UNetConfig, variables: Any, x: jax.Array, seed: int, running: frozenset[str] = frozenset()) -> Any:
    logits, moved = program(config, running)(variables, x, jax.random.key(seed))
    blocks = {k: v["__call__"][0] for k, v in moved["intermediates"].items()}
    return logits, moved["batch_stats"], blocks


def test_dropout_acts_in_training_and_in_the_decoder_only() -> None:
    variables, x = random_variables(SLICES, 5), images(SLICES, 2, 8, 12)
    one, two = (applied(SLICES, variables, x, seed) for seed in (1, 2))
    again = applied(SLICES, variables, x, 1)
    np.testing.assert_array_equal(one[0], again[0])
    same = {name: bool((one[2][name] == two[2][name]).all()) for name in one[2]}
    assert same == {"encoder_0": True, "encoder_1": True, "bottleneck": True, "decoder_0": False, "decoder_1": False}

    never = dataclasses.replace(SLICES, dropout=0.0)
    logits = [applied(never, variables, x, seed)[0] for seed in (1, 2)]
    np.testing.assert_array_equal(*logits)
    without = [jax.jit(c.module().apply)(variables, x) for c in (SLICES, never)]
    np.testing.assert_array_equal(*without)


def test_a_dropped_value_stays_on_the_short_skip() -> None:
    """With convolutions that give nothing, a decoder block is its projection, with no dropout in it."""
    variables = random_variables(SLICES, 6)
    for block in ("decoder_0", "decoder_1"):
        for i in range(2):
            norm = variables["params"][block][f"bn_{i}"]
            norm["scale"], norm["bias"] = 0 * norm["scale"], 0 * norm["bias"]
    one, two = (applied(SLICES, variables, images(SLICES, 2, 8, 12), seed)[0] for seed in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("form", ["concatenated", "residual"])
def test_frozen_batch_norms_stay_and_the_others_move(form: str) -> None:
    config = SMALL[form]
    variables, x = random_variables(config, 7), images(config, 2)
    before = flatten_dict(variables["batch_stats"])

    def moved(running: frozenset[str]) -> set[str]:
        after = flatten_dict(applied(config, variables, x, 0, running)[1])
        return {"/".join(p[:-1]) for p in before if not np.array_equal(before[p], after[p])}

    norms = {"/".join(p[:-1]) for p in before}
    assert moved(frozenset()) == norms and (norms == BATCH_NORMS) == (form == "residual")
    frozen = frozenset({"encoder_0/bn_0", "bottleneck/bn_0", "decoder_1/bn_0"})
    assert moved(frozen) == norms - frozen


@pytest.mark.parametrize(
    ("form", "loss"),
    [
        pytest.param("residual", "generalised_dice", marks=pytest.mark.slow),
        ("residual", "liver_bce"),
        *((f, "squares") for f in ("3d_with_short_skips", "2d_un_pooling")),
        *(pytest.param(f, "squares", marks=pytest.mark.slow) for f in ("nearest", "added", "transposed")),
    ],
)
def test_gradients_reach_every_parameter_and_are_finite(form: str, loss: str) -> None:
    config = SMALL[form]
    outputs = SLICES.outputs if form == "residual" else config.outputs
    variables, x = random_variables(config, 8), images(config, 2, *(9, 8, 7)[: config.dimensions])
    target = jnp.asarray(np.random.default_rng(1).random((*x.shape[:-1], len(outputs))) > 0.7, jnp.float32)
    codes = jnp.sum(target.astype(jnp.int32) << jnp.arange(len(outputs)), -1)

    @jax.jit
    def gradient(params: Any) -> Any:
        def objective(params: Any) -> jax.Array:
            logits: Any
            logits, _ = config.module().apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                x,
                train=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=["batch_stats"],
            )
            if loss == "squares":
                return jnp.mean((jax.nn.sigmoid(logits) - target) ** 2)
            return label_loss(loss, outputs, False)(logits, codes)

        return jax.grad(objective)(params)

    for path, leaf in flatten_dict(gradient(variables["params"])).items():
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
