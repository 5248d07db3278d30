"""Training on kept features is training on the images, over several steps, mirrored, in several steps a call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import he_variables
from tests.train.slice_runs import small_store
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.geometry import Box
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.input.feature_cache import cache_features, cache_slice_features, why_no_features
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.slices import make_slice_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters
from tlseg_jax.transfer.frozen_levels import frozen_levels

LOSS = label_loss("cross_entropy_dice")

pytestmark = pytest.mark.usefixtures("quick_compile")

SEED, STEPS = 3, 6
AMPLE = 1 << 30


class Training:
    """One network, started the same each time."""

    def __init__(self, config: UNetConfig, freeze: str, recipe: Any, loss: Any, inputs: Any) -> None:
        self.config, self.loss, self.inputs = config, loss, inputs
        self.variables = he_variables(config)
        self.labels = label_parameters(self.variables["params"], get_rules(freeze))
        self.optimiser = make_optimiser(recipe, STEPS, self.labels)
        self.levels = frozen_levels(config, self.labels, "running")

    def run(self, stream: Any, cache: Any = None) -> tuple[Any, list[float]]:
        """The last state, and each step's loss; with a cache, two steps a call."""
        step = make_train_step(
            self.config,
            self.optimiser,
            self.loss,
            self.labels,
            inputs=self.inputs,
            feature_levels=self.levels if cache else 0,
        )
        a_call = 2 if cache else 1
        dispatch, losses = Dispatch(step, a_call, cache), []
        state = init_state(jax.tree.map(jnp.array, self.variables), self.optimiser, SEED)
        for _ in range(STEPS // a_call):
            state, metrics = dispatch(state, [next(stream) for _ in range(a_call)])
            losses += np.ravel(metrics["loss"]).tolist()
        return state, losses


def assert_same_training(found: tuple[Any, list[float]], expected: tuple[Any, list[float]], start: Any) -> None:
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
    assert len(set(expected[1])) == STEPS and int(found[0].step) == STEPS
    change = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (expected[0].params, start)), strict=True)]
    for what in ("params", "batch_stats"):
        a, b = getattr(expected[0], what), getattr(found[0], what)
        jax.tree.map(lambda x, y: None, a, b)  # of one structure
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(y, x, atol=1e-2 * max(change), rtol=1e-4)
    assert max(change) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["encoder", "encoder_without_bottleneck"])
def test_patches(freeze: str, tiny_store: Store, tiny_network: UNetConfig) -> None:
    mirrored = Augmentation(flip_left_right=True)
    training = Training(tiny_network, freeze, get_recipe("paper"), LOSS, batch_inputs(mirrored))
    assert why_no_features(training.levels, "running", augmentation=mirrored) is None
    subjects, box, settings = tiny_store.subjects("train"), Box((1, 0, 2), (13, 16, 12)), InputSettings(2, seed=SEED)
    cache = cache_features(
        tiny_store, subjects, box, tiny_network, training.variables, training.levels, mirrored, AMPLE
    )
    found = training.run(make_batches(tiny_store, subjects, box, settings, read=False), cache)
    expected = training.run(make_batches(tiny_store, subjects, box, settings))
    assert_same_training(found, expected, training.variables["params"])


@pytest.mark.slow
def test_slices(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With dropout, which draws as it does without kept features."""
    store = small_store(tmp_path_factory.mktemp("slices") / "store", train=2, test=1, samples=(0, 1, 4, 6))
    config = UNetConfig.residual("tiny2d", (4, 4, 4))
    recipe = get_recipe("default", "slices", "finetune")
    training = Training(config, "first_two", recipe, label_loss("bce", config.outputs, False), batch_inputs())
    subjects, settings = store.subjects("train"), InputSettings(4, SEED)
    cache = cache_slice_features(store, subjects, config, training.variables, training.levels, None, AMPLE)
    found = training.run(make_slice_batches(store, subjects, settings, read=False), cache)
    expected = training.run(make_slice_batches(store, subjects, settings))
    assert_same_training(found, expected, training.variables["params"])
