"""Where a study finds its data: the user's store first, under the user's own names, else the built-in cohort."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import write_store
from tests.evaluate.slices import SPEC, write_slice_store
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """The user's store: slices as "mine" and as "lits" (of two structures), volumes as "heads"."""
    write_slice_store(tmp_path / "store" / "mine", spec={"name": "mine"})
    write_slice_store(tmp_path / "store" / "lits", spec={"name": "lits"})
    write_store(tmp_path / "store" / "heads", spec={"name": "heads"})
    return Workplace(tmp_path / "runs", tmp_path / "store", progress=False)


def test_the_store_s_own_names_come_first(place: Workplace) -> None:
    mine = named_spec(place, "mine")
    assert mine == SPEC.changed(name="mine")
    assert named_spec(place, "lits").to_dict() == SPEC.to_dict() | {"name": "lits"} != PAPERS["lits"].to_dict()
    assert named_spec(place, "heads").kind == "volumes"
    # What the store lacks is looked for among the papers' names.
    assert named_spec(place, "mri_artery") == PAPERS["mri_artery"]
    assert named_spec(place, "hdt_v") == get_spec("hdt_v")
    with pytest.raises(InputError, match="did you mean lits"):
        named_spec(place, "litz")


def test_with_no_store_the_papers_names_count(place: Workplace) -> None:
    assert named_spec(dataclasses.replace(place, store=None), "lits") == PAPERS["lits"]


def test_a_description_in_a_file_names_a_data_set(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('base = "lits"\nname = "own"\nkind = "slices"\n')
    assert named_spec(place, str(tmp_path / "own.toml")) == PAPERS["lits"].changed(name="own")


def test_a_prepared_data_set_is_opened_as_what_it_is(place: Workplace, said: list[str]) -> None:
    slices, volumes = (open_store(place, named_spec(place, name)) for name in ("mine", "heads"))
    assert isinstance(slices, SliceStore) and slices.subjects("test") == ("vol-2", "vol-3")
    assert isinstance(volumes, Store)
    assert said == [f"{name}: using the prepared data set {place.store}/{name}." for name in ("mine", "heads")]
    assert not place.workdir.exists()


@pytest.mark.parametrize(
    ("folder", "asked", "there", "wanted"),
    [("hdt_v", "hdt_v", "slices", "volumes"), ("mri_artery", "mri_artery", "volumes", "slices")],
)
def test_a_store_of_the_other_kind_is_refused(
    place: Workplace, folder: str, asked: str, there: str, wanted: str
) -> None:
    assert place.store is not None
    (write_slice_store if there == "slices" else write_store)(place.store / folder, spec={"name": folder})
    with pytest.raises(InputError, match=f"is one of {there} and '{asked}' is one of {wanted}"):
        open_store(place, get_spec(asked))


def test_a_data_set_that_is_not_there_names_the_command_that_makes_it(place: Workplace) -> None:
    with pytest.raises(InputError, match=r"'mri_artery': run 'tlseg prepare --dataset=mri_artery"):
        open_store(place, PAPERS["mri_artery"])


def test_volumes_made_from_another_description_are_refused(place: Workplace) -> None:
    spec = get_spec("hdt_v").changed(name="heads")
    with pytest.raises(InputError, match=r"made from another description of 'heads' \(structures is .'blob'."):
        open_store(place, spec)


def test_the_built_in_cohort_of_slices_is_made_once(tmp_path: Path, said: list[str]) -> None:
    place = Workplace(tmp_path, cohort_train=1, cohort_test=1, workers=1, progress=False)
    spec = PAPERS["mri_artery"]
    store = open_store(place, spec)
    assert isinstance(store, SliceStore)
    assert store.manifest["synthetic"] is True
    assert store.spec.planes.pixels == (80, 65) and store.spec.planes.test_volumes == 1
    assert (store.subjects("train"), store.subjects("test")) == (("case-01",), ("case-02",))
    # Every slice is a sample, and the tumour is what the files' labels say.
    case = tmp_path / "cohort" / "mri_artery" / "case-02"
    label = np.asarray(nib.load(case / "label.nii.gz").dataobj)
    assert int(label.sum()) == int((store.codes("case-02") == 1).sum()) > 0
    assert "drew a built-in cohort" in said[0] and "mean nothing for patients" in said[0]

    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "cohort").rglob("*.nii.gz")}
    arrays = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("zarr.json")}
    assert len(made) == 4 and arrays
    said.clear()
    again = open_store(place, spec)
    assert again.manifest["subjects"] == store.manifest["subjects"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cohort").rglob("*.nii.gz")} == made
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("zarr.json")} == arrays
    assert "reusing the built-in cohort" in said[0] and "2 scan(s) are prepared already" in said[1]


def test_the_built_in_cohort_of_heads_is_not_registered(tmp_path: Path, said: list[str]) -> None:
    place = Workplace(tmp_path, cohort_train=1, cohort_test=1, workers=1, progress=False)
    store = open_store(place, get_spec("hdt_c"))
    assert isinstance(store, Store) and store.manifest["synthetic"] is True and store.spec.volumes.space == "MNI305"
    assert (store.subjects("train"), store.subjects("test")) == (("hdt-001",), ("hdt-000",))
    assert "so nothing is registered" in said[0] and "mean nothing for patients" in said[0]


def test_slices_with_no_built_in_cohort_need_a_store(tmp_path: Path) -> None:
    place = Workplace(tmp_path, progress=False)
    with pytest.raises(InputError, match="no built-in cohort for the data set 'tiny2d'"):
        open_store(place, SPEC)
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_one_sentence(place: Workplace) -> None:
    assert place.store is not None
    path = place.store / "mine" / "manifest.json"
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(InputError, match=r"manifest\.json"):
        named_spec(place, "mine")
