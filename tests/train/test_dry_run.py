"""The report of a dry run: its figures, and that the state is left as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import he_variables
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.dry_run import dry_run_report, format_duration, random_batch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.memory import StepPlan, fit_memory
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_the_report_tells_network_parameters_memory_and_time(tiny_network: UNetConfig) -> None:
    """The counts are the network's, the frozen part is told apart, and the first state can still be trained."""
    variables = he_variables(tiny_network)
    labels = label_parameters(variables["params"], get_rules("encoder"))
    recipe = get_recipe("default")
    optimiser = make_optimiser(recipe, 10, labels)
    state = init_state(jax.tree.map(jnp.array, variables), optimiser)
    shape = (2, 16, 16, 16)
    batch = {"image": jax.ShapeDtypeStruct(shape, np.float16), "label": jax.ShapeDtypeStruct(shape, np.uint8)}
    step = make_train_step(tiny_network, optimiser, label_loss(recipe.loss), labels)
    fits = fit_memory(lambda plan: step, state, batch, StepPlan())
    before = jax.tree.map(np.array, state)
    report = dry_run_report(tiny_network, state, labels, batch, fits, "1.5 G", 40)
    total = sum(v.size for v in jax.tree.leaves(variables["params"]))
    assert f"{total:,}:" in report and "tiny, float32, remat none" in report
    assert "2x16x16x16" in report and "1.5 G" in report and "40 steps" in report
    assert "predicted" in report and "seconds a step" in report
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, state))


def test_random_batches_have_the_shapes_and_types_asked_for() -> None:
    """Images of mean 0 and deviation 1; labels and regions of 0 and 1."""
    shapes = {
        "image": jax.ShapeDtypeStruct((2, 30, 30), np.float16),
        "label": jax.ShapeDtypeStruct((2, 30, 30), np.uint8),
        "region": jax.ShapeDtypeStruct((2, 30, 30), np.bool_),
    }
    batch = random_batch(shapes)
    for name, shape in shapes.items():
        assert batch[name].shape == shape.shape and batch[name].dtype == shape.dtype
    assert abs(batch["image"].astype(np.float64).std() - 1) < 0.1
    assert set(np.unique(batch["label"])) == {0, 1}


def test_durations_are_in_the_unit_that_suits() -> None:
    """Seconds, minutes, hours."""
    assert format_duration(42) == "about 42 s"
    assert format_duration(600) == "about 10 min"
    assert format_duration(7200 * 3.05) == "about 6.1 h"
