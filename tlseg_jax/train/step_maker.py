"""The training steps of one run: the one that fits the memory, those of its stages, and others to compare with."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import optax

from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime import allocator, processes
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.dispatch import StagedStep
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.memory import FitsIn, StepPlan, fit_memory
from tlseg_jax.train.parallel import Parallel
from tlseg_jax.train.step import Inputs, Objective, Step, make_train_step
from tlseg_jax.transfer.stages import stages


@dataclasses.dataclass(frozen=True, eq=False)
class StepMaker:
    """What the training steps of one run are made from.

    Attributes:
      labels: tree of "trained" and "frozen", of the last stage.
      loss: of the logits and the target that `inputs` gives.
      inputs: what becomes of a batch before the network.
      batch: shapes and types of a batch.
      feature_levels: of the network's first levels a batch holds the features; 0: the image.
      key: all that the programs depend on.
    """

    job: JobSettings
    steps: int
    labels: Any
    optimiser: optax.GradientTransformation
    loss: Objective
    inputs: Inputs
    batch: dict[str, Any]
    feature_levels: int
    parallel: Parallel
    lowering: str
    key: Hashable

    def make(
        self, labels: Any, optimiser: optax.GradientTransformation, network: UNetConfig | None = None, **how: Any
    ) -> Step:
        """The step of this run, with other labels, another optimiser, or what else `make_step_function` takes."""
        usual: dict[str, Any] = {
            "feature_levels": self.feature_levels,
            "accumulate": self.job.recipe.accumulate,
            "ema": self.job.recipe.ema,
            "parallel": self.parallel,
            "lowering": self.lowering,
        }
        return make_train_step(
            network or self.job.network,
            optimiser,
            self.loss,
            labels,
            inputs=self.inputs,
            frozen_bn=self.job.frozen_bn,
            **usual | how,
        )

    def planned(self, plan: StepPlan) -> Any:
        """The step of this run in the precision and with the rematerialisation of a plan."""
        network = dataclasses.replace(self.job.network, dtype=plan.precision)
        return self.make(self.labels, self.optimiser, network, remat=plan.remat)

    def fitting(self, shapes: Any, execution: Execution, programs: Programs) -> FitsIn:
        """The step that fits the memory, the same in every process.

        Args:
          shapes: of the state.
          programs: where steps are kept for other runs.

        Raises:
          InputError: none does; see `fit_memory`.
        """
        job, budget = self.job, execution.memory_budget
        asked, fixed = execution.remat or "none", execution.remat is not None or budget is None
        multiple = self.parallel.data * job.recipe.accumulate
        plan = StepPlan(asked, job.network.dtype, job.recipe.batch_size, multiple)
        fits = programs.get(
            ("fits", self.key, asked, budget, fixed, tuple(self.batch["label"].shape)),
            lambda: fit_memory(self.planned, shapes, self.batch, plan, budget=budget, fixed=fixed),
        )
        if processes.count() > 1:  # whose memories may differ, and whose programs may not
            prediction = fits.prediction
            agreed = dataclasses.replace(prediction.plan, remat=processes.share(prediction.plan.remat))
            if agreed != prediction.plan:
                prediction = dataclasses.replace(prediction, plan=agreed)
                fits = dataclasses.replace(fits, program=self.planned(agreed), prediction=prediction)
        if jax.default_backend() == "cpu":
            allocator.keep_freed(fits.prediction.total)
        return fits

    def staged(self, fits: FitsIn, programs: Programs) -> Step | tuple[StagedStep, ...]:
        """The step, or one a stage where the run unfreezes in stages.

        Args:
          fits: the step of the last stage.
          programs: where steps are kept for other runs.
        """
        parts = stages(self.labels, self.steps, self.job.recipe.unfreezing)
        if len(parts) == 1:
            return fits.program  # type: ignore[no-any-return]
        remat = fits.prediction.plan.remat
        early = [
            programs.get(
                ("stage", self.key, i, remat),
                lambda s=s: self.make(s.labels, self.optimiser, remat=remat),  # type: ignore[misc]
            )
            for i, s in enumerate(parts[:-1])
        ]
        log.info(f"unfreezing in {len(parts)} stages, which end at steps {', '.join(str(s.last_step) for s in parts)}.")
        return tuple(StagedStep(s.last_step, p) for s, p in zip(parts, [*early, fits.program], strict=True))
