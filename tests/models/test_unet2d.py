"""The 2D network: exact sizes, and a whole forward pass written a second time in NumPy and SciPy."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax.traverse_util import flatten_dict
from numpy.typing import NDArray

from tests.conftest import he_variables
from tlseg_jax.models.networks import count_parameters, init_variables, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.slice_losses import get_slice_loss
from tlseg_jax.transfer.freeze import frozen_batch_norms, get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")

Array = NDArray[Any]
SMALL = SliceUNetConfig("small", widths=(3, 4, 5), channels=3, outputs=("liver", "tumour", "vessel"))
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


def slices(config: UNetConfig, batch: int, *sides: int, seed: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(batch, *sides, config.channels)), jnp.float32)


def test_the_reports_sizes() -> None:
    """FACTS: with two outputs 2,012,514, of which the first two resolution levels 67,264."""
    params = variable_shapes(SliceUNetConfig())["params"]
    assert count_parameters(params) == 2_012_514
    assert count_parameters([params["encoder_0"], params["encoder_1"]]) == 67_264
    assert count_parameters(variable_shapes(SliceUNetConfig(outputs=("tumour",)))["params"]) == 2_012_514 - 33
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_the_names_that_freezing_goes_by() -> None:
    params = variable_shapes(SMALL)["params"]
    names = {"/".join(p) for p in flatten_dict(params)}
    assert {"encoder_0/conv_0/kernel", "encoder_0/bn_0/scale", "encoder_0/short/kernel", "up_1/bias"} <= names
    assert {"head/kernel", "head/bias", "decoder_1/conv_1/kernel"} <= names
    frozen = frozen_batch_norms(label_parameters(params, get_rules("first_two")))
    assert frozen == {n for n in BATCH_NORMS if n.startswith("encoder")}


@pytest.mark.parametrize("sides", [(8, 16), (9, 13), (1, 7)])
@pytest.mark.parametrize("channels", [1, 5])
def test_the_output_has_the_input_s_sides(sides: tuple[int, ...], channels: int) -> None:
    config = SliceUNetConfig(channels=channels)
    like = jax.ShapeDtypeStruct((2, *sides, channels), jnp.float16)
    out = jax.eval_shape(config.module().apply, variable_shapes(config), like)
    assert (out.shape, out.dtype) == ((2, *sides, 2), jnp.float32)


def test_an_input_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"small takes \(batch, x, y, 3\), not \(1, 8, 8, 1\)"):
        SMALL.module().apply(random_variables(SMALL, 0), jnp.zeros((1, 8, 8, 1)))


def test_half_precision_activations_still_give_float32_logits() -> None:
    config = dataclasses.replace(SMALL, dtype="bfloat16")
    variables, x = he_variables(config), slices(config, 1, 8, 8)  # type: ignore[arg-type]
    found = jax.jit(config.module().apply)(variables, x)
    assert found.dtype == jnp.float32  # type: ignore[union-attr]
    expected = jax.jit(SMALL.module().apply)(variables, x)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert not np.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(("init", "gain"), [("xavier", lambda i, o: 2 / (i + o)), ("he", lambda i, o: 2 / i)])
def test_the_start(init: Any, gain: Any) -> None:
    """Variance of the kernels from their fans; the norms start as the identity."""
    config = SliceUNetConfig(widths=(64, 128), init=init)
    params = init_variables(config, jax.random.key(0))["params"]
    for name, taps in (("conv_0", 9), ("short", 1)):
        kernel = np.asarray(params["bottleneck"][name]["kernel"])
        assert kernel.var() == pytest.approx(gain(64 * taps, 128 * taps), rel=0.05)
    assert (params["head"]["bias"] == 0).all()
    assert (params["encoder_0"]["bn_0"]["scale"] == 1).all()


def numpy_block(x: Array, params: Any, stats: Any) -> Array:
    """Convolution, batch norm by running averages and ReLU, twice; the input's projection is added."""
    y = x
    for i in range(2):
        kernel = np.asarray(params[f"conv_{i}"]["kernel"], np.float64)
        y = np.stack(
            [
                sum(scipy.signal.correlate2d(y[..., c], kernel[..., c, f], mode="same") for c in range(y.shape[-1]))
                for f in range(kernel.shape[-1])
            ],
            axis=-1,
        )
        norm, average = params[f"bn_{i}"], stats[f"bn_{i}"]
        scale, mean, var = (np.asarray(a, np.float64) for a in (norm["scale"], average["mean"], average["var"]))
        y = np.maximum((y - mean) / np.sqrt(var + 1e-5) * scale + np.asarray(norm["bias"], np.float64), 0)
    return y + x @ np.asarray(params["short"]["kernel"], np.float64)


def numpy_up(x: Array, params: Any) -> Array:
    kernel = np.asarray(params["kernel"], np.float64)
    out = np.zeros((2 * x.shape[0], 2 * x.shape[1], kernel.shape[-1]))
    for i in range(2):
        for j in range(2):
            out[i::2, j::2] = x @ kernel[i, j]
    return out + np.asarray(params["bias"], np.float64)


def numpy_network(config: UNetConfig, variables: Any, x: Array) -> Array:
    """(x, y, channels) -> logits, in float64."""
    params, stats = variables["params"], variables["batch_stats"]
    levels = len(config.widths) - 1
    skips = []
    for i in range(levels):
        x = numpy_block(x, params[f"encoder_{i}"], stats[f"encoder_{i}"])
        skips.append(x)
        x = np.maximum(np.maximum(x[::2, ::2], x[1::2, ::2]), np.maximum(x[::2, 1::2], x[1::2, 1::2]))
    x = numpy_block(x, params["bottleneck"], stats["bottleneck"])
    for i in range(levels):
        x = np.concatenate([numpy_up(x, params[f"up_{i}"]), skips.pop()], axis=-1)
        x = numpy_block(x, params[f"decoder_{i}"], stats[f"decoder_{i}"])
    return x @ np.asarray(params["head"]["kernel"], np.float64) + np.asarray(params["head"]["bias"], np.float64)


def test_forward_pass_against_numpy() -> None:
    variables, x = random_variables(SMALL, 1), slices(SMALL, 2, 12, 20)
    found = jax.jit(SMALL.module().apply)(variables, x)
    for image, logits in zip(np.asarray(x, np.float64), found, strict=True):
        expected = numpy_network(SMALL, variables, image)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_260_is_padded_to_264_with_zeros_at_the_far_end_and_cropped() -> None:
    config = SliceUNetConfig(widths=(2, 2, 2, 2))
    assert config.divisor == 8
    variables, x = random_variables(config, 4), slices(config, 1, 16, 260)
    apply = jax.jit(config.module().apply)
    by_hand = apply(variables, np.pad(x, ((0, 0), (0, 0), (0, 4), (0, 0))))
    assert by_hand.shape == (1, 16, 264, 2)
    np.testing.assert_array_equal(apply(variables, x), by_hand[:, :, :260])


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
            capture_intermediates=lambda m, _: type(m).__name__ == "ResidualBlock",
        )
    )


def applied(config: UNetConfig, variables: Any, x: jax.Array, seed: int, running: frozenset[str]) -> Any:
    logits, moved = program(config, running)(variables, x, jax.random.key(seed))
    blocks = {k: v["__call__"][0] for k, v in moved["intermediates"].items()}
    return logits, moved["batch_stats"], blocks


def test_dropout_acts_in_training_and_in_the_decoder_only() -> None:
    variables, x = random_variables(SMALL, 5), slices(SMALL, 2, 8, 12)
    one, two = (applied(SMALL, variables, x, seed, frozenset()) for seed in (1, 2))
    again = applied(SMALL, variables, x, 1, frozenset())
    np.testing.assert_array_equal(one[0], again[0])
    same = {name: bool((one[2][name] == two[2][name]).all()) for name in one[2]}
    assert same == {"encoder_0": True, "encoder_1": True, "bottleneck": True, "decoder_0": False, "decoder_1": False}

    never = dataclasses.replace(SMALL, dropout=0.0)
    logits = [applied(never, variables, x, seed, frozenset())[0] for seed in (1, 2)]
    np.testing.assert_array_equal(*logits)
    without = [jax.jit(c.module().apply)(variables, x) for c in (SMALL, never)]
    np.testing.assert_array_equal(*without)


def test_a_dropped_value_stays_on_the_short_skip() -> None:
    """With convolutions that give nothing, a decoder block is its projection, with no dropout in it."""
    variables = random_variables(SMALL, 6)
    for block in ("decoder_0", "decoder_1"):
        for i in range(2):
            norm = variables["params"][block][f"bn_{i}"]
            norm["scale"], norm["bias"] = 0 * norm["scale"], 0 * norm["bias"]
    one, two = (applied(SMALL, variables, slices(SMALL, 2, 8, 12), seed, frozenset())[0] for seed in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_frozen_batch_norms_stay_and_the_others_move() -> None:
    variables, x = random_variables(SMALL, 7), slices(SMALL, 2, 8, 12)

    def moved(running: frozenset[str]) -> set[str]:
        _, after, _ = applied(SMALL, variables, x, 0, running)
        before, after = flatten_dict(variables["batch_stats"]), flatten_dict(after)
        return {"/".join(p[:-1]) for p in before if not np.array_equal(before[p], after[p])}

    assert moved(frozenset()) == BATCH_NORMS
    frozen = frozenset({"encoder_0/bn_0", "encoder_1/bn_1", "decoder_1/bn_0"})
    assert moved(frozen) == BATCH_NORMS - frozen


@pytest.mark.parametrize("loss", ["generalised_dice", "liver_bce"])
def test_gradients_reach_every_parameter_and_are_finite(loss: str) -> None:
    variables, x = random_variables(SMALL, 8), slices(SMALL, 2, 9, 8)
    target = (slices(SMALL, 2, 9, 8, seed=1) > 0.5).astype(jnp.float32)

    @jax.jit
    def gradient(params: Any) -> Any:
        def objective(params: Any) -> jax.Array:
            logits, _ = SMALL.module().apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                x,
                train=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=["batch_stats"],
            )
            return get_slice_loss(loss, SMALL.outputs)(logits, target, target[..., 0])

        return jax.grad(objective)(params)

    for path, leaf in flatten_dict(gradient(variables["params"])).items():
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
