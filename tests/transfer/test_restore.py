"""What is kept from a pre-trained network, and that every difference is listed."""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.models.networks import variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.transfer.restore import restore_pretrained


def filled(config: UNetConfig, value: float) -> dict[str, Any]:
    """Variables of a network, all of one value."""
    like = variable_shapes(config)
    return jax.tree.map(lambda s: np.full(s.shape, value, s.dtype), like)  # type: ignore[no-any-return]


def saved(config: UNetConfig, value: float = 1.0) -> SavedModel:
    v = filled(config, value)
    return SavedModel(config, v["params"], v["batch_stats"], {"task": "hdt_v"}, 7)


def values(tree: Any) -> set[float]:
    return {float(x) for leaf in jax.tree.leaves(tree) for x in np.unique(leaf)}


def columns(got: Any) -> list[set[float]]:
    """Of each output the values of its kernel and bias."""
    head = got.variables["params"]["head"]
    return [set(np.unique(head["kernel"][..., i])) | {float(head["bias"][i])} for i in range(head["bias"].size)]


def test_both_sides_start_from_what_had_no_side(tiny_network: UNetConfig) -> None:
    old = dataclasses.replace(tiny_network, outputs=("background", "caudate"))
    new = dataclasses.replace(tiny_network, outputs=("background", "caudate_left", "caudate_right", "putamen_left"))
    got = restore_pretrained(saved(old), new, filled(new, 2.0), "keep", "run")
    assert columns(got) == [{1.0}, {1.0}, {1.0}, {2.0}]
    assert "caudate_left (from caudate), caudate_right (from caudate) kept; putamen_left started afresh" in got.message


def test_what_has_no_side_starts_from_both_sides_together(tiny_network: UNetConfig) -> None:
    old = dataclasses.replace(tiny_network, outputs=("background", "caudate_left", "caudate_right", "putamen_left"))
    new = dataclasses.replace(tiny_network, outputs=("background", "caudate", "putamen"))
    start = saved(old)
    head = {k: np.array(v) for k, v in start.params["head"].items()}
    for part in head.values():
        part[..., 1:3] = 3.0, 6.0
    start = dataclasses.replace(start, params=start.params | {"head": head})
    got = restore_pretrained(start, new, filled(new, 2.0), "keep", "run")
    assert columns(got) == [{1.0}, {4.5}, {2.0}]
    assert "caudate (from caudate_left and caudate_right) kept; putamen_left dropped; putamen started" in got.message
    assert got.fresh == {"head/kernel[2]", "head/bias[2]"}


def test_a_single_structure_s_head_is_kept_for_another_one_as_in_the_paper(tiny_network: UNetConfig) -> None:
    old, new = (dataclasses.replace(tiny_network, outputs=("background", s)) for s in ("lateral ventricle", "caudate"))
    got = restore_pretrained(saved(old), new, filled(new, 2.0), "keep", "run")
    assert columns(got) == [{1.0}, {1.0}] and got.fresh == frozenset()


def test_all_differences_are_listed(tiny_network: UNetConfig) -> None:
    old = copy.deepcopy(saved(tiny_network))
    old.params["encoder_0"]["conv_0"]["kernel"] = np.zeros((3, 3, 3, 1, 5), np.float32)
    old.params["bottleneck"]["bn_0"]["scale"] = np.zeros(4, np.float64)
    del old.params["decoder_1"]["conv_0"]
    old.params["extra"] = {"kernel": np.zeros(1, np.float32)}
    del old.batch_stats["encoder_1"]["bn_0"]["mean"]
    old.params["head"]["bias"] = np.zeros(3, np.float32)
    with pytest.raises(InputError) as e:
        restore_pretrained(old, tiny_network, filled(tiny_network, 2.0), "keep", "some/run")
    message = str(e.value)
    for part in [
        "some/run",
        "params/encoder_0/conv_0/kernel: float32 (3, 3, 3, 1, 5) instead of float32 (3, 3, 3, 1, 4)",
        "params/bottleneck/bn_0/scale: float64 (4,) instead of float32 (4,)",
        "params/decoder_1/conv_0/kernel: missing",
        "params/extra/kernel: not expected",
        "batch_stats/encoder_1/bn_0/mean: missing",
        "head/bias: float32 (3,) instead of float32 (2,)",
        "`network`",
    ]:
        assert part in message
    assert "\n" not in message


def test_another_network_is_refused(tiny_network: UNetConfig) -> None:
    wide = dataclasses.replace(tiny_network, name="wide", bottleneck=(4, 4))
    with pytest.raises(InputError, match=r"\(wide\) does not fit tiny: .*conv_1/kernel: not expected"):
        restore_pretrained(saved(wide), tiny_network, filled(tiny_network, 2.0), "keep", "run")
