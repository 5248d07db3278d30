"""One model from a prepared data set: which scans, which start, training, scores and figures."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlseg_jax.datasets.splits import labelled_subset
from tlseg_jax.errors import InputError
from tlseg_jax.evaluate.inference import THRESHOLD, Predictor, predict_volume
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.input.augment import augmentation_for
from tlseg_jax.models.networks import init_variables
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.geometry import Box
from tlseg_jax.preprocess.store import Store
from tlseg_jax.train.checkpoint import SavedModel, load_model
from tlseg_jax.train.loop import Fit, LoopSettings, fit
from tlseg_jax.train.losses import get_loss
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.recipes import Recipe
from tlseg_jax.train.run_folder import claim_settings
from tlseg_jax.train.state import TrainState, init_state
from tlseg_jax.train.step import FrozenBN, make_predictor, make_train_step, step_flops
from tlseg_jax.transfer.freeze import get_rules, label_parameters, parameter_table
from tlseg_jax.transfer.restore import Head, restore_pretrained


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """Everything that one training run is made of, besides its data.

    Attributes:
      network: what is trained.
      recipe: how.
      steps: the most training steps.
      n: labelled scans; None takes all training scans.
      seed: of the parameters, the order, the augmentation and which n scans are labelled.
      freeze: a name of `transfer.freeze.FREEZING`; only from a pre-trained start.
      frozen_bn: see `make_train_step`.
      head: see `restore_pretrained`.
      validation: how many of the n scans are kept for validation instead of training.
      validate_every: steps between validations.
      patience: validations without a better one before stopping; 0 never stops early.
      checkpoint_every: steps between checkpoints.
      threads: that read patches.
      workers: processes that read patches; 0 for none.
    """

    network: UNetConfig
    recipe: Recipe
    steps: int
    n: int | None = None
    seed: int = 0
    freeze: str = "none"
    frozen_bn: FrozenBN = "running"
    head: Head = "keep"
    validation: int = 0
    validate_every: int = 50
    patience: int = 0
    checkpoint_every: int = 200
    threads: int = 2
    workers: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pre-trained model and where it came from."""

    run: Path
    saved: SavedModel

    @classmethod
    def load(cls, run: Path) -> "Pretrained":
        """Read the model of a run folder."""
        return cls(run, load_model(run))


def store_digest(store: Store) -> str:
    """A checksum of what a run reads from a store: scans, labels, splits and patch."""
    records = {s: (store.record(s)["fingerprint"], store.record(s)["split"]) for s in store.subjects()}
    text = json.dumps([store.manifest["spec"], store.manifest.get("patch_box"), records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(store: Store, job: JobSettings, subjects: Sequence[str], box: Box | None,
             pretrained: Pretrained | None) -> dict[str, Any]:  # fmt: skip
    """What is saved with every checkpoint: enough to rebuild the network and to preprocess a new scan."""
    before = pretrained.saved.description if pretrained else {}
    group = store.spec.split_group
    return {
        "network": job.network.to_dict(),
        "spec": store.spec.to_dict(),
        "patch_box": box.to_dict() if box else None,
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


def seen_subjects(store: Store, split: str, description: dict[str, Any]) -> tuple[str, ...]:
    """Subjects of a split whom a model was trained or pre-trained on, by image checksum or by person."""
    images, persons = set(description["seen_images"]), set(description["seen_persons"])
    group = store.spec.split_group
    return tuple(
        s
        for s in store.subjects(split)
        if store.record(s)["image_sha256"] in images or f"{group}:{store.persons[s]}" in persons
    )


def validator(
    store: Store, subjects: Sequence[str], box: Box | None, config: UNetConfig
) -> Callable[[TrainState], float]:
    """state -> mean IoU over `subjects`, against their whole labels."""

    def validate(state: TrainState) -> float:
        predictor = make_predictor(config, state.params, state.batch_stats)
        scores = []
        for s in subjects:
            found = predict_volume(store.image(s), store.spec, box, predictor) > THRESHOLD
            scores.append(score(found, store.label(s) > 0, store.grid(s).spacing).iou)
        return float(np.mean(scores))

    return validate


def train_job(
    store: Store,
    job: JobSettings,
    folder: Path,
    pretrained: Pretrained | None = None,
    *,
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
      say: prints a line.
      progress: whether to draw a bar.

    Raises:
      InputError: the settings do not fit the data, the folder or the pre-trained model, a test
        subject was in the pre-training, or the loss became NaN.
    """
    # Here and not above: a machine that only measures steps may have no grain.
    from tlseg_jax.input.patches import InputSettings, make_batches, training_box

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
    box = training_box(store)
    description = describe(store, job, subjects, box, pretrained)
    if pretrained is not None:
        seen = seen_subjects(store, "test", pretrained.saved.description)
        if seen:
            raise InputError(
                f"{len(seen)} test subject(s) of {store.spec.name} ({', '.join(seen[:5])}) were trained on in "
                f"{pretrained.run}, so the scores would be too good: use one split for both "
                "(one split_group, or a split column in the CSV)."
            )

    say(_settings_lines(store, job, box, fitted, held))
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

    variables = init_variables(job.network, jax.random.key(job.seed))
    if pretrained is not None:
        restored = restore_pretrained(pretrained.saved, job.network, variables, job.head, str(pretrained.run))
        variables = restored.variables
        say(f"start: {pretrained.run} (step {pretrained.saved.step}); {restored.message}.")
    else:
        say("start: random parameters (end to end).")
    labels = label_parameters(variables["params"], get_rules(job.freeze))
    optimiser = make_optimiser(job.recipe, job.steps, labels)
    # The jitted step gives its input's buffers away: `init_state` owns fresh copies.
    state = init_state(jax.tree.map(jax.numpy.array, variables), optimiser)
    iterator = make_batches(
        store, fitted, box, InputSettings(job.recipe.batch_size, job.seed, job.threads, job.workers)
    )
    augmentation = augmentation_for(
        store.spec, intensity=job.recipe.intensity_augmentation, affine=job.recipe.affine_augmentation
    )

    def make(labels: Any, optimiser: Any) -> Any:
        return make_train_step(
            job.network, optimiser, get_loss(job.recipe.loss), labels,
            seed=job.seed, augmentation=augmentation, frozen_bn=job.frozen_bn,
        )  # fmt: skip

    step = make(labels, optimiser)
    say(parameter_table(variables["params"], labels))
    say(_flops_line(step, state, make, store, job, box, variables))
    validate = validator(store, held, box, job.network) if held else None
    loop = LoopSettings(job.steps, job.checkpoint_every, job.validate_every if held else 0, job.patience if held else 0)
    return fit(
        step, state, iterator, fitted, loop, folder, description,
        validate=validate, progress=progress, title=f"train {folder.name}",
    )  # fmt: skip


def _settings_lines(
    store: Store, job: JobSettings, box: Box | None, fitted: Sequence[str], held: Sequence[str]
) -> str:
    """Every setting of the run, a line each."""
    flat = {k: v for k, v in job.to_dict().items() if k not in ("network", "recipe")}
    flat |= {f"recipe.{k}": v for k, v in job.recipe.__dict__.items()}
    flat["network"] = job.network.name
    flat["data"] = f"{store.folder} ({store.spec.structure}, {store.spec.space} space)"
    size = "x".join(map(str, box.size if box else store.spec.patch_size))
    flat["patch"] = f"{size} voxels, " + ("at random places" if box is None else f"from voxel {box.start}")
    flat["labelled scans"] = f"{len(fitted)}: " + ", ".join(fitted)
    if held:
        flat["validation scans"] = f"{len(held)}: " + ", ".join(held)
    width = max(map(len, flat))
    return "\n".join(["settings:", *(f"  {k:<{width}}  {v}" for k, v in flat.items())])


def _flops_line(
    step: Any, state: TrainState, make: Any, store: Store, job: JobSettings, box: Box | None, variables: Any
) -> str:
    """FLOPs of this step, and against the step that trains everything where part is frozen."""
    shape = (job.recipe.batch_size, *(box.size if box else store.spec.patch_size))
    batch = {
        "image": jax.ShapeDtypeStruct(shape, np.float16),
        "label": jax.ShapeDtypeStruct(shape, np.uint8),
    }
    flops = step_flops(step, state, batch)
    if job.freeze == "none":
        return f"FLOPs a step: {flops / 1e9:.1f} G"
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(job.recipe, job.steps, labels)
    full = step_flops(make(labels, optimiser), init_state(variables, optimiser), batch)
    return f"FLOPs a step: {flops / 1e9:.1f} G, {flops / full:.0%} of the {full / 1e9:.1f} G that training all takes"


def load_predictor(saved: SavedModel) -> Predictor:
    """The network of a run as a plain function; see `make_predictor`."""
    return make_predictor(saved.config, saved.params, saved.batch_stats)
