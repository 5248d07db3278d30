"""One training step and one prediction: pure functions, jitted."""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.input.augment import Augmentation, augment_batch, marks_in_mirror
from tlseg_jax.input.synthesis.draw import Synthesis, draw_batch
from tlseg_jax.models.layers import RUNNING_NOWHERE
from tlseg_jax.models.lowering.choice import usual_lowering
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.lowering.forms import FORMS
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.ema import averaged
from tlseg_jax.train.parallel import ONE, Parallel
from tlseg_jax.train.parallel_step import ParallelStep
from tlseg_jax.transfer.freeze import frozen_batch_norms, merge_parameters, split_parameters

FrozenBN = Literal["running", "batch"]
Batch = dict[str, Any]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]

Inputs = Callable[..., tuple[Any, Any]]
"""(batch, step, seed, first=0) -> what the network sees, with its channel axis, and what the loss compares its logits
with; `first` is the place of the batch's first row in the whole batch, where it is a part of one."""

Objective = Callable[..., jax.Array]
"""(logits, target) -> a scalar; where the batch is divided over an axis of devices (logits, target, axis=...)."""


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How samples are drawn that take the place of some.

    Attributes:
      synthesis: from label maps.
      augmentation: what a drawn sample goes through besides.
    """

    synthesis: Synthesis
    augmentation: Augmentation


def batch_inputs(
    augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
    synthesis: Synthesis | None = None,
    mixing: Mixing | None = None,
) -> Inputs:
    """Inputs from {"image": (batch, *sides) or, of slices, (batch, x, y, channels), "label": (batch, *sides)}.

    The target is the label, int32, or, where the batch has "marked" (batch, structures) or "region" (batch, *sides), a
    dict of it and these.

    Of {"classes", "shares", "label"} image and label are drawn (`input.synthesis.draw`) before they are augmented.

    Of {"image", "label", "classes", "shares", "drawn"} those that are "drawn" (batch,) are drawn by `mixing`, and all
    their structures are marked.

    Of {"features": ..., "label"} (`input.feature_cache`) both are taken as they are: they are of augmented samples.
    """

    def inputs(batch: Batch, step: jax.Array, seed: Any, first: Any = 0) -> tuple[Any, Any]:
        image, label = batch.get("features"), jnp.asarray(batch["label"])
        if image is None:
            if synthesis is None:
                image = jnp.asarray(batch["image"], jnp.float32)
            else:
                image, label = draw_batch(batch["classes"], batch["shares"], seed, step, synthesis, first)
            if "marked" in batch:
                marked = jnp.asarray(batch["marked"])
                marked = marks_in_mirror(marked, label.shape[1:], seed, step, augmentation, first)
                batch = batch | {"marked": jnp.where(batch["drawn"][:, None], 1, marked) if mixing else marked}
            if mixing is None:
                image, label = augment_batch(image, label, seed, step, augmentation, first)
            else:
                image, label = _mixed(batch | {"image": image, "label": label}, seed, step, augmentation, mixing, first)
            image = image[..., None] if image.ndim == label.ndim else image
        target = label.astype(jnp.int32)
        more = {k: batch[k] for k in ("marked", "region") if k in batch}
        return image, {"label": target, **more} if more else target

    return inputs


def _mixed(
    batch: Batch, seed: Any, step: Any, augmentation: Augmentation, mixing: Mixing, first: Any
) -> tuple[jax.Array, jax.Array]:
    """Images and labels of a batch, some read and augmented, some drawn.

    One sample after the other, so that of each only what it needs is computed; each has the key that it always has.
    """

    def one(row: Any) -> tuple[jax.Array, jax.Array]:
        place, drawn, *arrays = row
        image, label, classes, shares = (a[None] for a in arrays)

        def read() -> tuple[jax.Array, jax.Array]:
            return augment_batch(image, label, seed, step, augmentation, place)

        def draw() -> tuple[jax.Array, jax.Array]:
            made = draw_batch(classes, shares, seed, step, mixing.synthesis, place)
            return augment_batch(*made, seed, step, mixing.augmentation, place)

        found = jax.lax.cond(drawn, lambda: _typed(draw()), lambda: _typed(read()))
        return found[0][0], found[1][0]

    rows = batch["label"].shape[0]
    names = ("drawn", "image", "label", "classes", "shares")
    return jax.lax.map(one, (first + jnp.arange(rows), *(jnp.asarray(batch[k]) for k in names)))  # type: ignore[no-any-return]


def _typed(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return pair[0].astype(jnp.float32), pair[1].astype(jnp.int32)


def make_step_function(
    config: UNetConfig,
    optimiser: optax.GradientTransformation,
    loss: Objective,
    labels: Any,
    *,
    inputs: Inputs | None = None,
    frozen_bn: FrozenBN = "running",
    remat: Remat = "none",
    lowering: Lowering | None = None,
    feature_levels: int = 0,
    accumulate: int = 1,
    ema: float = 0.0,
    parallel: Parallel = ONE,
) -> Step:
    """One training step as a pure function, not yet jitted.

    Only the trained sub-tree is differentiated, so that neither gradients nor activations of the
    frozen part are kept.

    With `accumulate` K the rows K, 2K, ... are the first micro-batch, those after them the second, and so on, so that
    each takes rows of every device. Batch norms normalise by the micro-batch, and their running averages move K times.
    A loss that is a mean over voxels, such as the cross-entropy, has the whole batch's gradient where the batch norms
    keep to their running averages; a ratio of sums, such as the soft Dice, is then the mean of the micro-batches' own.

    Args:
      optimiser: from `make_optimiser`, with the same `labels`.
      loss: of the logits and the target that `inputs` gives.
      labels: tree of "trained" and "frozen".
      inputs: what becomes of a batch before the network; None takes patches as they are.
      frozen_bn: whether a frozen batch norm keeps to its running averages, which then do not move
        (Keras 2.2 and later), or goes on normalising by the batch and averaging (older Keras).
      remat: what is computed again in the backward pass.
      lowering: of the convolutions; None takes what is usual on the device.
      feature_levels: of the network's first levels a batch holds the features in place of the image; 0: the image.
      accumulate: micro-batches, one after the other, whose gradients are averaged; divides the rows of each device.
      ema: decay of the state's averaged weights (`ema.averaged`), which it then must have; 0: there are none.
      parallel: the devices that it is compiled for (`Parallel.compile`); of "pmap" it sees a device's rows.

    Returns:
      (state, batch) -> (state, {"loss": scalar, "update_norm": scalar over the trained part}).
    """
    axis = parallel.axis
    model = config.module(remat, lowering, axis)
    running = frozen_batch_norms(labels) if frozen_bn == "running" else RUNNING_NOWHERE
    take = inputs or batch_inputs()
    part: dict[str, Any] = {"part": "rest", "levels": feature_levels} if feature_levels else {}

    over = {"axis": axis} if axis else {}

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        first = jax.lax.axis_index(axis) * rows if axis else 0
        image, target = parallel.spread(take(batch, state.step, state.seed, *([first] if axis else [])))
        samples = first + jnp.arange(rows)
        trained, frozen = split_parameters(state.params, labels)
        dropout = {"dropout": jax.random.fold_in(jax.random.key(state.seed), state.step)}

        def objective(trained: Any, batch_stats: Any, image: Any, target: Any, samples: Any) -> tuple[jax.Array, Any]:
            variables = {"params": merge_parameters(trained, frozen), "batch_stats": batch_stats}
            logits, moved = model.apply(
                variables,
                image,
                train=True,
                running=running,
                samples=samples,
                mutable=["batch_stats"],
                rngs=dropout,
                **part,
            )
            return loss(logits, target, **over), moved["batch_stats"]

        gradient = jax.value_and_grad(objective, has_aux=True)
        if accumulate == 1:
            (value, batch_stats), grads = gradient(trained, state.batch_stats, image, target, samples)
        else:
            micro = parallel.spread(_micro_batches((image, target), accumulate), lead=1)
            value, batch_stats, grads = _accumulated(
                functools.partial(gradient, trained),
                state.batch_stats,
                trained,
                (*micro, _micro_batches(samples, accumulate)),
                accumulate,
            )
        if axis:
            # One vector, so that there is one exchange and not one a parameter.
            flat, back = ravel_pytree(grads)
            grads = back(jax.lax.psum(flat, axis))
        whole = merge_parameters(grads, jax.tree.map(jnp.zeros_like, frozen))
        updates, opt_state = optimiser.update(whole, state.opt_state, state.params)
        moved_part, _ = split_parameters(updates, labels)
        params = merge_parameters(optax.apply_updates(trained, moved_part), frozen)
        metrics = {"loss": value, "update_norm": optax.tree.norm(moved_part)}
        average = state.average
        if ema:
            now = {"params": params, "batch_stats": batch_stats}
            average = averaged(average, now, labels, running, state.step, ema)
        return TrainState(state.step + 1, params, batch_stats, opt_state, state.seed, average), metrics

    return step


def _micro_batches(tree: Any, count: int) -> Any:
    """(rows, ...) -> (count, rows / count, ...): every `count`-th row, from the first, the second and so on.

    Rows that lie together on a device are dealt out to all micro-batches, and each row's number modulo `count` is the
    same counted from the device's first row: the micro-batches are those of a single device.
    """
    return jax.tree.map(lambda a: a.reshape(a.shape[0] // count, count, *a.shape[1:]).swapaxes(0, 1), tree)


def _accumulated(gradient: Callable[..., Any], batch_stats: Any, trained: Any, micro: Any, count: int) -> Any:
    """(mean loss, batch statistics after the last, mean gradients) of micro-batches, one after the other."""

    def add(carry: Any, one: Any) -> tuple[Any, None]:
        total, stats, sums = carry
        (value, stats), grads = gradient(stats, *one)
        return (total + value, stats, jax.tree.map(jnp.add, sums, grads)), None

    start = (jnp.zeros(()), batch_stats, jax.tree.map(jnp.zeros_like, trained))
    (total, stats, sums), _ = jax.lax.scan(add, start, micro)
    return total / count, stats, jax.tree.map(lambda g: g / count, sums)


class _InTwo:
    """A step in two programs, for a CPU: what becomes of the batch, and the rest.

    Augmentation is as long to compile as a network, and the two are compiled beside each other; of a network with a
    oneDNN call, which the compilation cache cannot keep, it keeps the one.
    """

    def __init__(self, whole: Callable[[Inputs], Step], inputs: Inputs) -> None:
        self.whole = whole(inputs)
        self._whole = jax.jit(self.whole, donate_argnums=0)
        # The usual level takes LLVM twice as long and makes nothing faster of it.
        self._inputs = jax.jit(inputs, compiler_options={"xla_backend_optimization_level": 1})
        self._rest = jax.jit(whole(lambda prepared, step, seed: prepared), donate_argnums=0)  # type: ignore[arg-type, return-value]
        self._compiled = False

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        if not self._compiled:
            taken = self._taken(state, batch)
            # The compiler leaves the interpreter alone: the network is traced meanwhile.
            with concurrent.futures.ThreadPoolExecutor(1) as beside:
                done = beside.submit(taken.lower().compile)
                self._rest.trace(state, taken.out_info).lower().compile()
            done.result()
            self._compiled = True
        return self._rest(state, self._inputs(batch, state.step, state.seed))  # type: ignore[no-any-return]

    def _taken(self, state: Any, batch: Any) -> Any:
        return self._inputs.trace(batch, state.step, state.seed)

    def trace(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, of the step without what becomes of the batch: JAX keeps it for the first step."""
        return self._rest.trace(state, self._taken(state, batch).out_info)

    def lower(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, of both in one."""
        return self._whole.lower(state, batch)


def whole_step(step: Step) -> Step:
    """A step of `make_train_step` as one function, to be traced into another program."""
    return step.whole if isinstance(step, _InTwo | ParallelStep) else step


def make_train_step(
    config: UNetConfig,
    *args: Any,
    inputs: Inputs | None = None,
    lowering: Lowering | None = None,
    parallel: Parallel = ONE,
    **kwargs: Any,
) -> Step:
    """`make_step_function`, compiled for its devices; the state that goes in is donated."""
    lowering = lowering or usual_lowering(config.dimensions, config.dtype)
    if parallel.way == "mesh" and not FORMS[lowering].divided:
        lowering = "native"

    def whole(inputs: Inputs | None) -> Step:
        return make_step_function(config, *args, inputs=inputs, lowering=lowering, parallel=parallel, **kwargs)

    if parallel.way != "one":
        part = make_step_function(config, *args, inputs=inputs, lowering=lowering, parallel=parallel.alone(), **kwargs)
        return ParallelStep(whole(inputs), part, parallel)

    if inputs is not None and jax.default_backend() == "cpu":
        return _InTwo(whole, inputs)
    return jax.jit(whole(inputs), donate_argnums=0)


def make_test_loss(config: UNetConfig, loss: Objective, inputs: Inputs) -> Callable[[TrainState, Batch], jax.Array]:
    """The jitted loss of a batch with the network as it predicts: running averages, no dropout."""
    model = config.module()

    @jax.jit
    def test_loss(variables: Any, batch: Batch) -> jax.Array:
        image, target = inputs(batch, jnp.int32(0), 0)
        logits: Any = model.apply(variables, image)
        return loss(logits, target)

    return lambda state, batch: test_loss(state.model, batch)


def step_flops(step: Step, state: TrainState, batch: Batch) -> float:
    """Floating-point operations of one step, by XLA's cost analysis of the program as traced.

    NaN where that cannot be had: a GPU's own client counts nothing, so the host's must be there (JAX_PLATFORMS).
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), (state, batch))
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return math.nan
    with jax.default_device(host):
        cost = step.lower(*shapes).cost_analysis()  # type: ignore[attr-defined]
    return float(cost["flops"])
