"""One model from a prepared data set: which scans, which start, training, scores and figures."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax

from tlseg_jax.datasets.splits import labelled_subset
from tlseg_jax.errors import InputError
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.evaluate.slice_inference import SlicePredictor
from tlseg_jax.models.networks import NetworkConfig, init_variables
from tlseg_jax.preprocess.any_store import AnyStore
from tlseg_jax.preprocess.slice_store import SliceStore
from tlseg_jax.preprocess.store import Store
from tlseg_jax.train.checkpoint import SavedModel, load_model
from tlseg_jax.train.device_memory import format_bytes
from tlseg_jax.train.dispatch import Dispatch, cache_room
from tlseg_jax.train.dry_run import dry_run_report
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.loop import Fit, LoopSettings, Watch, fit
from tlseg_jax.train.memory import Plan, fit_memory, out_of_memory, shortage
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.patch_data import PatchData
from tlseg_jax.train.run_folder import claim_settings
from tlseg_jax.train.slice_data import SliceData
from tlseg_jax.train.state import TrainState, init_state
from tlseg_jax.train.step import Inputs, Objective, Step, make_predictor, make_train_step, step_flops
from tlseg_jax.train.trace import Trace
from tlseg_jax.transfer.freeze import get_rules, label_parameters, parameter_table
from tlseg_jax.transfer.restore import restore_pretrained

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache

__all__ = ["JobSettings", "Pretrained", "load_predictor", "load_slice_predictor", "train_job"]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pre-trained model and where it came from."""

    run: Path
    saved: SavedModel

    @classmethod
    def load(cls, run: Path) -> "Pretrained":
        """Read the model of a run folder."""
        return cls(run, load_model(run))


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

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or, without reading, of where their samples are."""

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """What these subjects train on, held on the device, which has `room` bytes for it."""

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


def store_digest(store: AnyStore) -> str:
    """A checksum of what a run reads from a store: scans, labels, splits and patch or slices."""
    records = {
        s: (r["fingerprint"], r["split"], *([r["samples"]] if "samples" in r else []))
        for s, r in ((s, store.record(s)) for s in store.subjects())
    }
    text = json.dumps([store.manifest["spec"], store.manifest.get("patch_box"), records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(
    store: AnyStore, job: JobSettings, subjects: Sequence[str], pretrained: Pretrained | None
) -> dict[str, Any]:
    """What is saved with every checkpoint: enough to rebuild the network and to preprocess a new scan."""
    before = pretrained.saved.description if pretrained else {}
    group = store.spec.split_group
    return {
        "network": job.network.to_dict(),
        "spec": store.spec.to_dict(),
        "prepare": store.manifest["parameters"],
        "synthetic": bool(store.manifest.get("synthetic", False)),
        "pretask": before.get("task", "none"),
        "task": store.spec.name,
        "n": len(subjects),
        "seed": job.seed,
        # Whoever tests this model must know whom it has seen, in pre-training too.
        "seen_images": sorted(
            {*before.get("seen_images", ()), *(store.record(s)["image_sha256"] for s in subjects)}
        ),
        "seen_persons": sorted(
            {*before.get("seen_persons", ()), *(f"{group}:{store.persons[s]}" for s in subjects)}
        ),
        "versions": {
            p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "orbax-checkpoint", "grain")
        } | {"python": platform.python_version()},
    }  # fmt: skip


def seen_subjects(store: AnyStore, split: str, description: dict[str, Any]) -> tuple[str, ...]:
    """Subjects of a split whom a model was trained or pre-trained on, by image checksum or by person."""
    images, persons = set(description["seen_images"]), set(description["seen_persons"])
    group = store.spec.split_group
    return tuple(
        s
        for s in store.subjects(split)
        if store.record(s)["image_sha256"] in images or f"{group}:{store.persons[s]}" in persons
    )


def train_job(
    store: AnyStore,
    job: JobSettings,
    folder: Path,
    pretrained: Pretrained | None = None,
    *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Fit:
    """Train one model into `folder`, or go on from what is there.

    In this order: the fresh network, the pre-trained parameters, the optimiser, the newest checkpoint.

    Args:
      store: the prepared data set.
      job: the settings.
      folder: the run folder, which the caller holds (`lock_folder`).
      pretrained: what to start from; None trains end to end.
      execution: how it is run; no part of what a run is, so it may be resumed under another.
      say: prints a line.
      progress: whether to draw a bar.

    Raises:
      InputError: the settings do not fit the data, the folder or the pre-trained model, a test
        subject was in the pre-training, the memory does not suffice, or the loss became NaN.
    """
    train = store.subjects("train")
    if not train:
        raise InputError(f"{store.folder} holds no training subjects: prepare it with --test_fraction below 1.")
    subjects = labelled_subset(train, store.persons, len(train) if job.n is None else job.n, job.seed)
    if not 0 <= job.validation < len(subjects):
        raise InputError(
            f"--validation={job.validation} of {len(subjects)} labelled scans leaves none to train on: give fewer."
        )
    if job.patience and not job.validation:
        raise InputError("--patience needs scans to validate on: give --validation=K, K of the n labelled scans.")
    fitted = subjects[: len(subjects) - job.validation]
    held = subjects[len(fitted) :]
    data = task_data(store, job, pretrained)
    length = data.length(fitted)
    description = describe(store, job, subjects, pretrained) | data.description()
    if pretrained is not None:
        seen = seen_subjects(store, "test", pretrained.saved.description)
        if seen:
            raise InputError(
                f"{len(seen)} test subject(s) of {store.spec.name} ({', '.join(seen[:5])}) were trained on in "
                f"{pretrained.run}, so the scores would be too good: use one split for both "
                "(one split_group, or a split column in the CSV)."
            )

    say(_settings_lines(data, job, length, fitted, held))
    variables = init_variables(job.network, jax.random.key(job.seed))
    if pretrained is not None:
        restored = restore_pretrained(pretrained.saved, job.network, variables, job.head, str(pretrained.run))
        variables = restored.variables
        say(f"start: {pretrained.run} (step {pretrained.saved.step}); {restored.message}.")
    else:
        say("start: random parameters (end to end).")
    labels = label_parameters(variables["params"], get_rules(job.freeze))
    optimiser = make_optimiser(job.recipe, length.steps, labels)
    # The jitted step gives its input's buffers away: `init_state` owns fresh copies.
    state = init_state(jax.tree.map(jax.numpy.array, variables), optimiser)
    cached = execution.cache == "device"
    iterator = data.batches(fitted, read=not cached)
    loss, inputs, watch = data.loss(), data.inputs(), data.watch()

    def make(labels: Any, optimiser: Any, network: NetworkConfig = job.network, **how: Any) -> Step:
        return make_train_step(
            network, optimiser, loss, labels, seed=job.seed, inputs=inputs, frozen_bn=job.frozen_bn, **how
        )

    def make_planned(plan: Plan) -> Any:
        return make(labels, optimiser, dataclasses.replace(job.network, dtype=plan.precision), remat=plan.remat)

    shapes = jax.eval_shape(lambda: state)  # the first step gives the state away
    fits = fit_memory(
        make_planned, shapes, data.batch_shapes(), Plan(execution.remat, job.network.dtype, job.recipe.batch_size),
        budget=execution.memory_budget, fixed=execution.fixed_remat or execution.memory_budget is None, say=say,
    )  # fmt: skip
    if execution.dry_run:
        flops = _flops_line(make, shapes, labels, data.batch_shapes(), job, length)
        say(dry_run_report(job.network, state, labels, data.batch_shapes(), fits, flops, length.steps))
        return Fit(state, 0, [], [], "dry run")
    # Last of what may be refused: a corrected call can use the folder.
    there = claim_settings(
        folder,
        {
            "job": job.to_dict(),
            "data": {"spec": store.spec.to_dict(), "store": store_digest(store), "subjects": list(fitted)},
            "validation_subjects": list(held),
            "pretrained": None
            if pretrained is None
            else {"run": str(pretrained.run), "step": pretrained.saved.step, "task": description["pretask"]},
        },
    )
    if there:
        say(f"{folder}: the same settings are there; going on from what was done.")

    say(parameter_table(variables["params"], labels))
    cache = data.cache(fitted, cache_room(fits.prediction.total)) if cached else None
    if cache:
        say(f"on the device: {format_bytes(cache.nbytes)} of {len(fitted)} labelled scans.")
    most = execution.steps_per_call
    if watch and job.watch_every and job.watch_every < most:
        most = job.watch_every
        say(f"steps in a call: {most}, as the test loss is looked at every {most} (--watch_every).")
    loop = LoopSettings(
        length.steps, job.checkpoint_every, job.validate_every if held else 0, job.patience if held else 0,
        length.epoch_ends, job.watch_every,
    )  # fmt: skip
    try:
        return fit(
            Dispatch(fits.program, most, cache), state, iterator, fitted, loop, folder,
            description, validate=data.validator(held) if held else None, watch=watch,
            trace=Trace(execution.profile, say) if execution.profile else None,
            meanwhile=lambda: say(_flops_line(make, shapes, labels, data.batch_shapes(), job, length)),
            progress=progress, title=f"train {folder.name}",
        )  # fmt: skip
    except Exception as error:
        if not out_of_memory(error):
            raise
        asked = fits.prediction
        raise shortage(make_planned, shapes, data.batch_shapes(), asked, fits.capacity, failed=True) from None


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


def _flops_line(
    make: Callable[..., Step], state: TrainState, labels: Any, batch: Any, job: JobSettings, length: Length
) -> str:
    """FLOPs of this step, and against the step that trains everything where part is frozen."""

    def flops(labels: Any) -> float:
        optimiser = make_optimiser(job.recipe, length.steps, labels)
        moments = jax.eval_shape(optimiser.init, state.params)
        # XLA's count sees nothing inside a custom call, so it is taken of the program without any.
        step = make(labels, optimiser, lowering="native")
        return step_flops(step, dataclasses.replace(state, opt_state=moments), batch)

    taken = flops(labels)
    if job.freeze == "none":
        return f"FLOPs a step: {taken / 1e9:.1f} G"
    full = flops(label_parameters(state.params, get_rules("none")))
    return f"FLOPs a step: {taken / 1e9:.1f} G, {taken / full:.0%} of the {full / 1e9:.1f} G that training all takes"


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
