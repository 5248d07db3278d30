"""One training step and one prediction: pure functions, jitted."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from tlseg_jax.input.augment import Augmentation, augment_batch
from tlseg_jax.models.unet import RUNNING_NOWHERE, SwitchUNet, UNetConfig
from tlseg_jax.train.losses import Loss
from tlseg_jax.train.state import TrainState
from tlseg_jax.transfer.freeze import frozen_batch_norms, merge_parameters, split_parameters

FrozenBN = Literal["running", "batch"]
Batch = dict[str, Any]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    config: UNetConfig,
    optimiser: optax.GradientTransformation,
    loss: Loss,
    labels: Any,
    *,
    seed: int = 0,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
    frozen_bn: FrozenBN = "running",
) -> Step:
    """The jitted step; the state that goes in is donated.

    Only the trained sub-tree is differentiated, so that neither gradients nor activations of the
    frozen part are kept.

    Args:
      config: the network.
      optimiser: from `make_optimiser`, with the same `labels`.
      loss: from `losses`.
      labels: tree of "trained" and "frozen".
      seed: of the augmentation.
      augmentation: of the patches.
      frozen_bn: whether a frozen batch norm keeps to its running averages, which then do not move
        (Keras 2.2 and later), or goes on normalising by the batch and averaging (older Keras).

    Returns:
      (state, {"image": (batch, x, y, z), "label": (batch, x, y, z)}) ->
      (state, {"loss": scalar, "update_norm": scalar over the trained part}).
    """
    model = SwitchUNet(config)
    running = frozen_batch_norms(labels) if frozen_bn == "running" else RUNNING_NOWHERE

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        image, label = augment_batch(batch["image"].astype(jnp.float32), batch["label"], seed, state.step, augmentation)
        trained, frozen = split_parameters(state.params, labels)

        def objective(trained: Any) -> tuple[jax.Array, Any]:
            variables = {"params": merge_parameters(trained, frozen), "batch_stats": state.batch_stats}
            logits, moved = model.apply(
                variables, image[..., None], train=True, running=running, mutable=["batch_stats"]
            )
            return loss(logits, label.astype(jnp.int32)), moved["batch_stats"]

        (value, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        whole = merge_parameters(grads, jax.tree.map(jnp.zeros_like, frozen))
        updates, opt_state = optimiser.update(whole, state.opt_state, state.params)
        moved_part, _ = split_parameters(updates, labels)
        params = merge_parameters(optax.apply_updates(trained, moved_part), frozen)
        metrics = {"loss": value, "update_norm": optax.global_norm(moved_part)}
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def step_flops(step: Step, state: TrainState, batch: Batch) -> float:
    """Floating-point operations of one step, by XLA's cost analysis of the program as traced."""
    cost = step.lower(state, batch).cost_analysis()  # type: ignore[attr-defined]
    return float(cost["flops"])


@functools.cache
def _probability(config: UNetConfig) -> Callable[[Any, jax.Array], jax.Array]:
    """One jitted function a network, so that a new set of parameters compiles nothing."""
    model = SwitchUNet(config)

    @jax.jit
    def probability(variables: Any, image: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, image[..., None])
        return jax.nn.softmax(logits)[..., 1]

    return probability


def make_predictor(
    config: UNetConfig, params: Any, batch_stats: Any
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a plain function on NumPy arrays.

    Returns:
      (batch, x, y, z) z-scored image -> (batch, x, y, z) float32 probability of output 1, the structure.
    """
    variables = jax.device_put({"params": params, "batch_stats": batch_stats})

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(_probability(config)(variables, jnp.asarray(image, jnp.float32)))

    return predict
