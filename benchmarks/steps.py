"""One real training step on random data, ready to be timed: what most of the benchmarks measure.

The step is the library's own (`make_train_step`) with the default recipe's loss and optimiser; augmentation is
off, since it is a matter of the data and not of the network.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sizes import get_size
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.convolutions import equations
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.networks import get_network, init_variables, is_exclusive
from tlseg_jax.models.remat import Remat
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime import allocator
from tlseg_jax.runtime.device_memory import free_ram, out_of_memory
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.memory import StepPlan, predict
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import Optimiser, Recipe, get_recipe
from tlseg_jax.train.step import Batch, Objective, Step, batch_inputs, make_train_step, step_flops
from tlseg_jax.transfer.freeze import get_rules, label_parameters

if TYPE_CHECKING:  # a machine that only measures steps may lack what reads data
    from tlseg_jax.train.job_settings import JobSettings
    from tlseg_jax.train.task_data import TaskData

STEPS = 10_000
"""Length of the run that the learning rate's schedule is made for; no benchmark gets near its end."""

MOVED = ("conv_general_dilated", "dot_general")
"""Operations whose operands and result are counted as memory traffic."""


@dataclasses.dataclass
class Assembled:
    """A step with what it is called on.

    Attributes:
      step: the jitted step, which gives the state's buffers away.
      native: the same step in XLA's own operations, for counting; not for running.
      state: before the first step.
      batch: random, in the types of a prepared data set, on the device.
    """

    config: UNetConfig
    step: Step
    native: Step
    state: TrainState
    batch: Batch


def random_batch(config: UNetConfig, shape: tuple[int, ...], batch: int) -> Batch:
    """Noise in the shapes and types of a prepared data set, on the device.

    Args:
      shape: spatial sides of the patch or slice.

    Returns:
      {"image": (batch, x, y, z) or (batch, x, y, channels) float16, "label": (batch, *shape) uint8}.
    """
    rng = np.random.default_rng(0)
    channels = () if config.dimensions == 3 else (config.channels,)
    image = rng.standard_normal((batch, *shape, *channels), np.float32).astype(np.float16)
    label = (rng.random((batch, *shape), np.float32) < 0.1).astype(np.uint8)
    return jax.device_put({"image": image, "label": label})  # type: ignore[no-any-return]


def recipe_of(config: UNetConfig) -> Recipe:
    """The default recipe of a network."""
    return get_recipe("default", "volumes" if config.dimensions == 3 else "slices", "pretrain")


def objective(config: UNetConfig) -> Objective:
    """The default recipe's loss of a network."""
    exclusive = is_exclusive(config)
    return label_loss(recipe_of(config).loss, config.outputs[exclusive:], exclusive)


def assemble(
    network: str,
    *,
    dtype: str = "float32",
    freeze: str = "none",
    remat: Remat = "none",
    lowering: Lowering | None = None,
    shape: tuple[int, ...] | None = None,
    batch: int | None = None,
    optimiser: Optimiser | None = None,
) -> Assembled:
    """A training step and what it is called on.

    Args:
      network: a name of `NETWORKS`.
      freeze: a name of `FREEZING`.
      lowering: of the convolutions; None takes the backend's fastest.
      shape: spatial sides of the patch or slice; None takes the paper's.
      batch: patches or slices a step; None takes the paper's.
      optimiser: None takes the default recipe's.

    Raises:
      InputError: no network or freezing has that name.
    """
    config = dataclasses.replace(get_network(network), dtype=dtype)
    size = get_size(network)
    variables = init_variables(config, jax.random.key(0))
    labels = label_parameters(variables["params"], get_rules(freeze))
    updates = make_optimiser(recipe_of(config).override(optimiser=optimiser), STEPS, labels)

    def make(lowering: Lowering | None) -> Step:
        return make_train_step(
            config, updates, objective(config), labels, inputs=batch_inputs(), remat=remat, lowering=lowering
        )

    # The step gives its state away, and a buffer only goes once: the state gets copies of its own.
    state = init_state(jax.tree.map(jnp.array, variables), updates)
    data = random_batch(config, shape or size.shape, batch or size.batch)
    step = make(lowering)
    if jax.default_backend() == "cpu":  # as a run does it
        plan = StepPlan(remat, dtype, batch or size.batch)
        allocator.keep_freed(predict(step, plan, state, data, free_ram()).total)  # type: ignore[arg-type]
    return Assembled(config, step, make("native"), state, data)


def of_data(data: "TaskData", job: "JobSettings") -> tuple[Step, Callable[[], TrainState]]:
    """The step of a run on a data set, everything trained, and what gives first states for it."""
    variables = init_variables(job.network, jax.random.key(0))
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(job.recipe, STEPS, labels)
    step = make_train_step(job.network, optimiser, data.loss(), labels, inputs=data.inputs())
    return step, lambda: init_state(jax.tree.map(jnp.array, variables), optimiser)


def runner(built: Assembled) -> Callable[[], object]:
    """The step as a function of nothing that returns when it is done and goes on from its last state."""
    state = built.state

    def run() -> object:
        nonlocal state
        state, metrics = built.step(state, built.batch)
        return jax.block_until_ready(metrics)

    return run


def keep_those_that_fit(programs: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Call every program once, which compiles it, and leave out those that the device has no memory for."""
    fitting = {}
    for name, program in programs.items():
        try:
            program()
        except Exception as e:
            if not out_of_memory(e):
                raise
            continue
        fitting[name] = program
    return fitting


def step_bytes(step: Step, state: TrainState, batch: Batch) -> float:
    """Bytes that the convolutions and matrix products of a step read and write, each operand and result once.

    The rest (normalisation, ReLU, pooling) is taken as fused into them, so a real program moves more: it is
    what no program with these convolutions gets below, unless it fuses several of them.
    """
    program = step.trace(state, batch).jaxpr  # type: ignore[attr-defined]
    total = 0
    for equation, times in equations(program.jaxpr):
        if equation.primitive.name in MOVED:
            arrays = [v.aval for v in (*equation.invars, *equation.outvars)]
            total += times * sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)
    return float(total)


def timed(built: Assembled) -> tuple[Callable[[], object], float, float]:
    """(run, flops, bytes) of a step.

    `run()` does a step and returns when it is done, and compiles at its first call; the FLOPs by XLA's cost analysis
    and the bytes as `step_bytes` counts them, both of the program as traced in XLA's own operations, so that they do
    not depend on the lowering.
    """
    counted = built.native, built.state, built.batch
    return runner(built), step_flops(*counted), step_bytes(*counted)
