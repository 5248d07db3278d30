"""One model's training, made ready: which scans, which start, which devices, which step."""

import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from tlseg_jax.checkpoints.run_folder import claim_settings, recorded_lowering
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.models.convolutions import network_lowering
from tlseg_jax.models.networks import init_variables
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.cache_plan import CachePlan, plan_cache
from tlseg_jax.train.dispatch import StagedStep, cache_room
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import describe, labelled_scans, run_settings
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.memory import FitsIn
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import Parallel, choose_parallel
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.remedies import check_remedies
from tlseg_jax.train.run_lines import settings_lines
from tlseg_jax.train.seen import refuse_seen
from tlseg_jax.train.step import Step
from tlseg_jax.train.step_maker import StepMaker
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.transfer.freeze import get_rules, label_parameters, parameter_table
from tlseg_jax.transfer.frozen_levels import frozen_levels
from tlseg_jax.transfer.restore import restore_pretrained

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One model's training, ready for its first step.

    Attributes:
      data: what it trains on, as training sees it.
      fitted: the labelled scans that train.
      validating: those that validate.
      description: saved with every checkpoint.
      state: before the first step.
      batches: the stream of them, or of which samples are in them where they are made on the device.
      cached: what of its data is kept on the device.
      fits: the step that fits, of the last stage.
      steps: the step, or one a stage.
    """

    job: JobSettings
    folder: Path
    data: TaskData
    fitted: tuple[str, ...]
    validating: tuple[str, ...]
    length: Length
    description: dict[str, Any]
    settings: dict[str, Any]
    state: TrainState
    batches: "grain.DatasetIterator"
    cached: CachePlan
    maker: StepMaker
    fits: FitsIn
    steps: Step | tuple[StagedStep, ...]

    @property
    def key(self) -> Hashable:
        """All that its programs depend on."""
        return self.maker.key

    def cache(self) -> "DeviceCache | None":
        """Its data on the device, where they lie there."""
        room = cache_room(self.fits.prediction.total)
        if self.cached.kept == "features":
            variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
            return self.data.feature_cache(self.fitted, variables, self.cached.levels, room)
        return self.data.sampler.cache(self.fitted, room) if self.cached.kept == "device" else None


def prepare_run(
    store: AnyStore,
    job: JobSettings,
    folder: Path,
    pretrained: Pretrained | None = None,
    *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    programs: Programs | None = None,
) -> Run:
    """All of a run before its first step; nothing is written. For arguments and errors see `train_job`."""
    programs = programs or Programs()
    fitted, validating = labelled_scans(store, job)
    if len(validating) > job.validation:
        log.info(f"validation: {len(validating)} scans in place of {job.validation}, as no person's scans are parted.")
    if job.patience and not job.validation:
        raise InputError("`patience` needs scans to validate on: give `validation=K`, K of the n labelled scans.")
    check_remedies(job.recipe, pretrained is not None)
    data = TaskData(store, job, pretrained)
    length = data.sampler.length(fitted)
    description = describe(store, job, (*fitted, *validating), pretrained.saved if pretrained else None)
    description |= data.description()
    refuse_seen(store, description, str(pretrained.run) if pretrained else f"the training set of {store.where}")
    log.info(settings_lines(data, job, length, fitted, validating))
    variables, fresh = _start(job, pretrained)
    labels = label_parameters(variables["params"], get_rules(job.freeze), fresh)
    optimiser = make_optimiser(job.recipe, length.steps, labels, fresh)
    # The jitted step gives its input's buffers away, hence the copies; in one program, not one a shape.
    averages = job.recipe.ema > 0
    state = jax.jit(lambda v: init_state(jax.tree.map(jax.numpy.array, v), optimiser, job.seed, average=averages))(
        variables
    )
    sides = data.batch_shapes()["label"].shape[1:]
    parallel = choose_parallel(
        execution.parallel, execution.mesh, job.recipe.batch_size, sides, job.network.divisor, job.recipe.accumulate
    )
    cached = _plan_cache(data, fitted, execution, frozen_levels(job.network, labels, job.frozen_bn))
    lowering = _lowering(data, execution, parallel, recorded_lowering(folder))
    batches = data.batches(fitted, read=cached.kept == "none")
    key = (
        job.network,
        job.recipe,
        length.steps,
        job.freeze,
        job.frozen_bn,
        fresh,
        data.program_key(),
        cached.levels,
        parallel,
        lowering,
    )
    maker = StepMaker(
        job=job,
        steps=length.steps,
        labels=labels,
        optimiser=optimiser,
        loss=data.loss(),
        inputs=data.inputs(),
        batch=data.feature_shapes(cached.levels) if cached.levels else data.batch_shapes(),
        feature_levels=cached.levels,
        parallel=parallel,
        lowering=lowering,
        key=key,
    )
    fits = maker.fitting(jax.eval_shape(lambda: state), execution, programs)
    return Run(
        job=job,
        folder=folder,
        data=data,
        fitted=fitted,
        validating=validating,
        length=length,
        description=description,
        settings=run_settings(store, job, pretrained.record if pretrained else None) | {"lowering": lowering},
        state=state,
        batches=batches,
        cached=cached,
        maker=maker,
        fits=fits,
        steps=maker.staged(fits, programs),
    )


def _start(job: JobSettings, pretrained: Pretrained | None) -> tuple[dict[str, Any], frozenset[str]]:
    """The first parameters and batch statistics, and which blocks are fresh in a pre-trained network."""
    variables = init_variables(job.network, jax.random.key(job.seed))
    if pretrained is None:
        log.info("start: random parameters (end to end).")
        return variables, frozenset()
    restored = restore_pretrained(pretrained.saved, job.network, variables, job.head, str(pretrained.run))
    log.info(f"start: {pretrained.run} (step {pretrained.saved.step}); {restored.message}.")
    return restored.variables, restored.fresh


def _lowering(data: TaskData, execution: Execution, parallel: Parallel, before: str | None) -> str:
    """How the convolutions are done, the same in every process."""
    network, recipe = data.job.network, data.job.recipe
    rows, *sides = data.batch_shapes()["label"].shape
    image = (rows // (parallel.data * recipe.accumulate), *sides, network.channels)
    divided = parallel.way == "mesh"

    def choose() -> list[str]:
        choice = network_lowering(network, image, execution.lowering, before=before, divided=divided)
        return [choice.lowering, str(choice)]

    lowering, told = processes.chief(choose)
    log.info(told)
    return str(lowering)


def _plan_cache(data: TaskData, fitted: tuple[str, ...], execution: Execution, levels: int) -> CachePlan:
    """What of the data is kept on the device, the same in every process; `levels` of the network are frozen."""
    cached = plan_cache(
        execution.cache,
        levels,
        data.why_no_features(levels),
        lambda: data.feature_bytes(fitted, levels),
        # Half of it, as the step's own need is not yet known.
        lambda: data.sampler.cache_bytes(fitted),
        cache_room() // 2,
    )
    if processes.count() > 1:  # whose memories may differ, and whose programs may not
        cached = CachePlan(*processes.share([cached.kept, cached.levels]))
    return cached


def claim_run(run: Run) -> None:
    """Take the folder for this run: last of what may be refused, so that a corrected call can use it.

    Raises:
      InputError: it holds a run of other settings.
    """
    if claim_settings(run.folder, run.settings):
        log.info(f"{run.folder}: the same settings are there; going on from what was done.")
    log.info(parameter_table(run.state.params, run.maker.labels))
