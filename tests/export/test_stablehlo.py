"""One program for any batch, any sides and three platforms gives what the network itself gives."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from tests.models.test_features import moved_variables
from tlseg_jax.export.stablehlo import PLATFORMS, check_platforms, export_network, input_shape, load_network
from tlseg_jax.models.networks import get_network
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.predictors import make_predictor

pytestmark = pytest.mark.usefixtures("quick_compile")

ROOT = Path(__file__).resolve().parents[2]
NETWORKS: dict[str, UNetConfig] = {
    "concatenate": UNetConfig("a", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate"),
    "add": UNetConfig("b", ((2, 2), (3, 3)), (4, 3), ((), (3, 2)), (2,), "add"),
    "transposed": UNetConfig.concatenating("c", ((2, 3), (3, 4))),
    "slices": UNetConfig.residual("d", (2, 3), channels=3),
}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request: pytest.FixtureRequest) -> tuple[UNetConfig, dict, bytes]:  # type: ignore[type-arg]
    config = NETWORKS[request.param]
    variables = moved_variables(config)
    return config, variables, export_network(config, variables["params"], variables["batch_stats"])


def test_any_batch_and_any_sides_give_what_the_network_gives(made: tuple[UNetConfig, dict, bytes]) -> None:  # type: ignore[type-arg]
    config, variables, program = made
    ours = make_predictor(config, variables["params"], variables["batch_stats"])
    theirs = load_network(program, config.divisor, "model.stablehlo")
    tail = (config.channels,) if config.dimensions == 2 else ()
    # The second shape's sides divide by nothing: they are filled up as the network does it.
    for shape in ((2, 8, 16, 8), (3, 9, 7, 10)):
        image = np.random.default_rng(0).normal(size=(*shape[: 1 + config.dimensions], *tail)).astype(np.float32)
        expected, found = ours(image), theirs(image)
        assert found.shape == expected.shape and found.dtype == np.float32
        assert np.ptp(expected) > 0.05  # it tells voxels apart
        # Sums in another order: rounding of float32 over a few layers. A switch that a tie moved would be far more.
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.array_equal(found > 0.5, expected > 0.5)


def test_nothing_in_it_is_of_one_platform_or_one_machine(made: tuple[UNetConfig, dict, bytes]) -> None:  # type: ignore[type-arg]
    _, _, program = made
    exported = export.deserialize(bytearray(program))
    assert exported.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    calls = set(re.findall(r"custom_call @([\w$.]+)", exported.mlir_module()))
    assert calls <= {"shape_assertion"}  # of the symbolic sides; JAX removes it where it is called
    for path in (str(ROOT), str(Path.home()) + "/", "site-packages", "models/conv.py"):
        assert path.encode() not in program


@pytest.mark.parametrize("name", ["switch32", "switch8x2", "unet_fast", "unet3d256", "unet2d"])
def test_every_network_is_lowered_for_every_platform(name: str) -> None:
    config = get_network(name)
    variables = moved_variables(config)
    exported = export.deserialize(bytearray(export_network(config, variables["params"], variables["batch_stats"])))
    (taken,), (given,) = exported.in_avals, exported.out_avals
    symbols = [s for s in taken.shape if not isinstance(s, int)]
    assert len(symbols) == 1 + config.dimensions
    assert taken.shape[: 1 + config.dimensions] == given.shape[: 1 + config.dimensions]
    assert input_shape(config).count("*") == config.dimensions
    if name != "unet3d256":  # two poolings: multiples of 4
        assert input_shape(config).startswith("b, 8*x, 8*y")


def test_sides_that_do_not_divide_are_no_input_of_the_program_itself() -> None:
    config = NETWORKS["concatenate"]
    variables = moved_variables(config)
    exported = export.deserialize(
        bytearray(export_network(config, variables["params"], variables["batch_stats"], ["cpu"]))
    )
    assert exported.platforms == ("cpu",)
    with pytest.raises(ValueError, match="4"):
        jax.eval_shape(exported.call, jax.ShapeDtypeStruct((1, 8, 9, 8), np.float32))


def test_what_cannot_be_run_here_is_said() -> None:
    config = NETWORKS["concatenate"]
    variables = moved_variables(config)
    program = export_network(config, variables["params"], variables["batch_stats"], ["cuda", "tpu"])
    with pytest.raises(InputError, match=r"m\.stablehlo was exported for cuda, tpu and this machine computes on cpu"):
        load_network(program, config.divisor, "m.stablehlo")
    with pytest.raises(InputError, match=r"m\.stablehlo cannot be read by JAX"):
        load_network(b"not a program at all", config.divisor, "m.stablehlo")


def test_platforms_are_checked() -> None:
    assert check_platforms(["tpu", "cpu", "tpu"]) == ("tpu", "cpu")
    for wrong in (["gpu"], [], ["cpu", ""]):
        with pytest.raises(InputError, match="choose from cpu, cuda, tpu, rocm"):
            check_platforms(wrong)
