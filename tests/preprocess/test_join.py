"""Data sets that mark different structures become one: whose voxels, whose marks, whose side of the split."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.slices import write_slice_store
from tests.preprocess.test_prepare import SETTINGS, SPEC, write_scan
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.results import evaluate_store
from tlseg_jax.input.patches import make_batches
from tlseg_jax.input.stream import InputSettings
from tlseg_jax.preprocess.join import join_stores, joined_spec
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

LEFT = SPEC.changed(name="left", structures=("ball",), label_values=((7,),))
RIGHT = SPEC.changed(name="right", structures=("cube",), label_values=((7,),), patch_size=(8, 24, 8))


def prepare(
    root: Path, spec: DatasetSpec, seeds: range, centre: int, settings: PrepareSettings = SETTINGS, **given: object
) -> Store:
    """A data set of drawn heads, sub-0 and so on, whose images are told apart by their seeds."""
    source = root / f"source_{spec.name}"
    source.mkdir()
    for i, seed in enumerate(seeds):
        write_scan(source, f"sub-{i}", centre, seed=seed)
    return prepare_dataset(spec, source, root, settings, workers=1, progress=False, **given)  # type: ignore[arg-type]


def test_other_persons_keep_their_scans_and_mark_what_they_marked(tmp_path: Path) -> None:
    left = prepare(tmp_path, LEFT, range(4), 10)
    right = prepare(tmp_path, RIGHT, range(4, 8), 15)
    joined = join_stores(["left", "right"], "both", tmp_path, progress=False)
    assert isinstance(joined, Store) and joined.spec.structures == ("ball", "cube")
    # One value cannot be both structures' in a prediction.
    assert joined.spec.label_values == ((1,), (2,)) and joined.spec.volumes.patch_size == (16, 24, 16)
    for store, before, code in ((left, "", 1), (right, "right-", 2)):
        for subject in store.subjects():
            new = f"{before}{subject}"
            np.testing.assert_array_equal(joined.image(new), store.image(subject))
            np.testing.assert_array_equal(joined.label(new), store.label(subject) * code)
            assert joined.record(new)["split"] == store.record(subject)["split"]
            assert joined.marked(new) == store.spec.structures
            assert joined.label_ml(new, joined.marked(new)[0]) == store.label_ml(subject, store.spec.structures[0])
    assert joined.partial and len(set(joined.persons.values())) == 8
    # Balls are about voxel 10 and cubes about 15: the patch is about both, whoever has more scans.
    assert joined.patch_box and joined.patch_box.start[0] + 7.5 == pytest.approx(12.5, abs=0.5)


def test_training_and_scores_know_who_marked_what(tmp_path: Path) -> None:
    prepare(tmp_path, LEFT, range(4), 10)
    prepare(tmp_path, RIGHT, range(4, 8), 15)
    joined = join_stores(["left", "right"], "both", tmp_path, progress=False)
    assert isinstance(joined, Store) and joined.patch_box
    train = joined.subjects("train")
    batch = next(iter(make_batches(joined, train, joined.patch_box, InputSettings(6))))
    for index, marked, label in zip(batch["index"], batch["marked"], batch["label"], strict=True):
        assert marked.sum() == 1 and marked.tolist() == joined.marks(train[int(index)]).tolist()
        assert set(np.unique(label)) == {0, 2 - int(marked[0])}

    def nothing(patches: np.ndarray) -> np.ndarray:
        return np.zeros((*patches.shape[:4], 2), np.float32)

    rows = evaluate_store(joined, "test", joined.spec, joined.patch_box, nothing, progress=False).rows
    assert [len(rows[s]) for s in ("ball", "cube")] == [1, 1]


def test_one_scan_of_two_data_sets_is_one_subject_that_marks_both(tmp_path: Path) -> None:
    left = prepare(tmp_path, LEFT, range(4), 9)
    right = prepare(tmp_path, RIGHT, range(4), 15)  # the same heads
    joined = join_stores(["left", "right"], "both", tmp_path, progress=False)
    assert isinstance(joined, Store) and joined.subjects() == left.subjects() and not joined.partial
    for subject in joined.subjects():
        ball, cube = left.label(subject) > 0, right.label(subject) > 0
        np.testing.assert_array_equal(joined.label(subject), np.where(ball, 1, np.where(cube, 2, 0)))
        record = joined.record(subject)
        start = np.argwhere(ball | cube).min(0)
        assert record["label_box"]["start"] == start.tolist()
        np.testing.assert_allclose(record["centre_of_mass"], np.argwhere(ball | cube).mean(0))
    assert not any("equal voxels" in w for w in joined.manifest["warnings"])


def test_a_person_cannot_train_and_be_tested(tmp_path: Path) -> None:
    prepare(tmp_path, LEFT, range(4), 9, test_fraction=0)
    prepare(tmp_path, RIGHT.changed(split_group="other"), range(4), 15, test_fraction=0.5)
    with pytest.raises(InputError, match=r"trains in one data set and is for test in another .*split_group"):
        join_stores(["left", "right"], "both", tmp_path, progress=False)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("spec", "settings", "fault"),
    [
        (RIGHT.changed(normalise="mask"), SETTINGS, "normalise is 'volume' and 'mask'"),
        (RIGHT, dataclasses.replace(SETTINGS, order=3), "order is 1 and 3"),
    ],
)
def test_what_was_prepared_otherwise_is_not_joined(
    spec: DatasetSpec, settings: PrepareSettings, fault: str, tmp_path: Path
) -> None:
    prepare(tmp_path, LEFT, range(4), 9)
    prepare(tmp_path, spec, range(4, 8), 15, settings)
    with pytest.raises(InputError, match=f"left and right cannot be joined .*{fault}"):
        join_stores(["left", "right"], "both", tmp_path, progress=False)


def test_another_data_set_of_the_name_is_kept(tmp_path: Path) -> None:
    prepare(tmp_path, LEFT, range(4), 9)
    prepare(tmp_path, RIGHT, range(4, 8), 15)
    third = prepare(tmp_path, LEFT.changed(name="third"), range(8, 12), 9)
    with pytest.raises(InputError, match="third was prepared with other settings"):
        join_stores(["left", "right"], "third", tmp_path, progress=False)
    assert Store(third.folder).spec.structures == ("ball",)
    with pytest.raises(InputError, match="two or more different"):
        join_stores(["left"], "both", tmp_path)
    assert join_stores(["left", "right"], "third", tmp_path, overwrite=True, progress=False).spec.name == "third"


def test_label_values_are_the_maps_own_where_they_differ() -> None:
    left = SPEC.changed(structures=("a_left", "a_right"), label_values=((11,), (50,)))
    other = SPEC.changed(structures=("b", "a_left"), label_values=((4, 43), (36,)))
    assert joined_spec([left, other], "x").label_values == ((11,), (50,), (4, 43))
    assert joined_spec([other, left], "x").label_values == ((4, 43), (36,), (50,))
    with pytest.raises(InputError, match="1 to 8"):
        many = [SPEC.changed(structures=(f"s{i}",), label_values=((i + 1,),), exclusive=False) for i in range(9)]
        joined_spec(many, "x")


def test_slices_are_joined_with_their_bits(tmp_path: Path) -> None:
    """Of one data set the liver and its tumours, of another the spleen and the liver."""
    stores = []
    for name, structures in (("a", ["liver", "tumour"]), ("b", ["spleen", "liver"])):
        store = write_slice_store(tmp_path / name, spec={"name": name, "structures": structures})
        manifest = store.manifest | {"source": name, "exclusions": [], "warnings": []}
        for record in manifest["subjects"].values():
            record |= {"image_sha256": name + record["image_sha256"], "details": {"label_pixels": {}}, "seconds": {}}
        write_json(tmp_path / name / "manifest.json", manifest)
        stores.append(store)
    joined = join_stores(["a", "b"], "both", tmp_path, progress=False)
    reopened = open_any_store(joined.folder)
    assert reopened.kind == "slices" and reopened.spec.structures == ("liver", "tumour", "spleen")
    spleen = stores[1].mask("vol-0", "spleen")
    assert spleen.any()
    np.testing.assert_array_equal(joined.mask("b-vol-0", "spleen"), spleen)  # type: ignore[union-attr, call-arg]
    np.testing.assert_array_equal(joined.mask("b-vol-0", "liver"), stores[1].mask("vol-0", "liver"))  # type: ignore[union-attr, call-arg]
    seen = joined.samples(["b-vol-0"])  # type: ignore[union-attr]
    assert [s.bits >> 2 & 1 for s in seen] == spleen.any((1, 2)).astype(int).tolist()
    assert reopened.marked("b-vol-0") == ("liver", "spleen")
