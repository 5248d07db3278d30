"""What training asks of a prepared data set, of volumes or of slices."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.readers import reader_of
from tlseg_jax.input.augment import augmentation_for
from tlseg_jax.preprocess.codes import decide, mask_of
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.boxes import Boxes
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.label_loss import LIVER, label_loss
from tlseg_jax.train.losses import RESTRICTED
from tlseg_jax.train.parallel import local_state
from tlseg_jax.train.planes import Planes
from tlseg_jax.train.predictors import make_predictor
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.step import Inputs, Mixing, Objective, batch_inputs
from tlseg_jax.train.synthetic import trained_on
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache

_OTHER = {3: "use unet2d", 2: "use a 3D one"}


Sampler = Boxes | Planes
"""What a sample is: a box of a volume, or a slice."""


class TaskData:
    """A prepared data set as `train_job` sees it.

    Attributes:
      synthesis: how samples are drawn from label maps; None: they are read.
      mixing: how some of them are drawn that take the place of those that are read; None: none is.
    """

    def __init__(self, store: AnyStore, job: JobSettings, pretrained: Pretrained | None = None) -> None:
        """Take `store` for a run of `job`.

        Raises:
          InputError: the network is of another dimensionality than the data or has other outputs, there is no patch to
            train on, or the loss needs a liver that nothing shows.
        """
        spec, network, restricted = store.spec, job.network, job.recipe.loss in RESTRICTED
        if network.dimensions != spec.grid.axes:
            raise InputError(
                f"{store.where} holds {spec.kind} and the network {network.name} is {network.dimensions}D: "
                f"{_OTHER[network.dimensions]}."
            )
        # Of exclusive outputs the number counts: a model of one structure goes on with another.
        same = len(network.outputs) == len(spec.outputs) if spec.exclusive else network.outputs == spec.outputs
        if not same:
            raise InputError(
                f"{store.where} shows {spec.shown} and the network has the outputs "
                f"{', '.join(network.outputs)}: they must be the same."
            )
        self.store, self.job = store, job
        self.sampler: Sampler
        if isinstance(store, SliceStore):
            trained_on(store, (), job.recipe)  # which refuses to mix
            self.sampler = Planes(store, job, pretrained.saved if pretrained else None)
        else:
            self.sampler = Boxes(store, job)
            if restricted and LIVER not in spec.structures:
                raise InputError(
                    f"`loss={job.recipe.loss}` of volumes needs labels that show a {LIVER}: choose another."
                )
        maps = self.sampler.maps if isinstance(self.sampler, Boxes) else None
        mixed = self.sampler.mixed if isinstance(self.sampler, Boxes) else None
        self.synthesis = maps.synthesis if maps else None
        if maps and job.validation:
            maps.store.check_scans()
        own = functools.partial(
            augmentation_for, spec, elastic=job.recipe.elastic_augmentation, randomise=job.recipe.randomisation
        )
        # A drawn sample has been through what the default recipe does, and more.
        drawn = own(intensity=False, affine=0.0)
        affine = job.recipe.affine_strength * job.recipe.affine_augmentation
        scanned = own(intensity=job.recipe.intensity_augmentation, affine=affine)
        self.augmentation = drawn if maps else scanned
        self.mixing = Mixing(mixed.maps.synthesis, drawn) if mixed else None
        moved = self.augmentation.affine or self.augmentation.elastic or self.augmentation.flip_left_right
        if self.sampler.regions and moved:
            raise InputError(
                f"`loss={job.recipe.loss}` counts inside a predicted liver, which is not moved with a slice: leave out "
                "`affine_augmentation`, `elastic_augmentation` and mirroring, or choose another `loss`."
            )

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the data are, for the list of settings."""
        return self.sampler.settings_lines(subjects) | {"labelled scans": f"{len(subjects)}: " + ", ".join(subjects)}

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the data beyond the spec."""
        return {"patch_box": self.sampler.box.to_dict() if self.sampler.box else None}

    def loss(self) -> Objective:
        """The recipe's loss, over the structures that a label map marks."""
        recipe, spec = self.job.recipe, self.store.spec
        return label_loss(recipe.loss, spec.structures, spec.exclusive, recipe.label_smoothing)

    def inputs(self) -> Inputs:
        """The augmentation of the data set, plus ours where the recipe says so."""
        return batch_inputs(self.augmentation, self.synthesis, self.mixing)

    def program_key(self) -> Hashable:
        """All that `loss` and `inputs` depend on besides the network and the recipe."""
        spec, sampler = self.store.spec, self.sampler
        # Names change the program of a loss that goes by one alone.
        shown = spec.structures if self.job.recipe.loss in RESTRICTED else len(spec.structures)
        return (
            sampler.sides,
            self.augmentation,
            self.synthesis,
            self.mixing,
            shown,
            spec.exclusive,
            self.store.partial,
            sampler.regions,
        )

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or, without reading, of where their samples are."""
        from tlseg_jax.input.stream import InputSettings

        job = self.job
        settings = InputSettings(
            job.recipe.batch_size,
            job.seed,
            job.network.channels,
            job.sampling,
            job.threads,
            job.workers,
            processes.rows_index(),
            processes.count(),
        )
        return self.sampler.batches(subjects, settings, read=read)

    def why_no_features(self, levels: int) -> str | None:
        """Why features of the network's first levels cannot be kept, as a sentence; None where they can."""
        from tlseg_jax.input.feature_cache import why_no_features

        if self.synthesis or self.mixing:
            return "Features cannot be kept, as each step draws its images anew from label maps."
        return why_no_features(
            levels,
            self.job.frozen_bn,
            random_patch=self.sampler.random_patch,
            augmentation=self.augmentation,
            mirrored=not self.sampler.channels,
        )

    def feature_shapes(self, levels: int) -> dict[str, Any]:
        """Shapes and types of a batch with features in place of the image."""
        from tlseg_jax.input.feature_cache import feature_shapes

        features = feature_shapes(self.job.network, levels, self.sampler.sides, self.job.recipe.batch_size)
        return {"features": features} | {k: v for k, v in self.batch_shapes().items() if k != "image"}

    def feature_bytes(self, subjects: Sequence[str], levels: int) -> int:
        """What `feature_cache` would take."""
        from tlseg_jax.input.feature_cache import feature_bytes

        rows, sampler = self.sampler.rows(subjects, self.augmentation), self.sampler
        return feature_bytes(self.job.network, levels, sampler.sides, rows, region=sampler.regions)

    def feature_cache(self, subjects: Sequence[str], variables: Any, levels: int, room: int) -> "DeviceCache":
        """Features of what these subjects train on, computed once, on the device, which has `room` bytes for them."""
        return self.sampler.feature_cache(subjects, variables, levels, self.augmentation, room)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch."""
        count = self.job.recipe.batch_size
        shape = (count, *self.sampler.sides)
        shapes = {"label": jax.ShapeDtypeStruct(shape, np.uint8)}
        if of := self.synthesis or (self.mixing and self.mixing.synthesis):
            shapes["classes"] = jax.ShapeDtypeStruct((count, *of.map_sides), np.uint8)
            shapes["shares"] = jax.ShapeDtypeStruct((count, len(of.table.values)), np.float32)
        if self.mixing:
            shapes["drawn"] = jax.ShapeDtypeStruct((count,), np.bool_)
        if not self.synthesis:
            shapes["image"] = jax.ShapeDtypeStruct((*shape, *self.sampler.channels), np.float16)
        if self.store.partial:
            shapes["marked"] = jax.ShapeDtypeStruct((count, len(self.store.spec.structures)), np.uint8)
        if self.sampler.regions:
            shapes["region"] = jax.ShapeDtypeStruct(shape, np.bool_)
        return shapes

    def validator(self, subjects: Sequence[str]) -> Callable[[TrainState], float]:
        """state -> mean IoU of the structures that count and `subjects`; the processes of a run divide them."""
        store, spec = self.store, self.store.spec

        def validate(state: TrainState) -> float:
            ours = local_state(state.model)
            predictor = make_predictor(self.job.network, ours["params"], ours["batch_stats"])
            reader = reader_of(store, spec, self.sampler.box, predictor, channels=self.job.network.channels)

            def one(s: str) -> float:
                codes, truth = decide(reader.probability(s), spec.exclusive), store.codes(s)
                places = [spec.structures.index(m) for m in store.marked(s) if m in spec.counted]
                pairs = [[mask_of(c, i, spec.exclusive) for c in (codes, truth)] for i in places]
                return float(np.mean([score(found, known, np.eye(3)).iou for found, known in pairs]))

            return float(np.mean(processes.divide(subjects, lambda some: [one(s) for s in some])))

        return validate

    def watch(self) -> Watch | None:
        """Test losses to follow while training."""
        return self.sampler.watch(self.loss())
