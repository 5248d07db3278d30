"""A forest on volumes whose false components are small and faint, its file, and what it does on new volumes."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tests.conftest import csv_rows
from tests.evaluate.slices import SPACING, ball, write_slice_store
from tlseg_jax.evaluate.component_features import FEATURES, component_features
from tlseg_jax.evaluate.false_positives import Forest, PredictedVolume, train_forest, true_components
from tlseg_jax.evaluate.forest_effect import format_effect, measure_effect, predicted_volumes, save_effect
from tlseg_jax.evaluate.forest_file import load_forest, save_forest
from tlseg_jax.runtime.errors import InputError

SHAPE = (10, 40, 30)


def volume(seed: int, liver: bool = False, true: int = 2, false: int = 3) -> PredictedVolume:
    """Large dark tumours that the network sees well, and small faint spots that are none."""
    rng = np.random.default_rng(seed)
    places = [(z, x, y) for z in (2, 7) for x in (6, 20, 33) for y in (6, 22)]
    at = [places[i] for i in rng.permutation(len(places))]
    reference, spots = np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.bool_)
    for c in at[:true]:
        reference |= ball(c, rng.uniform(2.2, 3.5), SHAPE)
    for c in at[true : true + false]:
        spots |= ball(c, rng.uniform(0, 1.2), SHAPE)
    image = rng.normal(0, 0.1, SHAPE) - reference - 0.2 * spots
    probability = (0.9 * reference + 0.55 * spots).astype(np.float32)
    return PredictedVolume(
        f"vol-{seed}", probability, image, SPACING, reference, np.ones(SHAPE, np.bool_) if liver else None
    )


@pytest.fixture(scope="module")
def forest() -> Forest:
    return train_forest(volume(i) for i in range(6))


def test_half_inside_is_true() -> None:
    labels = np.zeros((1, 4, 6), np.int32)
    labels[0, 0, :4], labels[0, 2, :4], labels[0, 3, 5] = 1, 2, 3
    reference = np.zeros(labels.shape, np.bool_)
    reference[0, 0, :2] = reference[0, 2, :1] = True
    assert true_components(labels, reference).tolist() == [True, False, False]
    assert true_components(np.zeros((1, 2, 2), np.int32), np.ones((1, 2, 2), np.bool_)).size == 0


def test_new_volumes_lose_their_false_components_only(forest: Forest) -> None:
    assert (forest.true_components, forest.false_components) == (12, 18)
    assert len(forest.classifier.estimators_) == 256
    for i in range(10, 16):
        v = volume(i)
        kept = forest.keep(v.probability, v.mask, v.image, v.spacing)
        assert np.array_equal(kept, v.reference) and (v.mask & ~v.reference).any()


def test_the_same_volumes_give_the_same_forest(forest: Forest) -> None:
    again = train_forest(volume(i) for i in range(6))
    v = volume(20)
    _, table = component_features(v.probability, v.mask, v.image, v.spacing, None)
    assert np.array_equal(forest.probability_of_true(table), again.probability_of_true(table))


def test_an_empty_prediction_stays_empty(forest: Forest) -> None:
    v = volume(0, true=0, false=0)
    assert not forest.keep(v.probability, v.mask, v.image, v.spacing).any()


def test_one_kind_of_component_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 training volume.* hold 4 true and 0 false") as e:
        train_forest(volume(i, false=0) for i in range(2))
    assert str(e.value).count(". ") == 0
    with pytest.raises(InputError, match="hold 0 true and 0 false"):
        train_forest([])


def test_a_forest_remembers_whether_it_learnt_with_a_liver(forest: Forest) -> None:
    assert train_forest(volume(i, liver=True) for i in range(2)).liver and not forest.liver


def test_a_saved_forest_is_the_same_forest(forest: Forest, tmp_path: Path) -> None:
    save_forest(tmp_path / "new" / "folder", forest)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["forest.json", "forest.skops"]
    loaded = load_forest(tmp_path / "new" / "folder")
    for name in ("liver", "subjects", "true_components", "false_components"):
        assert getattr(loaded, name) == getattr(forest, name)
    table = np.random.default_rng(0).normal(size=(50, len(FEATURES)))
    table[3, 5] = np.nan
    assert np.array_equal(loaded.probability_of_true(table), forest.probability_of_true(table))
    about = json.loads((tmp_path / "new" / "folder" / "forest.json").read_text())
    assert about["features"] == list(FEATURES) and about["threshold"] == 0.5
    assert sum(about["importance"].values()) == pytest.approx(1)
    assert "scikit-learn" in about["versions"]


def rewrite(folder: Path, data: bytes) -> None:
    """Put another file in place of the forest, with a checksum that fits."""
    (folder / "forest.skops").write_bytes(data)
    about = json.loads((folder / "forest.json").read_text())
    about["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "forest.json").write_text(json.dumps(about))


def edited(data: bytes, edit: Callable[[str, bytes], bytes]) -> bytes:
    """A zip with every member passed through `edit`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
    return out.getvalue()


def foreign_type(data: bytes) -> bytes:
    def edit(name: str, content: bytes) -> bytes:
        if name != "schema.json":
            return content
        schema = json.loads(content)
        schema["__module__"], schema["__class__"] = "subprocess", "Popen"
        return json.dumps(schema).encode()

    return edited(data, edit)


def wild_node(data: bytes) -> bytes:
    """Every tree's left children point far outside."""

    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith(".npy"):
            return content
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if array.dtype.names and "left_child" in array.dtype.names:
            array["left_child"][array["left_child"] >= 0] = 1 << 40
        out = io.BytesIO()
        np.save(out, array, allow_pickle=False)
        return out.getvalue()

    changed = edited(data, edit)
    assert changed != edited(data, lambda _, content: content)
    return changed


def another_estimator(_: bytes) -> bytes:
    x = np.random.default_rng(0).normal(size=(20, len(FEATURES)))
    return skops.io.dumps(LogisticRegression().fit(x, x[:, 0] > 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (foreign_type, "holds types that no forest has .*subprocess.Popen"),
        (wild_node, "a tree's nodes do not fit together"),
        (another_estimator, "is damaged .it is a LogisticRegression"),
        (lambda data: data[:-200], "is damaged"),
        (lambda data: b"", "is damaged"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(
    forest: Forest, tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    save_forest(tmp_path, forest)
    rewrite(tmp_path, change((tmp_path / "forest.skops").read_bytes()))
    with pytest.raises(InputError, match=sentence) as e:
        load_forest(tmp_path)
    assert "train it again" in str(e.value) and "\n" not in str(e.value)


def test_other_faults_of_the_files(forest: Forest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no post-processing forest"):
        load_forest(tmp_path)
    save_forest(tmp_path, forest)
    path = tmp_path / "forest.json"
    about = json.loads(path.read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"sha256": "0"}, "is not the file that forest.json"),
        ({"format": 99}, "another version of this project"),
        ({"features": ["voxels"]}, "another version of this project"),
        ({"versions": {"scikit-learn": "0.1.2"}}, r"written by scikit-learn 0\.1\.2"),
        ({"subjects": None}, "is damaged"),
    ]
    for change, sentence in changes:
        path.write_text(json.dumps(about | change))
        with pytest.raises(InputError, match=sentence):
            load_forest(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_forest(tmp_path)


def test_the_effect_is_counted_before_and_after(forest: Forest, tmp_path: Path) -> None:
    volumes = [volume(i) for i in (30, 31)]
    effects = measure_effect(forest, volumes)
    entry = save_effect(tmp_path, effects, {"structure": "tumour"})
    assert entry["before"]["true_components"] == entry["after"]["true_components"] == 4
    assert (entry["before"]["false_components"], entry["after"]["false_components"]) == (6, 0)
    assert entry["before"]["precision"] == 0.4 and entry["after"]["precision"] == 1
    assert entry["before"]["recall"] == entry["after"]["recall"] == 1
    dice = [2 * v.reference.sum() / (v.mask.sum() + v.reference.sum()) for v in volumes]
    assert entry["before"]["dice_mean"] == pytest.approx(np.mean(dice)) and entry["after"]["dice_mean"] == 1
    assert json.loads((tmp_path / "effect.json").read_text()) == entry
    rows = csv_rows(tmp_path / "effect.csv")
    assert [r["subject"] for r in rows] == ["vol-30", "vol-31"]
    assert sum(int(r["false_components_before"]) for r in rows) == 6
    assert "detection precision" in format_effect(entry) and "0.400" in format_effect(entry)
    with pytest.raises(ValueError, match="has learnt from vol-3"):
        measure_effect(forest, [volume(3)])


def spotted(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Liver and dark tumours, and a false spot in a corner of every plane."""
    tumour = planes[..., 0] < -0.25
    tumour[:, 25:27, 18:20] = True
    return np.stack([planes[..., 0] > 0.25, tumour], -1).astype(np.float32)


def test_a_store_end_to_end(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s", train=3, test=2)

    def predict(split: str) -> Any:
        outputs = ("liver", "tumour")
        return predicted_volumes(store, store.subjects(split), spotted, outputs, 1, "tumour", progress=False)

    forest = train_forest(predict("train"))
    assert forest.liver and forest.subjects == ("vol-0", "vol-1", "vol-2")
    assert (forest.true_components, forest.false_components) == (6, 3)
    effects = measure_effect(forest, predict("test"))
    assert [e.after.dice for e in effects] == [1, 1] and all(e.before.false_components == 1 for e in effects)


def test_what_a_store_cannot_give_is_refused_at_once(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s")
    with pytest.raises(InputError, match="'spleen' is not both an output"):
        predicted_volumes(store, ["vol-0"], spotted, ("liver", "tumour"), 1, "spleen", progress=False)
    store = write_slice_store(tmp_path / "gaps", samples=(0, 1, 4))
    with pytest.raises(InputError, match=r"are not consecutive.*with_structure = 0"):
        predicted_volumes(store, ["vol-0"], spotted, ("liver", "tumour"), 1, "tumour", progress=False)
