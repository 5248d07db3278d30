"""A batch in micro-batches: the whole batch's gradient, the batch norms' part in it, and what freezing saves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import blob, he_variables
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step, step_flops
from tlseg_jax.transfer.freeze import get_rules, label_parameters

LOSS = label_loss("cross_entropy_dice")

pytestmark = pytest.mark.usefixtures("quick_compile")

ROWS = 4


def volumes() -> dict[str, Any]:
    """Four blobs."""
    images, labels = zip(*(blob(i) for i in range(ROWS)), strict=True)
    return {"image": np.stack(images).astype(np.float32), "label": np.stack(labels)}


def no_batch_statistics(params: Any) -> Any:
    """Labels under which every batch norm is frozen, and so keeps to its running averages, and all else trained."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if any(str(p.key).startswith("bn_") for p in path) else "trained", params
    )


def descend(config: Any, variables: Any, labels: Any, loss: Any, accumulate: int, **how: Any) -> tuple[Any, TrainState]:
    """(jitted step of plain descent at rate 1, its first state)."""
    optimiser = optax.multi_transform({"trained": optax.sgd(1.0), "frozen": optax.set_to_zero()}, labels)
    step = make_train_step(config, optimiser, loss, labels, lowering="native", accumulate=accumulate, **how)
    return step, init_state(jax.tree.map(jnp.array, variables), optimiser, 1)


def assert_close(a: Any, b: Any, rtol: float = 1e-5) -> None:
    """Each array by its largest value."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=rtol * max(float(np.abs(x).max()), 1e-3))


def test_cross_entropy_is_that_of_the_large_batch(tiny_network: UNetConfig) -> None:
    """Loss and update, where no batch norm looks at the batch."""
    variables = he_variables(tiny_network)
    labels = no_batch_statistics(variables["params"])
    ends = []
    for accumulate in (1, 4):
        step, state = descend(tiny_network, variables, labels, label_loss("cross_entropy"), accumulate)
        state, metrics = step(state, volumes())
        ends.append((state.params, metrics))
    assert float(np.abs(ends[0][0]["head"]["kernel"] - variables["params"]["head"]["kernel"]).max()) > 1e-3
    assert_close(ends[0], ends[1])


@pytest.mark.slow
def test_dropout_is_that_of_the_large_batch() -> None:
    """A sample keeps its random numbers in whichever micro-batch it is."""
    config = UNetConfig.residual("tiny2d", (4, 8), dropout=0.5)
    variables = he_variables(config)
    labels = no_batch_statistics(variables["params"])
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(ROWS, 16, 16, 1)).astype(np.float32),
        "label": rng.integers(0, 4, (ROWS, 16, 16)).astype(np.uint8),
    }
    ends = []
    for accumulate in (1, 2):
        step, state = descend(
            config, variables, labels, label_loss("bce", config.outputs, False), accumulate, inputs=batch_inputs()
        )
        ends.append(step(state, batch))
    (large, its), (small, theirs) = ends
    assert_close((large.params, its), (small.params, theirs))
    # Another seed drops others: the agreement above is not that nothing is dropped.
    step, state = descend(config, variables, labels, label_loss("bce", config.outputs, False), 1, inputs=batch_inputs())
    _, other = step(TrainState(state.step, state.params, state.batch_stats, state.opt_state, jnp.uint32(9)), batch)
    assert abs(float(other["loss"]) - float(ends[0][1]["loss"])) > 1e-4


def test_batch_norms_and_dice_see_micro_batches(tiny_network: UNetConfig) -> None:
    """By hand: plain steps on the even and on the odd rows, whose updates' mean and running averages it has."""
    variables = he_variables(tiny_network)
    labels = label_parameters(variables["params"], get_rules("none"))
    batch = volumes()
    losses, moved, averages = [], [], variables["batch_stats"]
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        step, state = descend(tiny_network, variables | {"batch_stats": averages}, labels, LOSS, 1)
        state, metrics = step(state, {k: v[rows] for k, v in batch.items()})
        losses.append(float(metrics["loss"]))
        moved.append(state.params)
        averages = jax.device_get(state.batch_stats)
    step, state = descend(tiny_network, variables, labels, LOSS, 2)
    state, metrics = step(state, batch)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert_close(jax.tree.map(lambda a, b: (a + b) / 2, *moved), state.params)
    assert_close(averages, state.batch_stats)
    whole, first = descend(tiny_network, variables, labels, LOSS, 1)
    assert abs(float(whole(first, batch)[1]["loss"]) - np.mean(losses)) > 1e-5


@pytest.mark.slow
def test_freezing_saves_as_much_and_micro_batches_save_memory(tiny_network: UNetConfig) -> None:
    """FLOPs by the cost analysis, which counts a loop's body once; temporary bytes by the compiler."""
    variables = he_variables(tiny_network)
    batch = {k: jax.ShapeDtypeStruct((8, *v.shape[1:]), v.dtype) for k, v in volumes().items()}
    flops, temporary = {}, {}
    for freeze in ("none", "encoder"):
        labels = label_parameters(variables["params"], get_rules(freeze))
        optimiser = make_optimiser(get_recipe("default"), 4, labels)
        state = jax.eval_shape(lambda v, o=optimiser: init_state(v, o), variables)  # type: ignore[misc]
        for accumulate in (1, 4):
            step = make_train_step(
                tiny_network, optimiser, label_loss("cross_entropy"), labels, lowering="native", accumulate=accumulate
            )
            flops[freeze, accumulate] = step_flops(step, state, batch)
            if freeze == "none":
                program = step.lower(state, batch).compile()  # type: ignore[attr-defined]
                temporary[accumulate] = program.memory_analysis().temp_size_in_bytes
    saved = {k: flops["encoder", k] / flops["none", k] for k in (1, 4)}
    assert saved[1] < 0.75
    assert saved[4] == pytest.approx(saved[1], rel=0.05)
    assert temporary[4] < 0.5 * temporary[1]


@pytest.mark.slow
def test_a_run_in_micro_batches(tiny_store: Store, tiny_network: UNetConfig, tmp_path: Any, said: list[str]) -> None:
    """Through the whole job."""
    recipe = get_recipe("default").override(batch_size=2, accumulate=2)
    with lock_folder(tmp_path / "run"):
        done = train_job(tiny_store, JobSettings(tiny_network, recipe, 2, n=2), tmp_path / "run", progress=False)
    assert int(done.state.step) == 2 and all(np.isfinite(v) for _, v in done.losses)
    assert any("recipe.accumulate" in line for line in said)
