"""Label maps without scans: placed by their structures, kept with all they hold, and trained on like a data set."""

import dataclasses
import shutil
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest

from tests.input.label_heads import CAUDATE, VALUES, write_heads
from tests.input.test_device_cache import AMPLE, assert_same_stream
from tlseg_jax.datasets.label_names import PRESETS
from tlseg_jax.datasets.lookup import changed_spec, get_spec
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.geometry import Box
from tlseg_jax.input.device_cache import cache_patches
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.input.synthesis.maps import Maps
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.join import join_stores
from tlseg_jax.preprocess.layouts.maps import find_maps
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.steps.centres import CENTRES, register_map
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.execution import Cache, Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

MAPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "brain_labelmaps"
pytestmark = pytest.mark.usefixtures("quick_compile")
SETTINGS = PrepareSettings(from_labels=True)
SPEC = DatasetSpec(
    "drawn",
    ("caudate_left", "caudate_right"),
    VolumeGrid("native", (24, 24, 24), (2.0, 2.0, 2.0), (16, 16, 16), train_count=3, test_count=1),
    "maps",
    ((CAUDATE[0],), (CAUDATE[1],)),
)


def prepare(source: Path, root: Path, spec: DatasetSpec = SPEC, **given: object) -> Store:
    options = {"settings": SETTINGS, "workers": 1, "progress": False} | given
    return prepare_dataset(spec, source, root, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("maps")
    return prepare(write_heads(folder / "source"), folder / "store")


def test_every_value_of_a_map_is_kept_where_it_was(drawn: Store) -> None:
    assert drawn.map_factor == (2, 2, 2) and drawn.subjects("train") == ("seg_0", "seg_1", "seg_2")
    for subject in drawn.subjects():
        record, grid = drawn.record(subject), drawn.grid(subject)
        assert set(record["class_values"]) == VALUES
        classes = drawn.classes(subject)
        assert classes.shape == (48, 48, 48)
        assert np.bincount(classes.ravel()).tolist() == record["class_voxels"]
        file = nib.load(record["image"])
        values = np.asarray(file.dataobj)
        # The middle of a fine voxel: a quarter of the coarse one's side to either side of its middle.
        rng = np.random.default_rng(0)
        coarse, half = rng.integers(6, 18, (500, 3)), rng.integers(0, 2, (500, 3))
        world = np.c_[coarse + (half - 0.5) / 2, np.ones(500)] @ grid.affine.T
        at = np.linalg.solve(file.affine, world.T)[:3]
        clear = (abs(at - np.floor(at) - 0.5) > 0.01).all(0)  # not half way between two of the file's voxels
        x, y, z = np.round(at).astype(int)[:, clear]
        found = np.array(record["class_values"])[classes[tuple((2 * coarse + half)[clear].T)]]
        assert clear.sum() > 200
        np.testing.assert_array_equal(found, values[x, y, z])


def test_labels_are_the_codes_of_the_classes(drawn: Store) -> None:
    for subject in drawn.subjects():
        values = np.array(drawn.record(subject)["class_values"])[drawn.classes(subject)]
        for code, value in enumerate(CAUDATE, 1):
            share = (values == value).reshape(24, 2, 24, 2, 24, 2).mean((1, 3, 5))
            label = drawn.label(subject) == code
            assert label.sum() > 10 and ((share >= 0.5) == label).mean() > 0.995
            ml = drawn.record(subject)["label_ml"][SPEC.structures[code - 1]]
            assert ml == pytest.approx(
                (np.asarray(nib.load(drawn.record(subject)["image"]).dataobj) == value).sum() / 1e3
            )


def test_a_second_call_prepares_nothing_and_scans_are_another_data_set(tmp_path: Path, said: list[str]) -> None:
    source = write_heads(tmp_path / "source", 2)
    prepare(source, tmp_path / "store")
    prepare(source, tmp_path / "store")
    assert "2 reused, 0 prepared" in said[-1]
    for i in range(2):
        shutil.copy(source / f"seg_{i}.nii.gz", source / f"{i}_T1w.nii.gz")
    with pytest.raises(InputError, match="from_labels was True and is now None"):
        prepare(source, tmp_path / "store", settings=PrepareSettings())


def test_maps_are_found_alone_or_beside_scans(tmp_path: Path) -> None:
    source = write_heads(tmp_path / "alone", 2)
    assert [f.subject for f in find_maps(source).scans] == ["seg_0", "seg_1"]
    for i in range(2):
        (source / f"seg_{i}.nii.gz").rename(source / f"sub-{i}_labels.nii.gz")
        if i:
            (source / f"sub-{i}_T1w.nii.gz").write_bytes(b"a scan that nobody opens")
    found = find_maps(source)
    assert [f.subject for f in found.scans] == ["sub-1"] and [e.subject for e in found.exclusions] == ["sub-0"]
    assert found.scans[0].image == found.scans[0].label == source / "sub-1_labels.nii.gz"


def test_maps_of_persons_who_are_for_test_take_no_part(tmp_path: Path) -> None:
    source = write_heads(tmp_path / "source", 3)
    rows = [f"{i},seg_{i}.nii.gz,{'test' if i == 1 else 'train'}" for i in range(3)]
    (source / "list.csv").write_text("\n".join(["subject,image,split", *rows]))
    store = prepare(source, tmp_path / "store")
    assert store.subjects("train") == ("0", "2") and store.subjects("test") == ()
    (source / "list.csv").unlink()
    for i in range(3):
        (source / f"seg_{i}.nii.gz").rename(source / f"{i}.nii.gz")
    later = prepare(source, tmp_path / "store", dataclasses.replace(SPEC, name="later"))  # of the same split_group
    assert later.subjects("train") == ("0", "2") and later.subjects("test") == ()


def turned(degrees: tuple[float, float, float], scale: float, shift: float) -> np.ndarray:
    x, y, z = np.deg2rad(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rx @ ry @ rz * scale, shift
    return out


def dots(mni_to_world: np.ndarray, affine: np.ndarray, table: str, leave_out: int = 0) -> np.ndarray:
    """A map with a small cube at where each structure's centre comes to lie."""
    values = np.zeros((140, 140, 140), np.int32)
    for name, centre in list(CENTRES.items())[leave_out:]:
        of = PRESETS[table].get(name) or {"cerebral_cortex_left": (101,), "cerebral_cortex_right": (100,)}[name]
        x, y, z = np.round(np.linalg.solve(affine, mni_to_world @ [*centre, 1.0])[:3]).astype(int)
        cube = values[x - 2 : x + 2, y - 2 : y + 2, z - 2 : z + 2]
        cube[cube == 0] = of[0]
    return values


@pytest.mark.parametrize("table", ["freesurfer", "neuromorphometrics"])
def test_the_affine_that_moved_the_structures_is_found(table: str) -> None:
    affine = np.array([[-1.0, 0, 0, 70], [0, 0, 1.0, -90], [0, -1.0, 0, 70], [0, 0, 0, 1]])
    truth = turned((8, -5, 12), 0.9, 4.0)
    found, figures = register_map(dots(truth, affine, table), affine)
    corners = np.array([[x, y, z, 1.0] for x in (-60, 60) for y in (-90, 60) for z in (-50, 70)])
    assert abs((corners @ (found - truth).T)[:, :3]).max() < 3.0
    assert figures["structures"] == len(CENTRES) and figures["rms_mm"] < 1.5


def test_a_map_that_is_no_whole_head_is_refused() -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -70
    values = dots(np.eye(4), affine, "freesurfer")
    few = np.where(np.isin(values, (10, 49, 11, 50)), values, 0)
    with pytest.raises(ExclusionError, match="only 4 of 25 structures"):
        register_map(few, affine, "a.nii")
    with pytest.raises(ExclusionError, match="only 0 of 25 structures"):
        register_map((values > 0).astype(np.int32), affine)
    with pytest.raises(ExclusionError, match="left and right are exchanged"):
        register_map(values, np.diag([-1.0, 1, 1, 1]) @ affine)
    shuffled = np.zeros_like(values)
    there = np.unique(values)[1:]
    for old, new in zip(there, np.random.default_rng(0).permutation(there), strict=True):
        shuffled[values == old] = new
    with pytest.raises(ExclusionError, match="could not be placed"):
        register_map(shuffled, affine)


def test_what_drawn_data_cannot_do_is_said(drawn: Store, tmp_path: Path, tiny_network: UNetConfig) -> None:
    source = write_heads(tmp_path / "source", 1)
    with pytest.raises(InputError, match="nothing to test on"):
        prepare(source, tmp_path / "store", test_fraction=0.5)
    with pytest.raises(InputError, match="give `spacing`"):
        prepare(source, tmp_path / "store", SPEC.changed(spacing=None))
    with pytest.raises(InputError, match="holds label maps and no scans"):
        drawn.image("seg_0")
    with pytest.raises(InputError, match="holds label maps and no scans"):
        join_stores(["drawn", "drawn2"], "both", _twice(drawn, tmp_path / "two"))
    network = dataclasses.replace(tiny_network, outputs=SPEC.outputs)
    job = JobSettings(network, get_recipe("default"), steps=2, validation=1)
    with pytest.raises(InputError, match="holds label maps and no scans"):
        train_job(drawn, job, tmp_path / "run", progress=False)


def _twice(store: Store, root: Path) -> Path:
    root.mkdir()
    for name in ("drawn", "drawn2"):
        (root / name).symlink_to(store.folder, target_is_directory=True)
    return root


@pytest.mark.parametrize("box", [None, Box((4, 3, -2), (8, 16, 8))])
def test_cached_maps_are_those_of_the_stream(box: Box | None, drawn: Store) -> None:
    store = drawn.with_manifest(drawn.manifest | {"spec": drawn.manifest["spec"] | {"patch_size": [8, 16, 32]}})
    maps = Maps(store, box.size if box else (8, 16, 32))
    subjects, settings = store.subjects("train"), InputSettings(2, seed=2)
    if box is None:
        store.spec = store.spec.changed(random_patch=True)
    cache = cache_patches(store, subjects, box, AMPLE, maps)
    streams = (make_batches(store, subjects, box, settings, maps=maps, read=read) for read in (False, True))
    assert_same_stream(cache, *streams, count=4)


@pytest.mark.slow
def test_a_network_trains_on_drawn_images_alike_wherever_the_maps_lie(
    drawn: Store, tmp_path: Path, tiny_network: UNetConfig
) -> None:
    network = dataclasses.replace(tiny_network, outputs=SPEC.outputs)
    plain = get_recipe("default").override(
        intensity_augmentation=False, affine_augmentation=False, elastic_augmentation=0.0
    )
    job = JobSettings(network, plain, steps=3)
    weights = []
    caches: tuple[Cache, ...] = ("none", "device")
    for cache in caches:
        (tmp_path / cache).mkdir()
        execution = Execution(cache=cache)
        fit = train_job(drawn, job, tmp_path / cache, execution=execution, progress=False)
        weights.append(jax.tree.leaves(fit.state.params))
        assert int(fit.state.step) == 3 and all(np.isfinite(w).all() for w in weights[-1])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.skipif(not MAPS.exists(), reason="the label maps of SynthSeg are not here")
def test_a_real_head_comes_to_lie_in_mni305(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "seg_20.nii.gz").symlink_to(MAPS / "seg_20.nii.gz")
    spec = changed_spec(get_spec("hdt_c").at_spacing(2), {"name": "heads"}, "freesurfer:caudate,hippocampus", "")
    store = prepare(tmp_path / "source", tmp_path / "store", spec)
    record = store.record("seg_20")
    assert record["details"]["registration"]["rms_mm"] < 2.0
    assert store.classes("seg_20").shape == (172, 220, 156)
    assert 400 < record["label_voxels"]["caudate"] * 0.5 < 900  # 8 mm3 each; the atlas's heads are larger than most
    label, affine = store.label("seg_20"), store.grid("seg_20").affine
    for code, name in ((1, "caudate"), (2, "hippocampus")):
        centre = affine[:3] @ [*np.argwhere(label == code).mean(0), 1.0]
        expected = np.mean([CENTRES[f"{name}_left"], CENTRES[f"{name}_right"]], 0)
        assert np.linalg.norm(centre - expected) < 6
