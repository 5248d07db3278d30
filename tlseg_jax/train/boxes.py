"""Boxes of volumes as training samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlseg_jax.geometry import Box
from tlseg_jax.input.augment import Augmentation
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.step import Objective
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.stream import InputSettings


class Boxes:
    """What `TaskData` asks of volumes.

    Attributes:
      channels: () or (channels,) of its image.
      box: the fixed box of every sample; None: there is none.
      random_patch: whether samples are boxes at random places.
      regions: whether batches have a region that the loss is restricted to.
    """

    regions = False

    def __init__(self, store: Store, job: JobSettings) -> None:
        """Take `store` for a run of `job`. Raises InputError: it has no patch to train on."""
        from tlseg_jax.input.patches import training_box
        from tlseg_jax.input.synthesis.maps import Maps
        from tlseg_jax.train.synthetic import mixed_maps

        self.store, self.job, self.box = store, job, training_box(store)
        self.sides = self.box.size if self.box else store.spec.volumes.patch_size
        self.channels: tuple[int, ...] = ()
        self.random_patch = self.box is None
        self.maps = Maps(store, self.sides) if store.map_factor else None
        self.mixed = mixed_maps(store, job.recipe) if job.recipe.mix_synthetic else None

    def length(self, subjects: Sequence[str]) -> Length:
        """How long the run is."""
        del subjects
        return Length(self.job.steps or self.job.recipe.finetune_steps)

    def settings_lines(self, subjects: Sequence[str]) -> dict[str, str]:
        """See `TaskData`."""
        spec, box = self.store.spec, self.box
        size = "x".join(map(str, self.sides))
        lines = {
            "data": f"{self.store.where} ({spec.shown}, {spec.volumes.space} space)",
            "patch": f"{size} voxels, " + ("at random places" if box is None else f"from voxel {box.start}"),
        }
        if self.maps:
            lines["images"] = "drawn from label maps at each step, in place of augmentation"
        if self.mixed:
            of, count = self.mixed.maps.store.where, len(self.mixed.subjects)
            lines["images"] = f"{self.mixed.share:.0%} of the samples are drawn from {count} label maps of {of}"
        return lines

    def batches(
        self, subjects: Sequence[str], settings: "InputSettings", *, read: bool = True
    ) -> "grain.DatasetIterator":
        """See `TaskData`."""
        from tlseg_jax.input.patches import make_batches

        return make_batches(self.store, subjects, self.box, settings, maps=self.maps, mixed=self.mixed, read=read)

    def cache(self, subjects: Sequence[str], room: int) -> "DeviceCache":
        """The patches, or the volumes that they are drawn from, on the device, which has `room` bytes for them."""
        from tlseg_jax.input.device_cache import cache_patches

        return cache_patches(self.store, subjects, self.box, room, self.maps, self.mixed)

    def cache_bytes(self, subjects: Sequence[str]) -> int:
        """What `cache` would take."""
        from tlseg_jax.input.device_cache import patch_bytes

        boxes = [self.box or Box((0, 0, 0), self.store.grid(s).shape) for s in subjects]
        return patch_bytes(boxes, self.maps, self.mixed)

    def rows(self, subjects: Sequence[str], changes: Augmentation) -> int:
        """Samples of these subjects whose features would be kept."""
        return len(subjects) * (2 if changes.flip_left_right else 1)

    def feature_cache(
        self, subjects: Sequence[str], variables: Any, levels: int, changes: Augmentation, room: int
    ) -> "DeviceCache":
        """See `TaskData`: of the patches and their mirror images."""
        from tlseg_jax.input.feature_cache import cache_features

        assert self.box is not None
        network = self.job.network
        return cache_features(self.store, subjects, self.box, network, variables, levels, changes, room)

    def watch(self, loss: Objective) -> Watch | None:
        """Nothing: the brain paper looks at no test loss while training."""
        del loss
        return None
