"""What training asks of a prepared data set, whatever it holds."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings, Length
from tlseg_jax.train.patch_data import PatchData
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.slice_data import SliceData
from tlseg_jax.train.step import Inputs, Objective
from tlseg_jax.train.trainer import Watch

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

    from tlseg_jax.input.device_cache import DeviceCache
    from tlseg_jax.input.feature_cache import FeatureCache


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
            raise InputError(f"{store.where} holds slices and the network {job.network.name} is 3D: use unet2d.")
        return SliceData(store, job, pretrained.saved if pretrained else None)
    assert isinstance(store, Store)
    if job.network.dimensions != 3:
        raise InputError(f"{store.where} holds volumes and the network {job.network.name} is 2D: use a 3D one.")
    return PatchData(store, job)
