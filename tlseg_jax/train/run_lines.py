"""What a run says of itself before its first step: its settings, and the work of a step."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE
from tlseg_jax.train.step import step_flops
from tlseg_jax.train.step_maker import StepMaker
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.transfer.freeze import get_rules, label_parameters


def settings_lines(
    data: TaskData, job: JobSettings, length: Length, fitted: Sequence[str], validating: Sequence[str]
) -> str:
    """Every setting of the run, a line each."""
    flat = {k: v for k, v in job.to_dict().items() if k not in ("network", "recipe")}
    flat |= {f"recipe.{k}": v for k, v in job.recipe.__dict__.items()}
    flat |= {"steps": length.steps, "epochs": len(length.epoch_ends) or "not counted"}
    flat["network"] = job.network.name
    flat |= data.settings_lines(fitted)
    if validating:
        flat["validation scans"] = f"{len(validating)}: " + ", ".join(validating)
    width = max(map(len, flat))
    return "\n".join(["settings:", *(f"  {k:<{width}}  {v}" for k, v in flat.items())])


def flops_line(maker: StepMaker, state: TrainState, images: dict[str, Any]) -> str:
    """FLOPs of a run's step, and against the step that trains everything where part is frozen.

    Args:
      state: the state or its shapes.
      images: shapes of a batch of images, from which a step that trains everything starts.
    """
    job = maker.job

    def flops(labels: Any, batch: Any, levels: int) -> float:
        optimiser = make_optimiser(job.recipe, maker.steps, labels)
        moments = jax.eval_shape(optimiser.init, state.params)
        # XLA's count sees nothing inside a custom call, counts a loop's body once, and a device's part only.
        step = maker.make(labels, optimiser, feature_levels=levels, lowering="native", accumulate=1, parallel=ONE)
        return step_flops(step, dataclasses.replace(state, opt_state=moments), batch)

    taken = flops(maker.labels, maker.batch, maker.feature_levels)
    if math.isnan(taken):
        return "not counted, since JAX_PLATFORMS leaves out cpu."
    if job.freeze == "none":
        return f"{taken / 1e9:.1f} G"
    full = flops(label_parameters(state.params, get_rules("none")), images, 0)
    return f"{taken / 1e9:.1f} G, {taken / full:.0%} of the {full / 1e9:.1f} G that training all takes"
