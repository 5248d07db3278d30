"""The networks by name, and rebuilt from what a checkpoint says."""

import dataclasses
import json
from typing import Any

import jax
import pytest

from tlseg_jax.checkpoints.run_folder import differing
from tlseg_jax.models.networks import NETWORKS, config_from_dict, get_network, init_variables, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

SWITCH32 = {
    "dimensions": 3,
    "name": "switch32",
    "encoder": [[32], [32], [32]],
    "bottleneck": [32],
    "decoder": [[32], [32], [32]],
    "final": [],
    "skip": "concatenate",
    "outputs": ["background", "structure"],
    "momentum": 0.9,
    "dtype": "float32",
}
SWITCH8X2 = SWITCH32 | {
    "name": "switch8x2",
    "encoder": [[8, 8], [16, 16], [32, 32]],
    "bottleneck": [64, 32],
    "decoder": [[], [32, 16], [16, 8]],
    "final": [8, 8],
    "skip": "add",
}
UNET3D256 = {
    "dimensions": 3,
    "architecture": "concatenating",
    "name": "unet3d256",
    "encoder": [[32, 64], [64, 128], [128, 256]],
    "outputs": ["background", "structure"],
    "momentum": 0.9,
    "dtype": "float32",
}
UNET2D = {
    "dimensions": 2,
    "name": "unet2d",
    "widths": [32, 64, 128, 256],
    "channels": 1,
    "outputs": ["liver", "tumour"],
    "dropout": 0.5,
    "momentum": 0.9,
    "init": "xavier",
    "dtype": "float32",
}
CHANGED: dict[str, Any] = {"outputs": ["background", "tumour"], "dtype": "bfloat16", "momentum": 0.5}
SAVED = [SWITCH32, SWITCH8X2, UNET3D256, UNET2D]
SAVED += [d | CHANGED for d in SAVED]
"""What was saved while there were three kinds of network."""


def through_json(d: dict[str, Any]) -> Any:
    return json.loads(json.dumps(d))


@pytest.mark.parametrize("saved", SAVED, ids=lambda d: f"{d['name']}-{d['dtype']}")
def test_a_network_is_read_and_told_as_when_there_were_three_kinds(saved: dict[str, Any]) -> None:
    config = config_from_dict(saved)
    rest = {"outputs": tuple(saved["outputs"]), "dtype": saved["dtype"], "momentum": saved["momentum"]}
    assert config == dataclasses.replace(get_network(saved["name"]), **rest)
    assert through_json(config.to_dict()) == saved
    assert hash(config) == hash(config_from_dict(config.to_dict()))


def test_a_2_5d_network_was_saved_with_its_channels() -> None:
    saved = UNET2D | {"channels": 3, "dropout": 0.25, "init": "he", "widths": [4, 8]}
    config = config_from_dict(saved)
    assert config == UNetConfig.residual("unet2d", (4, 8), channels=3, dropout=0.25, init="he")
    assert (config.encoder, config.bottleneck, config.decoder) == (((4, 4),), (8, 8), ((4, 4),))
    assert through_json(config.to_dict()) == saved


@pytest.mark.parametrize("saved", SAVED, ids=lambda d: f"{d['name']}-{d['dtype']}")
def test_a_run_is_the_same_run_as_when_its_settings_said_less_of_the_network(saved: dict[str, Any]) -> None:
    before = {k: v for k, v in saved.items() if k not in ("dimensions", "architecture")}
    job = JobSettings(config_from_dict(saved), get_recipe("default"), 5)
    now = {"job": job.to_dict()}
    assert differing(now, through_json({"job": job.to_dict() | {"network": before}})) == ""
    wider = dataclasses.replace(job, network=dataclasses.replace(job.network, momentum=0.75))
    assert differing(now, {"job": wider.to_dict()}).startswith("job.network.momentum; ")


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_rebuilt_from_json(name: str) -> None:
    config = get_network(name)
    assert config.name == name
    other: Any = {"dimensions": 5 - config.dimensions, "channels": 3, "dropout": 0.1, "init": None, "up": "nearest"}
    for changes in ({}, *({k: v} for k, v in other.items()), other, {"short_skips": not config.short_skips}):
        changed = dataclasses.replace(config, **changes)
        assert config_from_dict(through_json(changed.to_dict())) == changed
        assert changed.example().shape[1:] == (changed.divisor,) * changed.dimensions + (changed.channels,)


def test_a_description_without_dimensions_is_of_a_3d_network() -> None:
    assert config_from_dict({k: v for k, v in SWITCH32.items() if k != "dimensions"}) == get_network("switch32")
    with pytest.raises(InputError, match="has 4 dimensions: this version reads those of 2 or 3"):
        config_from_dict({"dimensions": 4})


def test_a_network_of_a_later_version_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^The saved network is of another version than this one \(.*'attention'\)"):
        config_from_dict(SWITCH32 | {"attention": True})


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="'swich32': did you mean switch32"):
        get_network("swich32")
    with pytest.raises(InputError, match="choose from switch32, switch8x2, unet3d256, unet2d, unet_fast, unet2d_fast"):
        get_network("zzz")


def test_a_start_has_the_shapes_that_are_promised() -> None:
    config = get_network("unet2d")
    like = jax.tree.map(lambda a: (a.shape, a.dtype), variable_shapes(config))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), init_variables(config, jax.random.key(0))) == like
