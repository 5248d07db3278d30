"""Freezing: the rules, and that the step really leaves the frozen part alone and is cheaper for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.conftest import SIDE, blob, he_variables
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.networks import NETWORKS, count_parameters, get_network, variable_shapes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import Step, make_train_step, step_flops
from tlseg_jax.transfer.freeze import (
    FREEZING,
    Rule,
    frozen_batch_norms,
    get_rules,
    label_parameters,
    merge_parameters,
    parameter_table,
    split_parameters,
)

LOSS = label_loss("cross_entropy_dice")

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 3
VOLUME_NETWORKS = [n for n, c in NETWORKS.items() if c.up == "switch"]
RECIPE = get_recipe("paper").override(loss="cross_entropy_dice", epsilon=1e-8)


def shapes(config: UNetConfig) -> dict[str, Any]:
    """The parameters' shapes."""
    params: dict[str, Any] = variable_shapes(config)["params"]
    return params


@pytest.mark.parametrize("freeze", [f for f in FREEZING if f != "norm_only"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_is_covered_once(network: str, freeze: str) -> None:
    params = shapes(get_network(network))
    labels = label_parameters(params, get_rules(freeze))
    parts = flatten_dict(labels)
    assert parts.keys() == flatten_dict(params).keys()
    frozen = {path[0] for path, part in parts.items() if part == "frozen"}
    levels = {"unet3d256": 2, "unet_fast": 2}.get(network, 3)  # before the bottleneck
    encoder = {f"encoder_{i}" for i in range(levels)}
    assert (
        frozen
        == {
            "encoder": encoder | {"bottleneck"},
            "encoder_without_bottleneck": encoder,
            "first_two": {"encoder_0", "encoder_1"},
            "first_two_convolutions": {"encoder_0"},
            "none": set(),
        }[freeze]
    )
    assert all((path[0] in frozen) == (part == "frozen") for path, part in parts.items())
    trained, rest = split_parameters(params, labels)
    assert count_parameters(trained) + count_parameters(rest) == count_parameters(params)
    assert merge_parameters(trained, rest) == params


@pytest.mark.parametrize("fresh", [(), ("head/kernel", "head/bias"), ("head/kernel[2]", "head/bias[2]")])
@pytest.mark.parametrize("network", NETWORKS)
def test_norm_only_trains_every_norm_and_a_head_that_is_new(network: str, fresh: tuple[str, ...]) -> None:
    params = shapes(get_network(network))
    parts = flatten_dict(label_parameters(params, get_rules("norm_only"), fresh))
    assert parts.keys() == flatten_dict(params).keys()
    norms = {path for path in parts if path[-1] in ("scale", "bias") and path[-2].startswith("bn")}
    head = {("head", "kernel"), ("head", "bias")} if fresh else set()
    assert {path for path, part in parts.items() if part == "trained"} == norms | head
    assert len(norms) == 2 * sum(path[-1] == "scale" for path in parts)
    assert not frozen_batch_norms(label_parameters(params, get_rules("norm_only")))


def test_norm_only_moves_norms_and_their_running_averages_alone(
    tiny_network: UNetConfig, variables: dict[str, Any]
) -> None:
    step, state, _ = make(tiny_network, variables, "norm_only")
    for _ in range(STEPS):
        state, _ = step(state, batch())
    first = flatten_dict(variables["params"])
    for path, leaf in flatten_dict(state.params).items():
        assert np.array_equal(leaf, first[path]) != path[-2].startswith("bn"), path
    first = flatten_dict(variables["batch_stats"])
    assert not any(np.array_equal(leaf, first[path]) for path, leaf in flatten_dict(state.batch_stats).items())


def test_the_first_rule_that_matches_decides() -> None:
    params = {"a": {"x": np.zeros(1)}, "b": {"x": np.zeros(1)}}
    rules = (Rule("b/", "trained"), Rule(".*", "frozen"))
    assert label_parameters(params, rules) == {"a": {"x": "frozen"}, "b": {"x": "trained"}}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((Rule("a/", "trained"),), "No freezing rule covers the parameter b/x"),
        ((Rule("c/", "frozen"), Rule(".*", "trained")), "'c/' decides for no parameter"),
        ((Rule(".*", "trained"), Rule("a/", "frozen")), "'a/' decides for no parameter"),
        ((Rule(".*", "frozen"),), "nothing to train"),
    ],
)
def test_rules_that_do_not_fit(rules: tuple[Rule, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_parameters({"a": {"x": np.zeros(1)}, "b": {"x": np.zeros(1)}}, rules)


def test_an_unknown_freezing_lists_the_known() -> None:
    with pytest.raises(InputError, match="'decoder': choose from encoder, encoder_without_bottleneck"):
        get_rules("decoder")


def test_the_table_adds_up() -> None:
    params = shapes(get_network("switch32"))
    lines = parameter_table(params, label_parameters(params, get_rules("encoder"))).splitlines()
    rows = {w[0]: [int(n.replace(",", "")) for n in w[1:]] for w in map(str.split, lines[1:])}
    assert sum(rows["total"]) == 222_626
    assert rows["head"] == [130, 0]
    assert rows["bottleneck"] == [0, 27 * 32 * 32 + 64]
    assert [sum(r[i] for k, r in rows.items() if k != "total") for i in (0, 1)] == rows["total"]
    assert len({len(line) for line in lines}) == 1


def test_frozen_batch_norms_are_named() -> None:
    params = shapes(get_network("switch8x2"))
    names = frozen_batch_norms(label_parameters(params, get_rules("first_two")))
    assert names == {f"encoder_{i}/bn_{j}" for i in (0, 1) for j in (0, 1)}


def batch() -> dict[str, Any]:
    images, labels = zip(*(blob(i) for i in range(2)), strict=True)
    return {"image": jnp.asarray(np.stack(images), jnp.float16), "label": jnp.asarray(np.stack(labels))}


@pytest.fixture(scope="module")
def variables(tiny_network: UNetConfig) -> dict[str, Any]:
    return he_variables(tiny_network)


def make(
    config: UNetConfig, variables: dict[str, Any], freeze: str, frozen_bn: Any = "running"
) -> tuple[Step, TrainState, Any]:
    labels = label_parameters(variables["params"], get_rules(freeze))
    optimiser = make_optimiser(RECIPE, STEPS, labels)
    state = init_state(jax.tree.map(jnp.array, variables), optimiser)
    return (make_train_step(config, optimiser, LOSS, labels, frozen_bn=frozen_bn), state, labels)


@pytest.fixture(scope="module", params=["running", "batch"])
def after(request: pytest.FixtureRequest, tiny_network: UNetConfig, variables: dict[str, Any]) -> Any:
    """(frozen_bn, labels, variables after three steps, their losses)."""
    step, state, labels = make(tiny_network, variables, "encoder", request.param)
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, batch())
        losses.append(float(metrics["loss"]))
    return request.param, labels, jax.device_get(state), losses


def test_frozen_leaves_are_bit_identical_and_trained_ones_moved(after: Any, variables: dict[str, Any]) -> None:
    _, labels, state, losses = after
    parts, first = flatten_dict(labels), flatten_dict(variables["params"])
    for path, leaf in flatten_dict(state.params).items():
        same = np.array_equal(leaf, first[path])
        assert same == (parts[path] == "frozen"), path
    assert losses[-1] < losses[0]
    assert state.step == STEPS


def test_frozen_running_averages_stay_only_where_asked(after: Any, variables: dict[str, Any]) -> None:
    frozen_bn, labels, state, _ = after
    kept = frozen_batch_norms(labels) if frozen_bn == "running" else frozenset()
    first = flatten_dict(variables["batch_stats"])
    for path, leaf in flatten_dict(state.batch_stats).items():
        assert np.array_equal(leaf, first[path]) == ("/".join(path[:-1]) in kept), path


def test_the_optimiser_holds_moments_of_the_trained_part_only(after: Any) -> None:
    _, labels, state, _ = after
    trained, _ = split_parameters(state.params, labels)
    floats = [x for x in jax.tree.leaves(state.opt_state) if x.dtype == np.float32]
    assert sum(x.nbytes for x in floats) == 2 * 4 * count_parameters(trained)
    assert all(x.ndim == 0 for x in jax.tree.leaves(state.opt_state) if x.dtype != np.float32)


def test_gradient_of_the_trained_part_is_that_of_the_whole(tiny_network: UNetConfig, variables: dict[str, Any]) -> None:
    """One step of plain descent through the frozen step, against differentiating everything."""
    labels = label_parameters(variables["params"], get_rules("first_two"))
    descent = optax.multi_transform({"trained": optax.sgd(1.0), "frozen": optax.set_to_zero()}, labels)
    step = make_train_step(tiny_network, descent, LOSS, labels, frozen_bn="batch")
    state = init_state(jax.tree.map(jnp.array, variables), descent)
    data = batch()
    state, metrics = step(state, data)

    def whole(params: Any) -> jax.Array:
        logits, _ = tiny_network.module().apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            data["image"][..., None].astype(jnp.float32),
            train=True,
            mutable=["batch_stats"],
        )
        return LOSS(logits, data["label"].astype(jnp.int32))

    value, grads = jax.jit(jax.value_and_grad(whole))(variables["params"])
    parts = flatten_dict(labels)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    flat = flatten_dict(grads)
    for path, leaf in flatten_dict(state.params).items():
        moved = np.asarray(flatten_dict(variables["params"])[path] - leaf)
        expected = flat[path] if parts[path] == "trained" else np.zeros(1)
        np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=2e-5)
    trained, _ = split_parameters(grads, labels)
    norm = np.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in jax.tree.leaves(trained)))
    assert float(metrics["update_norm"]) == pytest.approx(norm, rel=1e-3)


def abstract(config: Any, freeze: str) -> tuple[Step, Any, Any]:
    """A step, its state and a batch, in shapes only."""
    like = {
        "image": jax.ShapeDtypeStruct((2, SIDE, SIDE, SIDE), np.float16),
        "label": jax.ShapeDtypeStruct((2, SIDE, SIDE, SIDE), np.uint8),
    }
    variables = variable_shapes(config)
    labels = label_parameters(variables["params"], get_rules(freeze))
    optimiser = make_optimiser(RECIPE, STEPS, labels)
    state = jax.eval_shape(lambda v: init_state(v, optimiser), variables)
    return make_train_step(config, optimiser, LOSS, labels), state, like


@pytest.mark.parametrize("network", VOLUME_NETWORKS)
def test_freezing_saves_operations(network: str) -> None:
    """As traced, at the published widths."""
    flops = {f: step_flops(*abstract(get_network(network), f)) for f in ("none", "first_two", "encoder")}
    assert flops["encoder"] < 0.8 * flops["none"]
    assert flops["encoder"] < flops["first_two"] < flops["none"]


@pytest.mark.slow
def test_the_compiled_step_takes_fewer_operations_and_less_memory() -> None:
    config = UNetConfig("wide", ((16,), (16,)), (16,), ((16,), (16,)), (), "concatenate")
    flops, memory = {}, {}
    for freeze in ("none", "encoder"):
        step, state, like = abstract(config, freeze)
        compiled = step.lower(state, like).compile()  # type: ignore[attr-defined]
        flops[freeze] = compiled.cost_analysis()["flops"]
        memory[freeze] = compiled.memory_analysis().temp_size_in_bytes
    assert flops["encoder"] < 0.9 * flops["none"]
    assert memory["encoder"] < memory["none"]
