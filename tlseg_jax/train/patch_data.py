"""What training needs of a prepared data set of volumes: patches for a 3D network."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tlseg_jax.evaluate.inference import THRESHOLD, predict_volume
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.input.augment import augmentation_for
from tlseg_jax.preprocess.store import Store
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.loop import Watch
from tlseg_jax.train.losses import get_loss
from tlseg_jax.train.state import TrainState
from tlseg_jax.train.step import Inputs, Objective, make_predictor, patch_inputs

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache


class PatchData:
    """A store of volumes as `train_job` sees it (see `TaskData`)."""

    def __init__(self, store: Store, job: JobSettings) -> None:
        """Take `store` for a run of `job`.

        Raises:
          InputError: the store has no patch to train on.
        """
        from tlseg_jax.input.patches import training_box

        self.store, self.job, self.box = store, job, training_box(store)

    def length(self, subjects: Sequence[str]) -> Length:
        """How long the run is."""
        del subjects
        return Length(self.job.steps or self.job.recipe.finetune_steps)

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the data are, for the list of settings."""
        spec, box = self.store.spec, self.box
        size = "x".join(map(str, box.size if box else spec.patch_size))
        return {
            "data": f"{self.store.folder} ({spec.structure}, {spec.space} space)",
            "patch": f"{size} voxels, " + ("at random places" if box is None else f"from voxel {box.start}"),
            "labelled scans": f"{len(subjects)}: " + ", ".join(subjects),
        }

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of the data beyond the spec."""
        return {"patch_box": self.box.to_dict() if self.box else None}

    def loss(self) -> Objective:
        """The recipe's loss."""
        return get_loss(self.job.recipe.loss)

    def inputs(self) -> Inputs:
        """The augmentation of Table 1, plus ours where the recipe says so."""
        recipe = self.job.recipe
        wanted = augmentation_for(
            self.store.spec, intensity=recipe.intensity_augmentation, affine=recipe.affine_augmentation
        )
        return patch_inputs(self.job.seed, wanted)

    def batches(self, subjects: Sequence[str], *, read: bool = True) -> "grain.DatasetIterator":
        """The endless stream of training batches, or of where their patches are."""
        from tlseg_jax.input.patches import InputSettings, make_batches

        job = self.job
        settings = InputSettings(job.recipe.batch_size, job.seed, job.threads, job.workers)
        return make_batches(self.store, subjects, self.box, settings, read=read)

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """The patches, or the volumes that they are drawn from, on the device."""
        from tlseg_jax.input.device_cache import cache_patches

        return cache_patches(self.store, subjects, self.box, room)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch, for counting FLOPs."""
        shape = (self.job.recipe.batch_size, *(self.box.size if self.box else self.store.spec.patch_size))
        return {"image": jax.ShapeDtypeStruct(shape, np.float16), "label": jax.ShapeDtypeStruct(shape, np.uint8)}

    def validator(self, subjects: Sequence[str]) -> Callable[[TrainState], float]:
        """state -> mean IoU over `subjects`, against their whole labels."""
        store = self.store

        def validate(state: TrainState) -> float:
            predictor = make_predictor(self.job.network, state.params, state.batch_stats)
            scores = []
            for s in subjects:
                found = predict_volume(store.image(s), store.spec, self.box, predictor) > THRESHOLD
                scores.append(score(found, store.label(s) > 0, store.grid(s).spacing).iou)
            return float(np.mean(scores))

        return validate

    def watch(self) -> Watch | None:
        """Nothing: the brain paper looks at no test loss while training."""
        return None
