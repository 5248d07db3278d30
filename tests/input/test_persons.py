"""Persons of factor data sets drawn from label maps: what each level changes, and that it changes nothing else."""

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.input.label_heads import CAUDATE, VALUES, write_heads
from tlseg_jax.datasets.factors import Levels, factor_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.input.synthesis import persons
from tlseg_jax.input.synthesis.persons import map_persons
from tlseg_jax.phantoms.cohort import DrawnScan, write_cohort
from tlseg_jax.preprocess.steps.centres import register_map
from tlseg_jax.preprocess.steps.template import mni305_grid
from tlseg_jax.runtime.errors import InputError

MAPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "brain_labelmaps"
pytestmark = pytest.mark.usefixtures("quick_compile")
VENTRICLES = Levels("lateral ventricle", "healthy")
CAUDATES = Levels(disease="healthy")


@pytest.fixture(scope="module", autouse=True)
def maps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three heads, which lack the structures by which a map is registered and lie in MNI305 as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persons, "register_map", to_the_middle)
        yield write_heads(tmp_path_factory.mktemp("maps") / "heads", mm=2.0)


def to_the_middle(values: np.ndarray, affine: np.ndarray, name: str) -> tuple[np.ndarray, dict[str, float]]:
    """In place of a registration: the head's middle is MNI305's grid's."""
    grid, to_world = mni305_grid(factor_spec(CAUDATES)), np.eye(4)
    middles = (a @ [*(np.array(n) - 1) / 2, 1.0] for a, n in ((affine, values.shape), (grid.affine, grid.shape)))
    to_world[:3, 3] = np.subtract(*middles)[:3]
    return to_world, {}


def small(levels: Levels) -> DatasetSpec:
    """About the head alone, of 96 mm."""
    return factor_spec(levels).at_spacing(2.0).changed(dimensions=(52, 52, 52), patch_size=(48, 48, 48))


@functools.cache
def drawn(maps: Path, levels: Levels, person: int = 0, seed: int = 0) -> DrawnScan:
    return map_persons(maps, small(levels), seed, 3).draw(person)


def changed(levels: Levels, **change: str) -> Levels:
    return Levels(**{**levels.to_dict(), **change})


def assert_same(one: np.ndarray, other: np.ndarray, same: bool = True) -> None:
    assert np.array_equal(one, other) == same


def test_a_level_changes_what_it_is_of_and_nothing_else(maps: Path) -> None:
    base = drawn(maps, CAUDATES)
    stripped = drawn(maps, changed(CAUDATES, skull="stripped"))
    assert_same(stripped.image, base.image * base.brain)
    assert_same(stripped.label, base.label)
    for scanner in ("registry", "survey"):
        other = drawn(maps, changed(CAUDATES, scanner=scanner))
        assert_same(other.label, base.label)
        assert_same(other.brain, base.brain)
        assert_same(other.image, base.image, False)
    automatic = drawn(maps, changed(CAUDATES, labels="automatic"))
    assert_same(automatic.image, base.image)
    assert_same(automatic.label, base.label, False)
    assert 0.3 < (automatic.label & base.label).sum() / (automatic.label | base.label).sum() < 1
    ventricle = drawn(maps, VENTRICLES)
    assert_same(ventricle.image, base.image)
    assert not (ventricle.label & base.label).any()


def test_the_label_lies_where_the_image_shows_the_structure(maps: Path) -> None:
    inside, around = drawn(maps, VENTRICLES), drawn(maps, Levels("whole brain", "healthy"))
    brain = around.label.astype(bool) & ~inside.label.astype(bool)
    assert np.median(inside.image[inside.label == 1]) < np.median(inside.image[brain]) - 200
    assert (around.label[inside.label == 1]).mean() > 0.95  # the whole brain holds its ventricles
    assert (inside.image >= 0).all() and inside.image[~inside.brain].max() > 100  # a scalp
    assert inside.brain[around.label == 1].mean() > 0.9


@pytest.mark.parametrize("space", [pytest.param("MNI305", marks=pytest.mark.slow), "native"])
def test_disease_acts_on_every_person(maps: Path, space: str) -> None:
    for person in range(2):

        def ml(levels: Levels, disease: str, person: int = person) -> float:
            scan = drawn(maps, changed(levels, space=space, disease=disease), person)
            return float(scan.label.sum()) * 2**3 / 1000

        assert ml(VENTRICLES, "AD") > 1.1 * ml(VENTRICLES, "healthy")
        assert ml(VENTRICLES, "HD") > ml(VENTRICLES, "healthy")
        assert ml(CAUDATES, "HD") < 0.9 * ml(CAUDATES, "healthy")
    brains = [drawn(maps, Levels("whole brain", d)).label.sum() for d in ("healthy", "AD")]
    assert brains[1] < brains[0]


def test_a_person_is_drawn_by_seed_and_number(maps: Path) -> None:
    again = map_persons(maps, small(CAUDATES), 0, 1).draw(0)  # however many others there are
    assert_same(again.image, drawn(maps, CAUDATES).image)
    assert_same(again.label, drawn(maps, CAUDATES).label)
    assert_same(drawn(maps, CAUDATES, 0, 1).image, again.image, False)
    assert_same(drawn(maps, CAUDATES, 1).image, again.image, False)


def test_native_heads_are_turned_about_the_brain_s_middle(maps: Path) -> None:
    scans = [drawn(maps, changed(CAUDATES, space="native"), person) for person in range(2)]
    assert all(s.label.shape == (52, 52, 52) for s in scans)
    sides = [[np.argwhere(s.label[half])[:, 1:].mean(0) for half in (np.s_[:26], np.s_[26:])] for s in scans]
    tilts = [right - left for left, right in sides]
    assert max(abs(t).max() for t in tilts) > 0.2 and abs(tilts[0] - tilts[1]).max() > 0.1
    middle = [np.argwhere(s.brain).mean(0) for s in scans]
    np.testing.assert_allclose(middle, np.tile((25.5, 25.5, 25.5), (2, 1)), atol=2.0)


def test_data_sets_show_the_same_persons_in_the_same_split_once(maps: Path, tmp_path: Path) -> None:
    whom = functools.partial(map_persons, maps)
    tables = []
    for levels in (CAUDATES, changed(VENTRICLES, space="native", scanner="registry")):
        spec, folder = small(levels), tmp_path / levels.name
        table = write_cohort(spec, folder, train=2, test=1, spacing=2.0, progress=False, persons=whom)
        written = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
        write_cohort(spec, folder, train=2, test=1, spacing=2.0, progress=False, persons=whom)
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == written
        with pytest.raises(InputError, match="another built-in cohort"):
            write_cohort(spec, folder, train=2, test=1, spacing=2.0, progress=False)  # schematic heads
        assert "label maps of real heads" in (folder / "README.txt").read_text()
        with table.open(newline="") as f:
            tables.append([(r["person"], r["split"]) for r in csv.DictReader(f)])
    assert tables[0] == tables[1] == [("seg_0", "test"), ("seg_1", "train"), ("seg_2", "train")]


def test_what_the_maps_cannot_show_is_said(maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small(CAUDATES)
    with pytest.raises(InputError, match=r"4 persons are asked for.*`cohort_train`.*holds 3 label maps, one a person"):
        map_persons(maps, spec, 0, 4)
    assert set(CAUDATE) < VALUES
    monkeypatch.setattr(persons, "CAUDATE", (777,))
    with pytest.raises(InputError, match=r"seg_0.nii.gz shows no caudate by FreeSurfer's values"):
        write_cohort(
            spec,
            tmp_path / "c",
            train=1,
            test=0,
            spacing=2.0,
            progress=False,
            persons=functools.partial(map_persons, maps),
        )
    assert not (tmp_path / "c").exists()
    monkeypatch.undo()
    monkeypatch.setattr(persons, "register_map", register_map)
    with pytest.raises(InputError, match=r"could not be placed in MNI305: only \d+ of 25"):
        map_persons(maps, spec, 0, 1).draw(0)


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.exists(), reason="the label maps of SynthSeg are not here")
def test_a_real_head_has_its_structures_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persons, "register_map", register_map)

    def ml(levels: Levels) -> float:
        scan = map_persons(MAPS, factor_spec(levels).at_spacing(2.0), 0, 1).draw(0)
        return float(scan.label.sum()) * 2**3 / 1000

    assert 4.0 < ml(changed(CAUDATES, disease="HD")) < 0.9 * ml(CAUDATES) < 9.0
    assert 1.15 * ml(VENTRICLES) < ml(changed(VENTRICLES, disease="AD"))
