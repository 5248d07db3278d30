"""What training needs of a prepared data set of slices: batches of slices for the 2D network."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.evaluate.slice_results import reference_mask
from tlseg_jax.preprocess.store.slice_store import Sample, SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.parallel import local_state
from tlseg_jax.train.predictors import make_predictor
from tlseg_jax.train.slice_losses import LIVER, get_slice_loss
from tlseg_jax.train.step import Batch, Inputs, Objective, make_test_loss, slice_inputs
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.feature_cache import FeatureCache

DRAW = 10
"""Test slices in the fixed draw whose loss is followed (section 3.2.2 of the liver report)."""

RESTRICTED = ("liver_bce",)
"""Losses that count inside the liver only."""


class SliceData:
    """A store of slices as `train_job` sees it (see `TaskData`)."""

    def __init__(self, store: SliceStore, job: JobSettings, pretrained: SavedModel | None) -> None:
        """Take `store` for a run of `job`.

        Raises:
          InputError: the network does not fit the data, or the loss needs a liver that nothing shows.
        """
        network = job.network
        if network.outputs != store.spec.structures:
            raise InputError(
                f"{store.where} shows {', '.join(store.spec.structures)} and the network has the outputs "
                f"{', '.join(network.outputs)}: they must be the same."
            )
        self.store, self.job, self.network = store, job, network
        self._regions: dict[str, NDArray[np.bool_]] | None = None
        if job.recipe.loss in RESTRICTED and LIVER not in network.outputs:
            self._regions = {}
            self._liver = _liver_finder(pretrained, network.channels, job.recipe.loss)

    def length(self, subjects: Sequence[str]) -> Length:
        """Epoch k ends with the step that shows the k-th time the last of the slices.

        With "balanced" sampling an epoch has as many steps.
        """
        count, batch = len(self.store.samples(subjects)), self.job.recipe.batch_size
        if self.job.steps is not None:
            ends = tuple(math.ceil(k * count / batch) for k in range(1, self.job.steps * batch // count + 1))
            return Length(self.job.steps, tuple(e for e in ends if e <= self.job.steps))
        epochs = self.job.epochs or self.job.recipe.epochs
        ends = tuple(math.ceil(k * count / batch) for k in range(1, epochs + 1))
        return Length(ends[-1], ends)

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the data are, for the list of settings."""
        spec, samples = self.store.spec, self.store.samples(subjects)
        shows = ", ".join(
            f"{sum(s.bits >> i & 1 for s in samples)} with {name}" for i, name in enumerate(spec.structures)
        )
        size = "x".join(map(str, spec.planes.pixels))
        return {
            "data": f"{self.store.where} ({spec.planes.modality}, {', '.join(spec.structures)})",
            "slices": f"{len(samples)} of {size} pixels ({shows})",
            "labelled scans": f"{len(subjects)}: " + ", ".join(subjects),
        }

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the data beyond the spec."""
        return {"patch_box": None}

    def loss(self) -> Objective:
        """The recipe's loss, of the logits and (target, region)."""
        loss = get_slice_loss(self.job.recipe.loss, self.network.outputs)
        liver = self.network.outputs.index(LIVER) if LIVER in self.network.outputs else None
        restricted = self.job.recipe.loss in RESTRICTED

        def objective(logits: jax.Array, target: Any, axis: str | None = None) -> jax.Array:
            label, region = target
            if restricted and liver is not None:
                region = label[..., liver]
            return loss(logits, label, region, axis=axis)

        return objective

    def inputs(self) -> Inputs:
        """Bits to one map a structure."""
        return slice_inputs(len(self.network.outputs))

    def program_key(self) -> Hashable:
        """The shape of a batch; the loss is the recipe's, of the network's outputs."""
        return ("slices", self.store.spec.planes.pixels, self._regions is not None)

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or of which slices are in them."""
        from tlseg_jax.input.slices import SliceInput, make_slice_batches

        job = self.job
        settings = SliceInput(
            job.recipe.batch_size,
            job.seed,
            self.network.channels,
            job.sampling,
            job.threads,
            job.workers,
            processes.rows_index(),
            processes.count(),
        )
        return make_slice_batches(self.store, subjects, settings, self._find_regions(subjects), read=read)

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """The slices on the device."""
        from tlseg_jax.input.device_cache import cache_slices

        return cache_slices(self.store, subjects, self.network.channels, self._find_regions(subjects), room)

    def cache_bytes(self, subjects: Sequence[str]) -> int:
        """What `cache` would take."""
        pixels = len(self.store.samples(subjects)) * math.prod(self.store.spec.planes.pixels)
        return pixels * (2 * self.network.channels + 1 + (self._regions is not None))

    def why_no_features(self, levels: int) -> str | None:
        """Why features of the network's first levels cannot be kept, as a sentence; None where they can."""
        from tlseg_jax.input.feature_cache import why_no_features

        return why_no_features(levels, self.job.frozen_bn)

    def feature_shapes(self, levels: int) -> dict[str, Any]:
        """Shapes and types of a batch with features in place of the image."""
        from tlseg_jax.input.feature_cache import feature_shapes

        shapes: dict[str, Any] = self.batch_shapes()
        count = self.job.recipe.batch_size
        image = feature_shapes(self.network, levels, self.store.spec.planes.pixels, count)
        return {"features": image} | {k: v for k, v in shapes.items() if k != "image"}

    def feature_bytes(self, subjects: Sequence[str], levels: int) -> int:
        """What `feature_cache` would take."""
        from tlseg_jax.input.feature_cache import feature_bytes

        count = len(self.store.samples(subjects))
        return feature_bytes(
            self.network, levels, self.store.spec.planes.pixels, count, region=self._regions is not None
        )

    def feature_cache(self, subjects: Sequence[str], variables: Any, levels: int, room: int) -> "FeatureCache":
        """Features of every slice, on the device."""
        from tlseg_jax.input.feature_cache import cache_slice_features

        return cache_slice_features(
            self.store, subjects, self.network, variables, levels, self._find_regions(subjects), room
        )

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch, for counting FLOPs."""
        shape = (self.job.recipe.batch_size, *self.store.spec.planes.pixels)
        shapes = {
            "image": jax.ShapeDtypeStruct((*shape, self.network.channels), np.float16),
            "label": jax.ShapeDtypeStruct(shape, np.uint8),
        }
        return shapes if self._regions is None else shapes | {"region": jax.ShapeDtypeStruct(shape, np.bool_)}

    def validator(self, subjects: Sequence[str]) -> Callable[[TrainState], float]:
        """state -> mean IoU of the target over these volumes; the processes of a run divide them."""
        store = self.store

        def validate(state: TrainState) -> float:
            ours = local_state(state)
            predictor = make_predictor(self.network, ours.params, ours.batch_stats)

            def one(s: str) -> float:
                found = predict_planes(store.volume_image(s, self.network.channels), predictor)[..., -1] > THRESHOLD
                truth = reference_mask(store, store.volume_label(s), store.spec.target)
                return score(found, truth, (1.0, 1.0, 1.0)).iou

            return float(np.mean(processes.divide(subjects, lambda some: [one(s) for s in some])))

        return validate

    def watch(self) -> Watch | None:
        """The loss of 10 test slices, drawn once by the seed, and that of the whole test set.

        The whole test set's is the mean over its batches by their sizes: for the losses that take sums over a batch
        (all but "bce") it depends on how the set falls into batches, which is the same for all runs.
        """
        subjects = self.store.subjects("test")
        samples = self.store.samples(subjects)
        if not samples:
            return None
        self._find_regions(subjects)
        rng = np.random.default_rng(self.job.seed)
        drawn = sorted(rng.choice(len(samples), min(DRAW, len(samples)), replace=False))
        draw = jax.device_put(self._batch([samples[i] for i in drawn]))
        test_loss = make_test_loss(self.network, self.loss(), self.inputs())
        size = even_batch(len(samples))

        def whole(state: TrainState) -> float:
            parts = [samples[i : i + size] for i in range(0, len(samples), size)]
            ours = local_state(state)
            losses = processes.divide(
                parts, lambda some: [float(test_loss(ours, self._batch(p))) * len(p) for p in some]
            )
            return sum(losses) / len(samples)

        return Watch(lambda state: test_loss(local_state(state), draw), whole)

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        store = self.store
        batch = {
            "image": np.stack([store.image(s.subject, s.position, self.network.channels) for s in samples]),
            "label": np.stack([store.label(s.subject, s.position) for s in samples]),
        }
        if self._regions is not None:
            at = [list(store.record(s.subject)["samples"]).index(s.position) for s in samples]
            batch["region"] = np.stack([self._regions[s.subject][i] for s, i in zip(samples, at, strict=True)])
        return batch

    def _find_regions(self, subjects: Sequence[str]) -> dict[str, NDArray[np.bool_]] | None:
        """The predicted liver of these volumes, where the loss needs one and the label shows none."""
        if self._regions is None:
            return None
        for s in subjects:
            if s not in self._regions:
                self._regions[s] = self._liver(self.store.volume_image(s, self.network.channels))
        if not any(self._regions[s].any() for s in subjects):
            raise InputError(
                f"The pre-trained model finds no liver in {len(subjects)} volume(s) of {self.store.where}, so "
                f"`loss={self.job.recipe.loss}` has nowhere to count: choose another `loss` or pre-trained model."
            )
        return self._regions


def even_batch(count: int, most: int = 20) -> int:
    """The largest batch up to `most` that `count` slices fill without a rest; `most` where there is no good one."""
    size = max(d for d in range(1, most + 1) if count % d == 0)
    return size if size >= 4 else min(most, count)


def _liver_finder(
    pretrained: SavedModel | None, channels: int, loss: str
) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    if pretrained is None or LIVER not in pretrained.config.outputs:
        raise InputError(
            f"`loss={loss}` counts inside the liver, and neither the labels nor the pre-trained model show one: "
            "name a pre-trained model with a liver output, or choose another `loss`."
        )
    if getattr(pretrained.config, "channels", None) != channels:
        raise InputError(f"`loss={loss}` needs a pre-trained model of the same number of slice channels ({channels}).")
    predictor = make_predictor(pretrained.config, pretrained.params, pretrained.batch_stats)
    output = pretrained.config.outputs.index(LIVER)
    return lambda image: predict_planes(image, predictor)[..., output] > THRESHOLD
