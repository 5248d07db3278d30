"""Slices whose structures exclude each other: from real label maps to codes, training, scores and label maps."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.evaluate.predict import predict_scan
from tlseg_jax.evaluate.results import evaluate_store
from tlseg_jax.input.augment import Augmentation, augment, augmentation_for
from tlseg_jax.input.slices import make_slice_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.preprocess.codes import UNMARKED, encode, mask_of
from tlseg_jax.preprocess.prepare_slices import prepare_slices
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.slice_resize import Axis, Resizer
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.train.usual import network_for

CHAOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "abdomen_mr_chaos"
SPEC = DatasetSpec(
    "organs",
    ("liver", "kidneys", "spleen"),
    PlaneGrid("MR", (256, 256), test_volumes=1),
    "organs",
    ((1,), (2, 3), (4,)),
    exclusive=True,
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people's scans, twelve slices each, with the label maps' own values."""
    if not CHAOS.exists():
        pytest.skip("no real scans here")
    folder = tmp_path_factory.mktemp("chaos")
    for n in (1, 2):
        for kind, name in (("image", "volume"), ("label", "segmentation")):
            nib.save(nib.load(CHAOS / f"{kind}_{n}.nii.gz").slicer[:, :, 12:24], folder / f"{name}-{n}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def store(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    return prepare_slices(SPEC, scans, tmp_path_factory.mktemp("store"), workers=1, progress=False)


def organs(scans: Path, subject: str) -> NDArray[np.uint8]:
    """(slices, x, y): the label map by nibabel, left to right, back to front and feet to head, as 0 to 3."""
    nii = nib.as_closest_canonical(nib.load(scans / f"segmentation-{subject}.nii.gz"))
    return np.array([0, 1, 2, 2, 3], np.uint8)[np.moveaxis(np.asarray(nii.dataobj).astype(int), -1, 0)]


def test_stored_codes_are_the_label_map_s_organs(store: SliceStore, scans: Path) -> None:
    assert store.subjects("test") == ("2",)
    for subject in store.subjects():
        truth = organs(scans, subject)
        np.testing.assert_array_equal(store.codes(subject), truth)
        record = store.record(subject)
        shown = [[(plane == i + 1).any() for i in range(3)] for plane in truth]
        assert [[bits >> i & 1 for i in range(3)] for bits in record["bits"]] == [[int(s) for s in p] for p in shown]
        for i, organ in enumerate(SPEC.structures):
            assert record["label_voxels"][organ] == [(plane == i + 1).sum() for plane in truth]
            np.testing.assert_array_equal(store.mask(subject, organ), truth == i + 1)


def test_a_softmax_over_the_organs_learns_them(store: SliceStore) -> None:
    """The network has an output more than there are organs, and its loss is scikit-learn's of those outputs."""
    metrics = pytest.importorskip("sklearn.metrics")
    network = network_for(SPEC, "unet2d", "float32")
    assert network.outputs == ("background", "liver", "kidneys", "spleen")
    data = TaskData(store, JobSettings(network, get_recipe("paper", "slices").override(batch_size=2), 2))
    batch = next(data.batches(("1",)))
    _, target = data.inputs()(batch, jnp.int32(0), 0)
    logits = np.random.default_rng(0).normal(size=(*target.shape, 4)).astype(np.float32)
    p = np.asarray(jax.nn.softmax(logits)).astype(np.float64)
    p /= p.sum(-1, keepdims=True)
    expected = metrics.log_loss(np.asarray(target).ravel(), p.reshape(-1, 4), labels=range(4))
    assert float(data.loss()(jnp.asarray(logits), target)) == pytest.approx(expected, rel=1e-5)


def test_each_organ_is_a_test_set_and_predict_writes_one_map(store: SliceStore, scans: Path) -> None:
    """A network that shifts the truth by a pixel, whose overlap NumPy knows, and that finds the right one whole."""
    truth = organs(scans, "2")
    by_image = {store.image("2", p).tobytes(): truth[p] for p in range(len(truth))}

    def network(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        codes = np.stack([np.roll(by_image[p.astype(np.float16).tobytes()], 1, 0) for p in planes])
        return np.stack([np.where(codes == i + 1, 0.4, 0.15) for i in range(3)], -1).astype(np.float32)

    results = evaluate_store(store, "test", SPEC, None, network, progress=False)
    assert list(results.rows) == ["liver", "kidneys", "spleen"]
    moved = np.roll(truth, 1, 1)
    for i, (organ, (row,)) in enumerate(results.rows.items()):
        ours, theirs = moved == i + 1, truth == i + 1
        assert row.test_set == f"organs_{organ}"
        assert row.score.iou == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
    made = predict_scan(ScanFiles("2", scans / "volume-2.nii.gz"), SPEC, None, None, network)
    ours = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(made.label, made.affine)).dataobj)
    np.testing.assert_array_equal(np.moveaxis(ours, -1, 0), moved)


def test_where_nobody_looked_nothing_is_learnt_or_scored(scans: Path, tmp_path: Path) -> None:
    spec = SPEC.changed(unmarked_value=4, structures=("liver", "kidneys"), label_values=((1,), (2, 3)), name="part")
    store = prepare_slices(spec, scans, tmp_path, workers=1, progress=False)
    truth = organs(scans, "2")
    codes = store.codes("2")
    np.testing.assert_array_equal(codes == UNMARKED, truth == 3)
    assert (
        store.partial and next(make_slice_batches(store, ("1",), InputSettings(2)))["marked"].tolist() == [[1, 1]] * 2
    )
    everything = np.zeros((*truth.shape, 2), np.float32)

    def liver_everywhere(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        return everything[: len(planes)] + np.float32([0.9, 0])

    results = evaluate_store(store, "test", spec, None, liver_everywhere, progress=False)
    (row,) = results.rows["liver"]
    assert row.score.iou == pytest.approx((truth == 1).sum() / (truth != 3).sum())


@pytest.mark.parametrize("unmarked", [False, True])
def test_resized_codes_are_each_structure_s_by_itself(unmarked: bool) -> None:
    rng = np.random.default_rng(1)
    codes = np.kron(rng.integers(0, 4, (8, 8)), np.ones((5, 5))).astype(np.uint8)
    if unmarked:
        codes[:10, :10] = UNMARKED
    axes = (Axis(40, 27, 40 / 27, 0.24), Axis(40, 27, 40 / 27, 0.24))
    found = Resizer(axes).label(codes, 3, True, unmarked)
    for i in range(3):  # against bits, one structure at a time: a pixel half of which two have is the last one's
        alone = Resizer(axes).label(encode([codes == i + 1], False), 1) == 1
        later = [Resizer(axes).label(encode([codes == k], False), 1) == 1 for k in range(i + 2, 4)]
        np.testing.assert_array_equal(mask_of(found, i, True), alone & ~np.any([np.zeros_like(alone), *later], 0))
    assert (found == UNMARKED).any() == unmarked


def test_slices_are_augmented_where_that_is_asked_for() -> None:
    """A plane is mirrored with its codes, turned as one, and both channels get the same field."""
    spec = SPEC.changed(structures=("kidney_left", "kidney_right"), label_values=((2,), (3,)), flip_left_right=True)
    wanted = augmentation_for(spec, intensity=False, affine=False)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(24, 20, 3)), jnp.float32)
    codes = jnp.zeros((24, 20), jnp.uint8).at[3:9, 4:9].set(1).at[15:21, 4:9].set(2)
    forms = {}
    for key in jax.random.split(jax.random.key(0), 8):
        seen, label = augment(key, image, codes, wanted)
        mirrored = bool((seen == image[::-1]).all())
        assert mirrored or bool((seen == image).all())
        forms[mirrored] = np.asarray(label)
    np.testing.assert_array_equal(forms[False], codes)
    np.testing.assert_array_equal(forms[True], np.array([0, 2, 1], np.uint8)[np.asarray(codes)[::-1]])
    turned, label = augment(
        jax.random.key(3),
        jnp.repeat(codes[..., None].astype(jnp.float32), 3, -1),
        codes,
        Augmentation(affine=True, one_structure=False),
    )
    assert (np.asarray(label) != np.asarray(codes)).any() and set(np.unique(label)) == {0, 1, 2}
    # Where a channel keeps its value after linear interpolation, so does the nearest code; all channels move alike.
    whole = np.isclose(turned[..., 0], np.round(turned[..., 0]), atol=1e-6) & np.isin(turned[..., 0], (0, 2))
    assert (np.asarray(label)[whole] == np.asarray(turned[..., 0])[whole]).mean() > 0.95
    np.testing.assert_array_equal(turned[..., 0], turned[..., 2])
    flat, _ = augment(jax.random.key(1), jnp.ones((24, 20, 3)), codes, Augmentation(intensity=True))
    assert np.asarray(flat).std() > 0
