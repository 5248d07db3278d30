"""What training needs of a prepared data set of volumes: patches for a 3D network."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.evaluate.inference import predict_volume
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.input.augment import Augmentation, augmentation_for
from tlseg_jax.preprocess.codes import decide, mask_of
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.label_loss import label_loss
from tlseg_jax.train.parallel import local_state
from tlseg_jax.train.predictors import make_predictor
from tlseg_jax.train.step import Inputs, Objective, patch_inputs
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.feature_cache import FeatureCache


class PatchData:
    """A store of volumes as `train_job` sees it (see `TaskData`)."""

    def __init__(self, store: Store, job: JobSettings) -> None:
        """Take `store` for a run of `job`.

        Raises:
          InputError: the store has no patch to train on, or other structures than the network.
        """
        from tlseg_jax.input.patches import training_box

        if len(job.network.outputs) != len(store.spec.outputs):
            raise InputError(
                f"{store.where} shows {store.spec.shown} and the network has the outputs "
                f"{', '.join(job.network.outputs)}: they must be the same."
            )
        self.store, self.job, self.box, self._partial = store, job, training_box(store), store.partial

    def length(self, subjects: Sequence[str]) -> Length:
        """How long the run is."""
        del subjects
        return Length(self.job.steps or self.job.recipe.finetune_steps)

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the data are, for the list of settings."""
        spec, box = self.store.spec, self.box
        size = "x".join(map(str, box.size if box else spec.volumes.patch_size))
        return {
            "data": f"{self.store.where} ({spec.shown}, {spec.volumes.space} space)",
            "patch": f"{size} voxels, " + ("at random places" if box is None else f"from voxel {box.start}"),
            "labelled scans": f"{len(subjects)}: " + ", ".join(subjects),
        }

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the data beyond the spec."""
        return {"patch_box": self.box.to_dict() if self.box else None}

    def loss(self) -> Objective:
        """The recipe's loss, over the structures that a label map marks."""
        return label_loss(
            self.job.recipe.loss, len(self.store.spec.structures), self.store.spec.exclusive, self._partial
        )

    def inputs(self) -> Inputs:
        """The augmentation of Table 1, plus ours where the recipe says so."""
        return patch_inputs(self._augmentation())

    def program_key(self) -> Hashable:
        """The shape of a patch and the augmentation."""
        spec = self.store.spec
        size = self.box.size if self.box else spec.volumes.patch_size
        return ("volumes", size, self._augmentation(), len(spec.structures), spec.exclusive, self._partial)

    def _augmentation(self) -> Augmentation:
        recipe = self.job.recipe
        return augmentation_for(
            self.store.spec,
            intensity=recipe.intensity_augmentation,
            affine=recipe.affine_augmentation,
            randomise=recipe.randomisation,
        )

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or of where their patches are."""
        from tlseg_jax.input.patches import InputSettings, make_batches

        job = self.job
        settings = InputSettings(
            job.recipe.batch_size, job.seed, job.threads, job.workers, processes.rows_index(), processes.count()
        )
        return make_batches(self.store, subjects, self.box, settings, read=read)

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """The patches, or the volumes that they are drawn from, on the device."""
        from tlseg_jax.input.device_cache import cache_patches

        return cache_patches(self.store, subjects, self.box, room)

    def cache_bytes(self, subjects: Sequence[str]) -> int:
        """What `cache` would take."""
        sides = [self.box.size if self.box else self.store.grid(s).shape for s in subjects]
        return len(subjects) * int(np.prod(np.max(sides, axis=0))) * 3

    def why_no_features(self, levels: int) -> str | None:
        """Why features of the network's first levels cannot be kept, as a sentence; None where they can."""
        from tlseg_jax.input.feature_cache import why_no_features

        return why_no_features(
            levels, self.job.frozen_bn, random_patch=self.box is None, augmentation=self._augmentation()
        )

    def feature_shapes(self, levels: int) -> dict[str, Any]:
        """Shapes and types of a batch with features in place of the image."""
        from tlseg_jax.input.feature_cache import feature_shapes

        shapes = self.batch_shapes()
        label = shapes["label"]
        features = feature_shapes(self.job.network, levels, label.shape[1:], label.shape[0])
        return {"features": features} | {k: v for k, v in shapes.items() if k != "image"}

    def feature_bytes(self, subjects: Sequence[str], levels: int) -> int:
        """What `feature_cache` would take."""
        from tlseg_jax.input.feature_cache import feature_bytes

        assert self.box is not None
        rows = len(subjects) * (2 if self._augmentation().flip_left_right else 1)
        return feature_bytes(self.job.network, levels, self.box.size, rows)

    def feature_cache(self, subjects: Sequence[str], variables: Any, levels: int, room: int) -> "FeatureCache":
        """Features of the patches and their mirror images, on the device."""
        from tlseg_jax.input.feature_cache import cache_features

        assert self.box is not None
        changes = self._augmentation()
        return cache_features(self.store, subjects, self.box, self.job.network, variables, levels, changes, room)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch, for counting FLOPs."""
        shape = (self.job.recipe.batch_size, *(self.box.size if self.box else self.store.spec.volumes.patch_size))
        shapes = {"image": jax.ShapeDtypeStruct(shape, np.float16), "label": jax.ShapeDtypeStruct(shape, np.uint8)}
        if self._partial:
            marks = (self.job.recipe.batch_size, len(self.store.spec.structures))
            shapes["marked"] = jax.ShapeDtypeStruct(marks, np.uint8)
        return shapes

    def validator(self, subjects: Sequence[str]) -> Callable[[TrainState], float]:
        """state -> mean IoU of structures and `subjects`, against whole labels; the processes of a run divide them."""
        store = self.store

        def validate(state: TrainState) -> float:
            ours = local_state(state)
            predictor = make_predictor(self.job.network, ours.params, ours.batch_stats)

            def one(s: str) -> float:
                codes = decide(predict_volume(store.image(s), store.spec, self.box, predictor), store.spec.exclusive)
                places = [store.spec.structures.index(m) for m in store.marked(s)]
                found = [mask_of(codes, i, store.spec.exclusive) for i in places]
                truth = [mask_of(store.label(s), i, store.spec.exclusive) for i in places]
                return float(np.mean([score(f, t, store.grid(s).voxel).iou for f, t in zip(found, truth, strict=True)]))

            return float(np.mean(processes.divide(subjects, lambda some: [one(s) for s in some])))

        return validate

    def watch(self) -> Watch | None:
        """Nothing: the brain paper looks at no test loss while training."""
        return None
