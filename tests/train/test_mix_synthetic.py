"""Drawn samples among those of scans: how many, which, how labelled, and that the others stay what they were."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import blob, he_variables
from tests.input.label_heads import CAUDATE, VENTRICLE, write_heads
from tests.input.test_device_cache import AMPLE, assert_same_stream
from tests.preprocess.test_from_labels import SPEC, prepare
from tests.train.power_cut import power_cut
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.input.augment import Augmentation, augment_batch
from tlseg_jax.input.device_cache import cache_patches
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.input.synthesis.draw import draw_batch
from tlseg_jax.input.synthesis.mixing import Mixed, labels_of
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder, write_json
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train import run as run_module
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import Recipe, get_recipe
from tlseg_jax.train.run import prepare_run
from tlseg_jax.train.step import Mixing, batch_inputs
from tlseg_jax.train.synthetic import mixed_maps, mixed_store
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.train.together import fit_together

pytestmark = pytest.mark.usefixtures("quick_compile")

SHARE = 0.3
RECIPE = get_recipe("default").override(
    mix_synthetic=SHARE, synthetic="drawn", intensity_augmentation=False, affine_augmentation=False
)


def write_scans(folder: Path, maps: Store, **changes: Any) -> Store:
    """Four scans to train on and two to test on, on the grid of `maps`, and of a patch elsewhere than theirs."""
    record = maps.record("seg_0")
    records = {}
    for i in range(6):
        image, label = blob(i, record["shape"][0])
        write_subject(folder / "subjects" / f"sub-{i}.zarr", image, label)
        records[f"sub-{i}"] = {k: v for k, v in record.items() if not k.startswith("class_")} | {
            "split": "train" if i < 4 else "test",
            "person": f"person-{i}",
            "fingerprint": f"f{i}",
            "image_sha256": f"sha{i}",
            "image_voxels": f"voxels{i}",
            "label_ml": {"caudate": float(label.sum()) / 1000},
            "label_voxels": {"caudate": int(label.sum())},
        }
    spec = maps.manifest["spec"] | {"name": "scans", "structures": ["caudate"], "label_values": [[1]]} | changes
    manifest = {k: v for k, v in maps.manifest.items() if k != "map_factor"}
    manifest |= {"spec": spec, "subjects": records, "patch_box": {"start": [3, 4, 5], "size": [16, 16, 16]}}
    write_json(folder / "manifest.json", manifest)
    return Store(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    maps = prepare(write_heads(folder / "source"), folder / "store")
    write_scans(folder / "store" / "scans", maps)
    return folder / "store"


@pytest.fixture(scope="module")
def scans(root: Path) -> Store:
    return Store(root / "scans")


@pytest.fixture(scope="module")
def mixed(scans: Store) -> Mixed:
    found = mixed_maps(scans, RECIPE)
    assert found is not None
    return found


def test_a_structure_without_a_side_is_both_of_the_maps_and_boxes_are_the_scans(scans: Store, mixed: Mixed) -> None:
    table = mixed.maps.synthesis.table
    assert {v for v, code in zip(table.values, table.codes, strict=True) if code == 1} == set(CAUDATE)
    assert mixed.box == scans.patch_box != mixed.maps.store.patch_box
    (m, *_), sample = mixed.maps.synthesis.margin, mixed.sample(1, drawn=True)
    whole = mixed.maps.store.label("seg_1", mixed.box) > 0
    caudate = np.isin(sample["classes"][m:-m, m:-m, m:-m], [i for i, code in enumerate(table.codes) if code])
    blocks = caudate.reshape(16, 2, 16, 2, 16, 2).mean((1, 3, 5))
    assert whole.any() and np.mean((blocks >= 0.5) == whole) > 0.995
    nothing = mixed.sample(1, drawn=False)
    assert {k: v.shape for k, v in nothing.items()} == {k: v.shape for k, v in sample.items()}


def test_the_share_is_drawn_by_place_in_the_stream_and_the_rest_is_as_without(scans: Store, mixed: Mixed) -> None:
    subjects, settings = scans.subjects("train"), InputSettings(2, seed=3)
    given = make_batches(scans, subjects, mixed.box, settings, mixed=mixed, read=False)
    usual = make_batches(scans, subjects, mixed.box, settings, read=False)
    picks, plain = [next(given) for _ in range(1000)], [next(usual) for _ in range(1000)]
    assert set(plain[0]) == {"index", "start"}
    for a, b in zip(picks, plain, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["start"], b["start"])
    drawn, numbers = (np.concatenate([p[k] for p in picks]) for k in ("drawn", "map"))
    assert drawn.dtype == bool and abs(drawn.mean() - SHARE) < 4 * (SHARE * (1 - SHARE) / 2000) ** 0.5
    assert np.all(np.abs(np.bincount(numbers[drawn]) / drawn.sum() - 1 / 3) < 0.1)
    for _ in range(3):
        next(given)
    again = make_batches(scans, subjects, mixed.box, settings, mixed=mixed, read=False)
    again.set_state(given.get_state())
    for _ in range(20):
        a, b = next(given), next(again)
        assert all(np.array_equal(a[k], b[k]) for k in a)


def test_the_cache_gathers_what_the_stream_reads(scans: Store, mixed: Mixed) -> None:
    """But for the maps of samples that are read, of which nothing is used."""
    subjects, settings = scans.subjects("train"), InputSettings(2, seed=2)
    whole = dataclasses.replace(mixed, share=1.0)
    cache = cache_patches(scans, subjects, mixed.box, AMPLE, mixed=whole)
    picks, batches = (
        make_batches(scans, subjects, mixed.box, settings, mixed=whole, read=read) for read in (False, True)
    )
    assert_same_stream(cache, picks, batches, count=4)
    assert cache.arrays["map_classes"].nbytes == mixed.nbytes
    assert TaskData(scans, job(tiny(), RECIPE)).sampler.cache_bytes(subjects) >= mixed.nbytes


def tiny() -> UNetConfig:
    return UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate", ("background", "caudate"))


def job(network: UNetConfig, recipe: Recipe, **given: Any) -> JobSettings:
    return JobSettings(network, recipe, 4, checkpoint_every=2, **given)


def test_each_sample_is_what_it_would_be_alone(mixed: Mixed) -> None:
    """Drawn ones as where all are drawn, read ones as where none is; their keys are those of their places."""
    synthesis, flip = mixed.maps.synthesis, Augmentation(flip_left_right=True)
    samples = [mixed.sample(i % 3, drawn=True) for i in range(4)]
    images, labels = zip(*(blob(i) for i in range(4)), strict=True)
    batch: dict[str, Any] = {k: np.stack([s[k] for s in samples]) for k in ("classes", "shares")}
    batch |= {"image": np.stack(images).astype(np.float16), "label": np.stack(labels)}
    batch["drawn"] = np.array([True, False, False, True])
    marked = np.zeros((4, 1), np.uint8)
    take = jax.jit(batch_inputs(flip, mixing=Mixing(synthesis, flip)))
    image, target = take(batch | {"marked": marked}, jnp.int32(3), jnp.uint32(7))
    read = augment_batch(jnp.asarray(batch["image"], jnp.float32), jnp.asarray(batch["label"]), 7, 3, flip)
    made = jax.jit(lambda c, s: augment_batch(*draw_batch(c, s, 7, 3, synthesis), 7, 3, flip))(
        batch["classes"], batch["shares"]
    )
    for i, drawn in enumerate(batch["drawn"]):
        expected = made if drawn else read
        np.testing.assert_allclose(image[i, ..., 0], expected[0][i], atol=1e-4)
        assert np.mean(np.asarray(target["label"][i]) == np.asarray(expected[1][i])) > 0.999
    np.testing.assert_array_equal(target["marked"][:, 0], batch["drawn"])


@pytest.mark.slow
def test_a_run_that_mixes_goes_on_to_the_same_bits(
    scans: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    programs, asked = Programs(), job(tiny(), RECIPE.override(mix_synthetic=0.6))

    def train(name: str) -> Any:
        with lock_folder(tmp_path / name):
            return train_job(scans, asked, tmp_path / name, programs=programs, progress=False)

    whole = train("whole").state
    with power_cut(2, monkeypatch):
        train("cut")
    assert load_model(tmp_path / "cut").step == 2
    jax.tree.map(np.testing.assert_array_equal, train("cut").state, whole)
    seen = load_model(tmp_path / "whole").description["seen_persons"]
    assert {"maps:seg_0", "maps:person-0"} <= set(seen) and "maps:person-4" not in seen


@pytest.mark.slow
def test_runs_at_once_mix_as_alone(scans: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    programs, asked = Programs(), job(tiny(), RECIPE.override(mix_synthetic=0.6))
    short = [dataclasses.replace(asked, steps=2, seed=seed) for seed in (0, 1)]
    runs = [prepare_run(scans, j, tmp_path / f"t{j.seed}", programs=programs) for j in short]
    assert fit_together(runs, programs) == [None, None]
    (tmp_path / "alone").mkdir()
    alone = train_job(scans, short[1], tmp_path / "alone", programs=programs, progress=False)
    found = load_model(tmp_path / "t1").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found, alone.state.params)


def test_what_a_run_is_names_its_maps_by_their_data(scans: Store, root: Path) -> None:
    usual = run_settings(scans, job(tiny(), RECIPE.override(mix_synthetic=0.0)), None)
    named = run_settings(scans, job(tiny(), RECIPE), None)
    placed = run_settings(scans, job(tiny(), RECIPE.override(synthetic=str(root / "drawn"))), None)
    assert "synthetic" not in usual["data"]
    assert named["data"]["synthetic"] == placed["data"]["synthetic"]
    assert named["data"]["store"] == usual["data"]["store"]


def test_maps_of_persons_who_test_take_no_part(root: Path, tmp_path: Path) -> None:
    maps = Store(root / "drawn")
    persons = {"sub-4": "seg_0", "sub-5": "seg_2"}
    scans = write_scans(root / "shared", maps)
    records = {s: r | {"person": persons.get(s, r["person"])} for s, r in scans.manifest["subjects"].items()}
    write_json(scans.folder / "manifest.json", scans.manifest | {"subjects": records})
    found = mixed_store(Store(scans.folder), RECIPE)
    assert found is not None and found[1] == ("seg_1",)


def test_what_cannot_be_mixed_is_said(scans: Store, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`synthetic=brain_maps`, which is not in .*from_labels"):
        mixed_store(scans, RECIPE.override(synthetic="brain_maps"))
    with pytest.raises(InputError, match=r"`synthetic=scans` names .*, which holds no label maps"):
        mixed_store(scans, RECIPE.override(synthetic="scans"))
    slices = SliceStore.__new__(SliceStore)
    slices.where = "planes"
    with pytest.raises(InputError, match=r"are volumes, and .* holds slices"):
        mixed_store(slices, RECIPE)
    with pytest.raises(InputError, match=r"all images of .* are drawn"):
        mixed_store(Store(root / "drawn"), RECIPE)
    with pytest.raises(InputError, match=r"needs one fixed patch"):
        other = scans.with_manifest(scans.manifest | {"spec": scans.manifest["spec"] | {"random_patch": True}})
        mixed_store(other, RECIPE)
    with pytest.raises(InputError, match=r"no name for, putamen, cannot be drawn"):
        labels_of(dataclasses.replace(scans.spec, structures=("putamen",)), SPEC, "here")
    with pytest.raises(InputError, match=r"Features cannot be kept, as each step draws"):
        frozen = job(tiny(), RECIPE, freeze="encoder")
        prepare_run(scans, frozen, tmp_path, execution=Execution(cache="features"))
    records = {s: r | {"affine": np.diag([3.0, 2, 2, 1]).tolist()} for s, r in scans.manifest["subjects"].items()}
    with pytest.raises(InputError, match=r"are not on one grid .* same `space`, `spacing`"):
        mixed_store(scans.with_manifest(scans.manifest | {"subjects": records}), RECIPE)


def test_values_are_taken_by_name_and_side() -> None:
    maps = dataclasses.replace(
        SPEC, structures=("caudate_left", "caudate_right", "ventricle"), label_values=((11,), (50,), VENTRICLE)
    )
    scans = dataclasses.replace(SPEC, structures=("ventricle", "caudate"), label_values=((1,), (2,)))
    assert labels_of(scans, maps, "here").values == (VENTRICLE, (11, 50))
