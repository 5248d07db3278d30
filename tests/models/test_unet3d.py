"""The 3D U-Net of up to 256 channels: its size, its form and its return from JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlseg_jax.models.networks import config_from_dict, count_parameters, get_network, init_variables, variable_shapes

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_parameters() -> None:
    assert count_parameters(variable_shapes(get_network("unet3d256"))["params"]) == 4_584_866


def test_it_comes_back_from_json() -> None:
    config = UNet3DConfig(outputs=("background", "tumour"), dtype="bfloat16")
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.slow
def test_sides_that_do_not_divide_are_padded_with_zeros_at_the_far_end() -> None:
    config = UNet3DConfig(encoder=((2, 4), (4, 8), (8, 8)))
    variables = init_variables(config, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, 5, 8, 6, 1))
    found = config.module().apply(variables, x)
    padded = config.module().apply(variables, jnp.pad(x, ((0, 0), (0, 3), (0, 0), (0, 2), (0, 0))))
    assert found.shape == (1, 5, 8, 6, 2)
    np.testing.assert_allclose(found, padded[:, :5, :, :6], atol=1e-6)


@pytest.mark.slow
def test_a_voxel_is_seen_from_as_far_as_the_kernels_reach() -> None:
    # Two convolutions at full resolution, two at half, two at a quarter, and back: 2 + 4 + 8 + 4 + 2 voxels, and cells.
    config = UNet3DConfig(encoder=((2, 2), (2, 2), (2, 2)))
    variables = init_variables(config, jax.random.key(0))

    def middle(x: jax.Array) -> jax.Array:
        return config.module().apply(variables, x)[0, 32, 2, 2].sum()

    seen = np.flatnonzero(
        np.any(jax.grad(middle)(jax.random.normal(jax.random.key(2), (1, 64, 4, 4, 1))), axis=(0, 2, 3, 4))
    )
    assert 32 - 24 <= seen[0] <= 32 - 16 and 32 + 16 <= seen[-1] <= 32 + 24
