"""From a pre-trained 2D network to another: outputs by name, other dimensions and inputs refused."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import he_variables
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.transfer.restore import Restored, restore_pretrained

BOTH = UNetConfig.residual("tiny2d", (2, 3, 4))


def outputs(*names: str) -> UNetConfig:
    return dataclasses.replace(BOTH, outputs=names)


def variables(config: Any, seed: int) -> dict[str, Any]:
    """Every leaf of noise, biases and statistics too, so that no two are alike."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: rng.normal(size=v.shape).astype(np.float32), he_variables(config))  # type: ignore[no-any-return]


def saved(config: Any) -> SavedModel:
    v = variables(config, 1)
    return SavedModel(config, v["params"], v["batch_stats"], {"task": "lits"}, 7)


def restore(old: Any, new: Any, head: Any = "keep") -> Restored:
    return restore_pretrained(saved(old), new, variables(new, 2), head, "some/run")


def column(head: dict[str, Any], i: int) -> dict[str, bytes]:
    return {k: np.asarray(v)[..., i].tobytes() for k, v in head.items()}


def assert_rest_is_kept(got: Restored, old: Any) -> None:
    before = saved(old)
    for a, b in ((got.variables["params"], before.params), (got.variables["batch_stats"], before.batch_stats)):
        a, b = ({k: v for k, v in t.items() if k != "head"} for t in (a, b))
        assert jax.tree.structure(a) == jax.tree.structure(b)
        assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_tumours_column_is_kept_bit_for_bit_and_the_livers_dropped() -> None:
    got = restore(BOTH, outputs("tumour"))
    head = got.variables["params"]["head"]
    assert {k: v.shape for k, v in head.items()} == {"kernel": (2, 1), "bias": (1,)}
    assert column(head, 0) == column(saved(BOTH).params["head"], 1)
    assert got.message == "head by output name: tumour kept; liver dropped"
    assert got.fresh == frozenset()
    assert_rest_is_kept(got, BOTH)


def test_a_new_output_starts_afresh_and_the_old_one_stays() -> None:
    new = outputs("liver", "tumour")
    got = restore(outputs("liver"), new)
    head = got.variables["params"]["head"]
    assert column(head, 0) == column(saved(outputs("liver")).params["head"], 0)
    assert column(head, 1) == column(variables(new, 2)["params"]["head"], 1)
    assert got.message == "head by output name: liver kept; tumour started afresh"
    assert got.fresh == {"head/kernel[1]", "head/bias[1]"}
    assert_rest_is_kept(got, outputs("liver"))


def test_the_same_names_in_another_order_change_places() -> None:
    got = restore(BOTH, outputs("tumour", "liver"))
    old, head = saved(BOTH).params["head"], got.variables["params"]["head"]
    assert (column(head, 0), column(head, 1)) == (column(old, 1), column(old, 0))
    assert got.message == "head by output name: tumour, liver kept"
    assert got.fresh == frozenset()


def test_nothing_in_common_is_all_fresh_and_said() -> None:
    new = outputs("spleen", "cyst")
    got = restore(BOTH, new)
    for i in range(2):
        assert column(got.variables["params"]["head"], i) == column(variables(new, 2)["params"]["head"], i)
    assert got.message == "head by output name: liver, tumour dropped; spleen, cyst started afresh"
    assert got.fresh == {"head/kernel", "head/bias"}
    assert_rest_is_kept(got, BOTH)


def test_kept_dropped_and_new_at_once() -> None:
    new = outputs("cyst", "tumour")
    got = restore(BOTH, new)
    head = got.variables["params"]["head"]
    assert column(head, 0) == column(variables(new, 2)["params"]["head"], 0)
    assert column(head, 1) == column(saved(BOTH).params["head"], 1)
    assert got.message == "head by output name: tumour kept; liver dropped; cyst started afresh"


def test_the_same_outputs_keep_the_head() -> None:
    got = restore(BOTH, BOTH)
    assert column(got.variables["params"]["head"], 0) == column(saved(BOTH).params["head"], 0)
    assert got.message == "head kept: the same 2 output(s), liver, tumour"
    assert got.fresh == frozenset()


@pytest.mark.parametrize("names", [("liver", "tumour"), ("tumour",), ("tumour", "liver")])
def test_a_reset_head_is_fresh_whatever_the_outputs(names: tuple[str, ...]) -> None:
    new = outputs(*names)
    got = restore(BOTH, new, "reset")
    fresh, head = variables(new, 2)["params"]["head"], got.variables["params"]["head"]
    assert all(np.array_equal(head[k], fresh[k]) for k in fresh)
    assert "head reset" in got.message and got.fresh == {"head/kernel", "head/bias"}
    assert_rest_is_kept(got, BOTH)


def test_nothing_that_was_given_is_changed() -> None:
    before, fresh = saved(BOTH), variables(outputs("tumour"), 2)
    copies = jax.tree.map(np.copy, (before.params, fresh))
    restore_pretrained(before, outputs("tumour"), fresh, "keep", "run")
    assert jax.tree.all(jax.tree.map(np.array_equal, copies, (before.params, fresh)))


def test_other_dimensions_are_refused_in_one_sentence(tiny_network: UNetConfig) -> None:
    for old, new, said in (
        (BOTH, tiny_network, "is 2D (tiny2d) and this network is 3D (tiny)"),
        (tiny_network, BOTH, "is 3D (tiny) and this network is 2D (tiny2d)"),
    ):
        for head in ("keep", "reset"):
            with pytest.raises(InputError) as e:
                restore(old, new, head)
            message = str(e.value)
            assert "some/run" in message
            assert said in message
            assert "pre-train on data of the same kind" in message
            assert "kernel" not in message
            assert "\n" not in message


def test_another_number_of_slice_channels_is_refused_and_the_kernels_named() -> None:
    three = dataclasses.replace(BOTH, channels=3)
    for old, new, was, wanted in ((BOTH, three, 1, 3), (three, BOTH, 3, 1)):
        with pytest.raises(InputError) as e:
            restore(old, dataclasses.replace(new, outputs=("tumour",)))
        message = str(e.value)
        for part in (
            f"params/encoder_0/conv_0/kernel: float32 (3, 3, {was}, 2) instead of float32 (3, 3, {wanted}, 2)",
            f"params/encoder_0/short/kernel: float32 ({was}, 2) instead of float32 ({wanted}, 2)",
            "`slice_channels`",
        ):
            assert part in message
        assert message.count("instead of") == 2  # the head is matched by name, and no fault
        assert "\n" not in message
