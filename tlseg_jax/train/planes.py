"""Slices as training samples."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.preprocess.store.slice_store import Sample, SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.label_loss import LIVER
from tlseg_jax.train.losses import RESTRICTED
from tlseg_jax.train.parallel import local_state
from tlseg_jax.train.predictors import make_predictor
from tlseg_jax.train.step import Batch, Objective, batch_inputs, make_test_loss
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.stream import InputSettings

DRAW = 10
"""Test slices in the fixed draw whose loss is followed (section 3.2.2 of the liver report)."""


class Planes:
    """What `TaskData` asks of slices; for the attributes see `Boxes`."""

    box = None
    random_patch = False

    def __init__(self, store: SliceStore, job: JobSettings, pretrained: SavedModel | None) -> None:
        """Take `store` for a run of `job`. Raises InputError: the loss needs a liver that nothing shows."""
        self.store, self.job = store, job
        self.sides, self.channels = store.spec.planes.pixels, (job.network.channels,)
        self.regions = job.recipe.loss in RESTRICTED and LIVER not in store.spec.structures
        self._found: dict[str, NDArray[np.bool_]] = {}
        if self.regions:
            self._liver = _liver_finder(pretrained, job.network.channels, job.recipe.loss)

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
        """See `TaskData`."""
        spec, samples = self.store.spec, self.store.samples(subjects)
        shows = ", ".join(
            f"{sum(s.bits >> i & 1 for s in samples)} with {name}" for i, name in enumerate(spec.structures)
        )
        size = "x".join(map(str, self.sides))
        return {
            "data": f"{self.store.where} ({spec.planes.modality}, {spec.shown})",
            "slices": f"{len(samples)} of {size} pixels ({shows})",
        }

    def batches(
        self, subjects: Sequence[str], settings: "InputSettings", *, read: bool = True
    ) -> "grain.DatasetIterator":
        """See `TaskData`."""
        from tlseg_jax.input.slices import make_slice_batches

        return make_slice_batches(self.store, subjects, settings, self._find_regions(subjects), read=read)

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """See `Boxes`."""
        from tlseg_jax.input.device_cache import cache_slices

        return cache_slices(self.store, subjects, self.channels[0], self._find_regions(subjects), room)

    def cache_bytes(self, subjects: Sequence[str]) -> int:
        """See `Boxes`."""
        pixels = len(self.store.samples(subjects)) * math.prod(self.sides)
        return pixels * (2 * self.channels[0] + 1 + self.regions)

    def rows(self, subjects: Sequence[str], changes: Augmentation) -> int:
        """See `Boxes`."""
        del changes
        return len(self.store.samples(subjects))

    def feature_cache(
        self, subjects: Sequence[str], variables: Any, levels: int, changes: Augmentation, room: int
    ) -> "DeviceCache":
        """See `TaskData`."""
        from tlseg_jax.input.feature_cache import cache_slice_features

        del changes
        regions = self._find_regions(subjects)
        return cache_slice_features(self.store, subjects, self.job.network, variables, levels, regions, room)

    def watch(self, loss: Objective) -> Watch | None:
        """The loss of 10 test slices, drawn once by the seed, and that of the whole test set.

        The whole test set's is the mean over its batches by their sizes: for the losses that take sums over a batch
        (all but the cross-entropy) it depends on how the set falls into batches, which is the same for all runs.
        """
        subjects = self.store.subjects("test")
        samples = self.store.samples(subjects)
        if not samples:
            return None
        self._find_regions(subjects)
        rng = np.random.default_rng(self.job.seed)
        drawn = sorted(rng.choice(len(samples), min(DRAW, len(samples)), replace=False))
        draw = jax.device_put(self._batch([samples[i] for i in drawn]))
        test_loss = make_test_loss(self.job.network, loss, batch_inputs())
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
            "image": np.stack([store.image(s.subject, s.position, self.channels[0]) for s in samples]),
            "label": np.stack([store.label(s.subject, s.position) for s in samples]),
        }
        if store.partial:
            batch["marked"] = np.stack([store.marks(s.subject) for s in samples])
        if self.regions:
            at = [list(store.record(s.subject)["samples"]).index(s.position) for s in samples]
            batch["region"] = np.stack([self._found[s.subject][i] for s, i in zip(samples, at, strict=True)])
        return batch

    def _find_regions(self, subjects: Sequence[str]) -> dict[str, NDArray[np.bool_]] | None:
        """The predicted liver of these volumes, where the loss needs one and the label shows none."""
        if not self.regions:
            return None
        for s in subjects:
            if s not in self._found:
                self._found[s] = self._liver(self.store.volume_image(s, self.channels[0]))
        if not any(self._found[s].any() for s in subjects):
            raise InputError(
                f"The pre-trained model finds no liver in {len(subjects)} volume(s) of {self.store.where}, so "
                f"`loss={self.job.recipe.loss}` has nowhere to count: choose another `loss` or pre-trained model."
            )
        return self._found


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
    output = [o for o in pretrained.config.outputs if o != BACKGROUND].index(LIVER)
    return lambda image: predict_planes(image, predictor)[..., output] > THRESHOLD
