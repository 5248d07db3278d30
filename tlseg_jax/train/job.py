"""One model from a prepared data set: which scans, which start, training, scores and figures."""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.exported import load_saved
from tlseg_jax.checkpoints.run_folder import claim_settings
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.evaluate.slice_inference import SlicePredictor
from tlseg_jax.models.networks import NetworkConfig, init_variables
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.remote.address import shown
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.device_memory import format_bytes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.dispatch import Dispatch, StagedStep, cache_room
from tlseg_jax.train.dry_run import dry_run_report
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import (
    describe,
    labelled_scans,
    refuse_seen,
    run_settings,
    seen_of,
    seen_subjects,
    store_digest,
)
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.keep_data import Place, choose_place
from tlseg_jax.train.loop import Fit, LoopSettings, Watch, fit
from tlseg_jax.train.memory import FitsIn, Plan, fit_memory, out_of_memory, shortage
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.parallel import ONE, Parallel, choose_parallel, local_state
from tlseg_jax.train.patch_data import PatchData
from tlseg_jax.train.remedies import check_remedies
from tlseg_jax.train.shared_model import load_shared_model
from tlseg_jax.train.slice_data import SliceData
from tlseg_jax.train.step import Inputs, Objective, Step, make_predictor, make_train_step, step_flops
from tlseg_jax.train.trace import Trace
from tlseg_jax.transfer.freeze import get_rules, label_parameters, parameter_table
from tlseg_jax.transfer.frozen_levels import frozen_levels
from tlseg_jax.transfer.restore import restore_pretrained
from tlseg_jax.transfer.stages import stages

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.feature_cache import FeatureCache

__all__ = [
    "JobSettings", "Pretrained", "Run", "check_tests", "claim_run", "load_predictor", "load_slice_predictor",
    "prepare_run", "refuse_seen", "run_settings", "seen_subjects", "store_digest", "train_job",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pre-trained model and where it came from."""

    run: Path
    saved: SavedModel

    @classmethod
    def load(cls, run: Path) -> "Pretrained":
        """Read the model of a run folder; of several processes, the chief for all."""
        return cls(run, load_shared_model(run, read=load_saved))

    @property
    def record(self) -> dict[str, Any]:
        """What a run that starts from it keeps of it: where it was, and what makes it this model."""
        saved = self.saved
        task = saved.description.get("task", "none")
        return {"run": shown(self.run), "step": saved.step, "task": task, "weights": saved.weights}


class TaskData(Protocol):
    """What training asks of a prepared data set, of volumes (`PatchData`) or of slices (`SliceData`)."""

    def length(self, subjects: Sequence[str]) -> Length:
        """How long the run is."""

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the data are, for the list of settings."""

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the data beyond the spec."""

    def loss(self) -> Objective:
        """Of the network's logits and the target that `inputs` gives."""

    def inputs(self) -> Inputs:
        """What becomes of a batch before the network."""

    def program_key(self) -> Hashable:
        """All that `loss` and `inputs` depend on besides the network and the recipe."""

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or, without reading, of where their samples are."""

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """What these subjects train on, held on the device, which has `room` bytes for it."""

    def cache_bytes(self, subjects: Sequence[str]) -> int:
        """What `cache` would take."""

    def why_no_features(self, levels: int) -> str | None:
        """Why features of the network's first levels cannot be kept, as a sentence; None where they can."""

    def feature_shapes(self, levels: int) -> dict[str, Any]:
        """Shapes and types of a batch with features in place of the image."""

    def feature_bytes(self, subjects: Sequence[str], levels: int) -> int:
        """What `feature_cache` would take."""

    def feature_cache(self, subjects: Sequence[str], variables: Any, levels: int, room: int) -> "FeatureCache":
        """Features of what these subjects train on, computed once, on the device, which has `room` bytes for them."""

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch."""

    def validator(self, subjects: Sequence[str]) -> Callable[[TrainState], float]:
        """state -> score of these subjects, larger is better."""

    def watch(self) -> Watch | None:
        """Test losses to follow while training."""


def task_data(store: AnyStore, job: JobSettings, pretrained: Pretrained | None) -> TaskData:
    """The data of a store, as training sees them.

    Raises:
      InputError: the network is of another dimensionality than the data, or does not fit them.
    """
    if isinstance(store, SliceStore):
        if job.network.dimensions != 2:
            raise InputError(f"{store.folder} holds slices and the network {job.network.name} is 3D: use unet2d.")
        return SliceData(store, job, pretrained.saved if pretrained else None)
    assert isinstance(store, Store)
    if job.network.dimensions != 3:
        raise InputError(f"{store.folder} holds volumes and the network {job.network.name} is 2D: use a 3D one.")
    return PatchData(store, job)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One model's training, ready for its first step.

    Attributes:
      job: the settings.
      folder: the run folder.
      data: what it trains on, as training sees it.
      fitted: the labelled scans that train.
      held: those that validate.
      length: how long it is.
      description: saved with every checkpoint.
      settings: `settings.json`.
      labels: tree of "trained" and "frozen".
      state: before the first step.
      iterator: of its batches, or of their places where they are made on the device.
      place: where its data lie.
      fits: the step that fits, of the last stage.
      steps: the step, or one a stage.
      make: (labels, optimiser, network, **how) -> step, for other plans of it.
      make_planned: plan -> step.
      key: all that the programs depend on.
      parallel: the devices that it trains on.
    """

    job: JobSettings
    folder: Path
    data: TaskData
    fitted: tuple[str, ...]
    held: tuple[str, ...]
    length: Length
    description: dict[str, Any]
    settings: dict[str, Any]
    labels: Any
    state: TrainState
    iterator: "grain.DatasetIterator"
    place: Place
    fits: FitsIn
    steps: Step | tuple[StagedStep, ...]
    make: Callable[..., Step]
    make_planned: Callable[[Plan], Any]
    key: Hashable
    parallel: Parallel = ONE

    def batch_shapes(self) -> Any:
        """Shapes and types of what a step takes."""
        levels = self.place.levels
        return self.data.feature_shapes(levels) if levels else self.data.batch_shapes()

    def cache(self) -> "DeviceCache | FeatureCache | None":
        """Its data on the device, where they lie there."""
        room = cache_room(self.fits.prediction.total)
        if self.place.kept == "features":
            variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
            return self.data.feature_cache(self.fitted, variables, self.place.levels, room)
        return self.data.cache(self.fitted, room) if self.place.kept == "device" else None


def train_job(
    store: AnyStore,
    job: JobSettings,
    folder: Path,
    pretrained: Pretrained | None = None,
    *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    programs: Programs | None = None,
    say: Callable[[str], None] = print,
    progress: bool = True,
    tell_flops: bool = True,
) -> Fit:
    """Train one model into `folder`, or go on from what is there.

    In this order: the fresh network, the pre-trained parameters, the optimiser, the newest checkpoint.

    Args:
      store: the prepared data set.
      job: the settings.
      folder: the run folder, which the caller holds (`lock_folder`).
      pretrained: what to start from; None trains end to end.
      execution: how it is run; no part of what a run is, so it may be resumed under another.
      programs: what other runs compiled, and where this one's are kept for them.
      say: prints a line.
      progress: whether to draw a bar.
      tell_flops: whether to count the FLOPs of a step and say them.

    Raises:
      InputError: the settings do not fit the data, the folder or the pre-trained model, a test
        subject was in the pre-training, the memory does not suffice, or the loss became NaN.
    """
    programs = programs or Programs()
    run = prepare_run(store, job, folder, pretrained, execution=execution, programs=programs, say=say)
    shapes = jax.eval_shape(lambda: run.state)  # the first step gives the state away
    batch = run.batch_shapes()

    def flops() -> str:
        return programs.get(
            ("flops", run.key), lambda: _flops_line(run, shapes)
        )

    if execution.dry_run:
        say(dry_run_report(job.network, run.state, run.labels, batch, run.fits, flops(), run.length.steps))
        return Fit(run.state, 0, [], [], "dry run")
    claim_run(run, say)
    cache = run.cache()
    if cache:
        what = "features" if run.place.levels else "data"
        say(f"on the device: {format_bytes(cache.nbytes)} of {what} of {len(run.fitted)} labelled scans.")
    watch = _local_watch(run.data.watch())
    most = execution.steps_per_call
    if watch and job.watch_every and job.watch_every < most:
        most = job.watch_every
        say(f"steps in a call: {most}, as the test loss is looked at every {most} (--watch_every).")
    loop = LoopSettings(
        run.length.steps, job.checkpoint_every, job.validate_every if run.held else 0,
        job.patience if run.held else 0, run.length.epoch_ends, job.watch_every,
    )  # fmt: skip
    try:
        return fit(
            Dispatch(run.steps, most, cache, programs, parallel=run.parallel), run.state, run.iterator, run.fitted,
            loop, folder, run.description, watch=watch,
            validate=_local_validator(run.data.validator(run.held)) if run.held else None,
            trace=Trace(execution.profile, say) if execution.profile else None,
            meanwhile=(lambda: say(flops())) if tell_flops else None, keep=execution.keep, say=say,
            progress=progress, title=f"train {folder.name}",
        )  # fmt: skip
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise shortage(
            run.make_planned, shapes, batch, run.fits.prediction, run.fits.capacity, failed=True
        ) from None


def check_tests(store: AnyStore, job: JobSettings, pretrained: Pretrained | None, tests: Sequence[AnyStore]) -> None:
    """Before a run trains: refuse test sets of which it or its start will have seen scans or persons.

    Raises:
      InputError: there are such; they are named.
    """
    before = pretrained.saved.description if pretrained else {}
    fitted, held = labelled_scans(store, job)
    description = seen_of([(store, (*fitted, *held))], before)
    for test in tests:
        refuse_seen(test, description, f"{f'{pretrained.run} or in ' if pretrained else ''}{store.folder}")


def prepare_run(
    store: AnyStore, job: JobSettings, folder: Path, pretrained: Pretrained | None = None, *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    programs: Programs | None = None, say: Callable[[str], None] = print,
) -> Run:  # fmt: skip
    """All of a run before its first step; nothing is written. For arguments and errors see `train_job`."""
    programs = programs or Programs()
    fitted, held = labelled_scans(store, job)
    if len(held) > job.validation:
        say(f"validation: {len(held)} scans in place of {job.validation}, as no person's scans are parted.")
    if job.patience and not job.validation:
        raise InputError("--patience needs scans to validate on: give --validation=K, K of the n labelled scans.")
    check_remedies(job.recipe, pretrained is not None, job.network.dimensions)
    data = task_data(store, job, pretrained)
    length = data.length(fitted)
    description = describe(store, job, (*fitted, *held), pretrained.saved if pretrained else None) | data.description()
    refuse_seen(store, description, str(pretrained.run) if pretrained else f"the training set of {store.folder}")
    say(_settings_lines(data, job, length, fitted, held))
    variables, fresh = init_variables(job.network, jax.random.key(job.seed)), frozenset[str]()
    if pretrained is not None:
        restored = restore_pretrained(pretrained.saved, job.network, variables, job.head, str(pretrained.run))
        variables, fresh = restored.variables, restored.fresh
        say(f"start: {pretrained.run} (step {pretrained.saved.step}); {restored.message}.")
    else:
        say("start: random parameters (end to end).")
    labels = label_parameters(variables["params"], get_rules(job.freeze))
    optimiser = make_optimiser(job.recipe, length.steps, labels, fresh)
    # The jitted step gives its input's buffers away: `init_state` owns fresh copies.
    state = init_state(jax.tree.map(jax.numpy.array, variables), optimiser, job.seed)
    accumulate = job.recipe.accumulate
    parallel = choose_parallel(
        execution.parallel, execution.mesh, job.recipe.batch_size, data.batch_shapes()["label"].shape[1:],
        job.network.divisor, say, accumulate,
    )  # fmt: skip
    levels = frozen_levels(job.network, labels, job.frozen_bn)
    place = choose_place(
        execution.cache, levels, data.why_no_features(levels), lambda: data.feature_bytes(fitted, levels),
        # Half of it, as the step's own need is not yet known.
        lambda: data.cache_bytes(fitted), cache_room() // 2, say,
    )  # fmt: skip
    if processes.count() > 1:  # whose memories may differ, and whose programs may not
        place = Place(*processes.share([place.kept, place.levels]))
    iterator = data.batches(fitted, read=place.kept == "none")
    loss, inputs = data.loss(), data.inputs()
    key = (
        job.network, job.recipe, length.steps, job.freeze, job.frozen_bn, fresh, data.program_key(), place.levels,
        parallel,
    )  # fmt: skip

    def make(
        labels: Any, optimiser: Any, network: NetworkConfig = job.network, feature_levels: int = place.levels,
        accumulate: int = accumulate, parallel: Parallel = parallel, **how: Any,
    ) -> Step:  # fmt: skip
        return make_train_step(
            network, optimiser, loss, labels, inputs=inputs, frozen_bn=job.frozen_bn,
            feature_levels=feature_levels, accumulate=accumulate, parallel=parallel, **how,
        )  # fmt: skip

    def make_planned(plan: Plan) -> Any:
        return make(labels, optimiser, dataclasses.replace(job.network, dtype=plan.precision), remat=plan.remat)

    asked = execution.remat or "none"
    fixed = execution.remat is not None or execution.memory_budget is None
    shapes = jax.eval_shape(lambda: state)
    batch = data.feature_shapes(place.levels) if place.levels else data.batch_shapes()
    fits = programs.get(
        ("fits", key, asked, execution.memory_budget, fixed, tuple(batch["label"].shape)),
        lambda: fit_memory(
            make_planned, shapes, batch, Plan(
                asked, job.network.dtype, job.recipe.batch_size, parallel.data * accumulate
            ),
            budget=execution.memory_budget, fixed=fixed, say=say,
        ),
    )  # fmt: skip
    if processes.count() > 1:
        agreed = dataclasses.replace(fits.prediction.plan, remat=processes.share(fits.prediction.plan.remat))
        if agreed != fits.prediction.plan:
            fits = dataclasses.replace(fits, program=make_planned(agreed), prediction=dataclasses.replace(
                fits.prediction, plan=agreed
            ))  # fmt: skip
    parts = stages(variables["params"], length.steps, job.freeze, job.recipe.unfreezing)
    remat = fits.prediction.plan.remat
    steps: Any = fits.program
    if len(parts) > 1:
        early = [
            programs.get(("stage", key, i, remat), functools.partial(make, s.labels, optimiser, remat=remat))
            for i, s in enumerate(parts[:-1])
        ]
        steps = tuple(StagedStep(s.last_step, p) for s, p in zip(parts, [*early, fits.program], strict=True))
        say(f"unfreezing in {len(parts)} stages, which end at steps {', '.join(str(s.last_step) for s in parts)}.")
    settings = run_settings(store, job, pretrained.record if pretrained else None)
    return Run(
        job, folder, data, fitted, held, length, description, settings, labels, state,
        iterator, place, fits, steps, make, make_planned, key, parallel,
    )  # fmt: skip


def claim_run(run: Run, say: Callable[[str], None]) -> None:
    """Take the folder for this run: last of what may be refused, so that a corrected call can use it.

    Raises:
      InputError: it holds a run of other settings.
    """
    if claim_settings(run.folder, run.settings):
        say(f"{run.folder}: the same settings are there; going on from what was done.")
    say(parameter_table(run.state.params, run.labels))


def _settings_lines(
    data: TaskData, job: JobSettings, length: Length, fitted: Sequence[str], held: Sequence[str]
) -> str:
    """Every setting of the run, a line each."""
    flat = {k: v for k, v in job.to_dict().items() if k not in ("network", "recipe")}
    flat |= {f"recipe.{k}": v for k, v in job.recipe.__dict__.items()}
    flat |= {"steps": length.steps, "epochs": len(length.epoch_ends) or "not counted"}
    flat["network"] = job.network.name
    flat |= data.settings_lines(fitted)
    if held:
        flat["validation scans"] = f"{len(held)}: " + ", ".join(held)
    width = max(map(len, flat))
    return "\n".join(["settings:", *(f"  {k:<{width}}  {v}" for k, v in flat.items())])


def _flops_line(run: Run, state: TrainState) -> str:
    """FLOPs of this step, and against the step that trains everything where part is frozen."""
    job = run.job

    def flops(labels: Any, batch: Any, levels: int) -> float:
        optimiser = make_optimiser(job.recipe, run.length.steps, labels)
        moments = jax.eval_shape(optimiser.init, state.params)
        # XLA's count sees nothing inside a custom call, counts a loop's body once, and a device's part only.
        step = run.make(
            labels, optimiser, feature_levels=levels, lowering="native", accumulate=1, parallel=ONE
        )
        return step_flops(step, dataclasses.replace(state, opt_state=moments), batch)

    taken = flops(run.labels, run.batch_shapes(), run.place.levels)
    if math.isnan(taken):
        return "FLOPs a step: not counted, since JAX_PLATFORMS leaves out cpu."
    if job.freeze == "none":
        return f"FLOPs a step: {taken / 1e9:.1f} G"
    full = flops(label_parameters(state.params, get_rules("none")), run.data.batch_shapes(), 0)
    return f"FLOPs a step: {taken / 1e9:.1f} G, {taken / full:.0%} of the {full / 1e9:.1f} G that training all takes"


def _local_validator(validate: Callable[[TrainState], float]) -> Callable[[TrainState], float]:
    """`validate` on one device, of a state that may lie on several."""
    return lambda state: validate(local_state(state))


def _local_watch(watch: Watch | None) -> Watch | None:
    """`watch` on one device, of a state that may lie on several."""
    if watch is None:
        return None
    return Watch(lambda state: watch.draw(local_state(state)), lambda state: watch.whole(local_state(state)))


def load_predictor(saved: SavedModel) -> Predictor:
    """The network of a 3D run as a plain function; see `make_predictor`.

    Raises:
      InputError: it is a 2D run.
    """
    return _loaded(saved, 3)


def load_slice_predictor(saved: SavedModel) -> SlicePredictor:
    """The network of a 2D run as a plain function; see `make_predictor`.

    Raises:
      InputError: it is a 3D run.
    """
    return _loaded(saved, 2)


def _loaded(saved: SavedModel, dimensions: int) -> Predictor:
    if saved.config.dimensions != dimensions:
        raise InputError(
            f"The model is {saved.config.dimensions}D where a {dimensions}D one is wanted: "
            "name another run, or data of its kind."
        )
    return make_predictor(saved.config, saved.params, saved.batch_stats)
