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
from tlseg_jax.models.conv import Lowering, choose_lowering
from tlseg_jax.models.layers import RUNNING_NOWHERE
from tlseg_jax.models.networks import NetworkConfig
from tlseg_jax.models.remat import Remat
from tlseg_jax.train.state import TrainState
from tlseg_jax.transfer.freeze import frozen_batch_norms, merge_parameters, split_parameters

FrozenBN = Literal["running", "batch"]
Batch = dict[str, Any]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]

Inputs = Callable[[Batch, jax.Array, Any], tuple[Any, Any]]
"""(batch, step, seed) -> what the network sees, with its channel axis, and what the loss compares its logits with."""

Objective = Callable[[jax.Array, Any], jax.Array]
"""(logits, target) -> a scalar."""


def patch_inputs(augmentation: Augmentation = Augmentation()) -> Inputs:  # noqa: B008 - frozen
    """Inputs from {"image": (batch, x, y, z), "label": (batch, x, y, z)}; the target is the label, int32.

    Of {"features": ..., "label"} (`input.feature_cache`) both are taken as they are: they are of augmented patches.
    """

    def inputs(batch: Batch, step: jax.Array, seed: Any) -> tuple[Any, jax.Array]:
        if "features" in batch:
            return batch["features"], batch["label"].astype(jnp.int32)
        image, label = augment_batch(batch["image"].astype(jnp.float32), batch["label"], seed, step, augmentation)
        return image[..., None], label.astype(jnp.int32)

    return inputs


def slice_inputs(outputs: int) -> Inputs:
    """Inputs from {"image": (batch, x, y, channels), "label": (batch, x, y) bits, "region" where there is one}.

    In place of "image" there may be "features" (`input.feature_cache`).

    The target is ((batch, x, y, outputs) float32 of 0 and 1, the region (batch, x, y) float32 or None).
    """

    def inputs(batch: Batch, step: jax.Array, seed: Any) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        del step, seed
        bits = batch["label"].astype(jnp.int32)[..., None] >> jnp.arange(outputs)
        region = batch["region"].astype(jnp.float32) if "region" in batch else None
        image = batch["features"] if "features" in batch else batch["image"].astype(jnp.float32)
        return image, ((bits & 1).astype(jnp.float32), region)

    return inputs


def make_step_function(
    config: NetworkConfig,
    optimiser: optax.GradientTransformation,
    loss: Objective,
    labels: Any,
    *,
    inputs: Inputs | None = None,
    frozen_bn: FrozenBN = "running",
    remat: Remat = "none",
    lowering: Lowering | None = None,
    feature_levels: int = 0,
) -> Step:
    """One training step as a pure function, not yet jitted.

    Only the trained sub-tree is differentiated, so that neither gradients nor activations of the
    frozen part are kept.

    Args:
      config: the network.
      optimiser: from `make_optimiser`, with the same `labels`.
      loss: of the logits and the target that `inputs` gives.
      labels: tree of "trained" and "frozen".
      inputs: what becomes of a batch before the network; None takes patches as they are.
      frozen_bn: whether a frozen batch norm keeps to its running averages, which then do not move
        (Keras 2.2 and later), or goes on normalising by the batch and averaging (older Keras).
      remat: what is computed again in the backward pass.
      lowering: of the convolutions; None takes the backend's fastest.
      feature_levels: of the network's first levels a batch holds the features in place of the image; 0: the image.

    Returns:
      (state, batch) -> (state, {"loss": scalar, "update_norm": scalar over the trained part}).
    """
    model = config.module(remat, lowering)
    running = frozen_batch_norms(labels) if frozen_bn == "running" else RUNNING_NOWHERE
    take = inputs or patch_inputs()
    part: dict[str, Any] = {"part": "rest", "levels": feature_levels} if feature_levels else {}

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        image, target = take(batch, state.step, state.seed)
        trained, frozen = split_parameters(state.params, labels)
        dropout = {"dropout": jax.random.fold_in(jax.random.key(state.seed), state.step)}

        def objective(trained: Any) -> tuple[jax.Array, Any]:
            variables = {"params": merge_parameters(trained, frozen), "batch_stats": state.batch_stats}
            logits, moved = model.apply(
                variables, image, train=True, running=running, mutable=["batch_stats"], rngs=dropout, **part
            )
            return loss(logits, target), moved["batch_stats"]

        (value, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        whole = merge_parameters(grads, jax.tree.map(jnp.zeros_like, frozen))
        updates, opt_state = optimiser.update(whole, state.opt_state, state.params)
        moved_part, _ = split_parameters(updates, labels)
        params = merge_parameters(optax.apply_updates(trained, moved_part), frozen)
        metrics = {"loss": value, "update_norm": optax.global_norm(moved_part)}
        return TrainState(state.step + 1, params, batch_stats, opt_state, state.seed), metrics

    return step


class _InTwo:
    """A step in two programs: what becomes of the batch, which the compilation cache keeps, and the rest.

    A program with a oneDNN call cannot be kept, and augmentation is as long to compile as a network.
    """

    def __init__(self, whole: Callable[[Inputs], Step], inputs: Inputs) -> None:
        self.whole = whole(inputs)
        self._whole = jax.jit(self.whole, donate_argnums=0)
        self._inputs = jax.jit(inputs)
        self._rest = jax.jit(whole(lambda prepared, step, seed: prepared), donate_argnums=0)  # type: ignore[arg-type, return-value]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self._rest(state, self._inputs(batch, state.step, state.seed))  # type: ignore[no-any-return]

    def trace(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, of both in one."""
        return self._whole.trace(state, batch)

    def lower(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, of both in one."""
        return self._whole.lower(state, batch)


def whole_step(step: Step) -> Step:
    """A step of `make_train_step` as one function, to be traced into another program."""
    return step.whole if isinstance(step, _InTwo) else step


def make_train_step(*args: Any, inputs: Inputs | None = None, lowering: Lowering | None = None, **kwargs: Any) -> Step:
    """`make_step_function`, jitted; the state that goes in is donated."""
    lowering = lowering or choose_lowering()

    def whole(inputs: Inputs | None) -> Step:
        return make_step_function(*args, inputs=inputs, lowering=lowering, **kwargs)

    if inputs is not None and lowering == "onednn":
        return _InTwo(whole, inputs)
    return jax.jit(whole(inputs), donate_argnums=0)


def make_test_loss(config: NetworkConfig, loss: Objective, inputs: Inputs) -> Callable[[TrainState, Batch], jax.Array]:
    """The jitted loss of a batch with the network as it predicts: running averages, no dropout."""
    model = config.module()

    @jax.jit
    def test_loss(params: Any, batch_stats: Any, batch: Batch) -> jax.Array:
        image, target = inputs(batch, jnp.int32(0), 0)
        logits: Any = model.apply({"params": params, "batch_stats": batch_stats}, image)
        return loss(logits, target)

    return lambda state, batch: test_loss(state.params, state.batch_stats, batch)


def step_flops(step: Step, state: TrainState, batch: Batch) -> float:
    """Floating-point operations of one step, by XLA's cost analysis of the program as traced."""
    cost = step.lower(state, batch).cost_analysis()  # type: ignore[attr-defined]
    return float(cost["flops"])


@functools.cache
def _forward(config: NetworkConfig) -> Callable[[Any, jax.Array], jax.Array]:
    """One jitted function a network, so that a new set of parameters compiles nothing."""
    model = config.module()

    @jax.jit
    def probability(variables: Any, image: jax.Array) -> jax.Array:
        if config.dimensions == 2:
            slices: Any = model.apply(variables, image)
            return jax.nn.sigmoid(slices)
        logits: Any = model.apply(variables, image[..., None])
        return jax.nn.softmax(logits)[..., 1]

    return probability


def make_predictor(
    config: NetworkConfig, params: Any, batch_stats: Any
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a plain function on NumPy arrays.

    Returns:
      Of a 3D network (batch, x, y, z) z-scored image -> (batch, x, y, z) float32 probability of output
      1, the structure. Of a 2D network (batch, x, y, channels) -> (batch, x, y, outputs) float32.
    """
    variables = jax.device_put({"params": params, "batch_stats": batch_stats})

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(_forward(config)(variables, jnp.asarray(image, jnp.float32)))

    return predict
