"""The jitted step's own promises: replayable, indifferent to augmentation that is off, and it learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import blob, he_variables
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.input.augment import Augmentation, augment_batch
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.step import batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

LOSS = label_loss("cross_entropy_dice")

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_the_steps_augmentation_is_the_one_of_its_seed_and_count(tiny_network: UNetConfig) -> None:
    """A step that augments equals a plain step on the batch augmented beforehand."""
    variables = he_variables(tiny_network)
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(get_recipe("paper"), 4, labels)
    images, masks = zip(*(blob(i) for i in range(2)), strict=True)
    batch: dict[str, Any] = {"image": np.stack(images).astype(np.float32), "label": np.stack(masks)}
    wanted = Augmentation(flip_left_right=True)
    plain = make_train_step(tiny_network, optimiser, LOSS, labels)
    augmenting = make_train_step(tiny_network, optimiser, LOSS, labels, inputs=batch_inputs(wanted))
    a, b = (init_state(jax.tree.map(jnp.array, variables), optimiser, 5) for _ in range(2))
    for count in range(4):
        image, label = augment_batch(*map(jnp.asarray, (batch["image"], batch["label"])), 5, jnp.int32(count), wanted)
        a, by_hand = plain(a, {"image": image, "label": label})
        b, inside = augmenting(b, batch)
        np.testing.assert_allclose(by_hand["loss"], inside["loss"], rtol=1e-5)
    assert int(b.step) == 4
