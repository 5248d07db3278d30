"""Scoring a 2D run: with a network that is a threshold in place of a trained one, whose right answers are known."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from tests.evaluate.slices import SHAPE, SPACING, SPEC, draw, write_slice_store
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.models.networks import get_network
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies import assess as module
from tlseg_jax.studies.assess import assess, example_slice

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def saved(outputs: tuple[str, ...] = ("liver", "tumour"), channels: int = 1, **description: Any) -> SavedModel:
    """A model with no parameters: its predictor is put in by `threshold`."""
    spec = SPEC.changed(structures=outputs, label_values=((1,), (2,))[: len(outputs)])
    seen: dict[str, Any] = {"task": "tiny2d", "pretask": "none", "n": 2, "seen_images": [], "seen_persons": []}
    seen |= {"spec": spec.to_dict(), "patch_box": None}
    network = UNetConfig.residual("tiny2d", (2, 3), outputs=outputs, channels=channels)
    return SavedModel(network, {}, {}, seen | description, 1)


def drawn(middle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Liver above 0.25 and tumours below -0.25, as `tests.evaluate.slices.draw` has them; tumours are liver too."""
    liver, tumour = np.abs(middle) > 0.25, middle < -0.25
    return np.stack([liver, tumour], -1).astype(np.float32)


@pytest.fixture
def threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a network: the outputs of `drawn` that it has."""

    def load(model: SavedModel, adabn: float = 0.0) -> Network:
        columns = [("liver", "tumour").index(o) for o in model.config.outputs]
        channels = model.config.channels

        def predict(planes: NDArray[np.float32]) -> NDArray[np.float32]:
            assert planes.shape[-1] == channels
            return drawn(planes[..., channels // 2])[..., columns]

        return predict

    monkeypatch.setattr(module, "load_predictor", load)


@pytest.fixture
def store(tmp_path: Path) -> SliceStore:
    return write_slice_store(tmp_path / "tiny2d", train=2, test=3)


@pytest.mark.usefixtures("threshold")
def test_every_common_structure_is_a_test_set(store: SliceStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    entries = assess(run, saved(), store, progress=False)
    assert list(entries) == ["tiny2d_liver", "tiny2d_tumour"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test_sets"] == entries
    with (run / "subjects.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["test_set"], r["subject"]) for r in rows] == [
        (f"tiny2d_{s}", f"vol-{i}") for s in ("liver", "tumour") for i in (2, 3, 4)
    ]
    for s, name in enumerate(("liver", "tumour")):
        voxels = [int((draw(i)[1] >> s & 1).sum()) for i in (2, 3, 4)]
        ml = [v * float(np.prod(SPACING)) / 1000 for v in voxels]
        entry = entries[f"tiny2d_{name}"]
        assert (entry["n"], entry["synthetic"], entry["seen_in_training"]) == (3, False, [])
        assert entry["store"] == str(store.folder)
        # Noise of 0.05 never crosses a threshold 0.25 away.
        assert entry["dice_mean"] == 1 and entry["detection"]["recall"] == 1
        assert entry["reference_ml_mean"] == pytest.approx(np.mean(ml))
    drawn = sorted(p.name for p in (run / "figures").iterdir())
    assert drawn == [f"examples_tiny2d_tumour.{k}" for k in ("png", "svg")]
    assert imread(run / "figures" / "examples_tiny2d_tumour.png").std() > 0.05


@pytest.mark.usefixtures("threshold")
def test_a_network_of_one_structure_is_scored_on_that(store: SliceStore, tmp_path: Path) -> None:
    for outputs in (("liver",), ("tumour",), ("tumour", "liver")):
        run = tmp_path / "-".join(outputs)
        run.mkdir()
        entries = assess(run, saved(outputs, channels=3), store, progress=False)
        assert set(entries) == {f"tiny2d_{o}" for o in outputs}
        assert all(e["dice_mean"] == 1 for e in entries.values())
        last = "liver" if outputs == ("liver",) else "tumour"
        drawn = sorted(p.name for p in (run / "figures").iterdir())
        assert drawn == [f"examples_tiny2d_{last}.{k}" for k in ("png", "svg")]


@pytest.mark.usefixtures("threshold")
def test_volumes_that_the_model_has_seen_are_refused_unless_asked_for(store: SliceStore, tmp_path: Path) -> None:
    model = saved(seen_images=["sha0"], seen_persons=["tiny2d:person-1", "other:person-3", "tiny2d:person-4"])
    with pytest.raises(InputError, match=r"1 test subject\(s\) of tiny2d \(vol-4\) were trained on.*`allow_seen`"):
        assess(tmp_path, model, store, progress=False)
    assert not (tmp_path / "summary.json").exists()
    on_test = assess(tmp_path, model, store, progress=False, allow_seen=True)
    assert all(e["seen_in_training"] == ["vol-4"] for e in on_test.values())
    on_train = assess(tmp_path, model, store, split="train", progress=False)
    assert list(on_train) == ["tiny2d_liver_train", "tiny2d_tumour_train"]
    assert all(e["seen_in_training"] == ["vol-0", "vol-1"] for e in on_train.values())
    # The second call adds to the first one's results.
    there = json.loads((tmp_path / "summary.json").read_text())["test_sets"]
    assert there == on_test | on_train
    assert (tmp_path / "figures" / "examples_tiny2d_tumour_train.png").exists()


@pytest.mark.usefixtures("threshold")
def test_a_single_test_volume_with_no_such_structure_is_drawn_too(tmp_path: Path) -> None:
    def healthy(seed: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        image, bits = draw(seed)
        return np.where(bits & 2, 0.5, image), bits & 1

    store = write_slice_store(tmp_path / "tiny2d", train=1, test=1, drawer=healthy)
    entries = assess(tmp_path, saved(), store, progress=False)
    assert entries["tiny2d_tumour"]["reference_ml_mean"] == 0
    assert (tmp_path / "figures" / "examples_tiny2d_tumour.png").exists()


def test_what_cannot_be_scored_is_one_sentence(store: SliceStore, tmp_path: Path) -> None:
    heads = {"spec": PAPERS["hdt_c"].to_dict()}
    volumes = SavedModel(get_network("switch8x2"), {}, {}, saved().description | heads, 1)
    with pytest.raises(InputError, match=r"holds slices and the model of .* is 3D, for volumes: name another run"):
        assess(tmp_path, volumes, store, progress=False)


@pytest.mark.usefixtures("threshold")
def test_no_common_structure_and_no_volumes_are_one_sentence(store: SliceStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no structure in common"):
        kidneys = write_slice_store(tmp_path / "k", spec={"structures": ["kidney", "cyst"]})
        assess(tmp_path, saved(), kidneys, progress=False)
    with pytest.raises(InputError, match="no test subjects"):
        assess(tmp_path, saved(), write_slice_store(tmp_path / "t", test=0), progress=False)


@pytest.mark.usefixtures("threshold")
def test_the_example_is_the_slice_with_the_most_of_the_structure(tmp_path: Path) -> None:
    def growing(seed: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """A tumour of 2, 4, ... pixels, largest in plane 6, in a liver that is largest in plane 1."""
        bits = np.zeros(SHAPE, np.uint8)
        bits[:, 2:20, 2:20] = 1
        bits[1, 2:30, 2:22] = 1
        for k, n in enumerate((0, 2, 4, 6, 8, 10, 14, 12, 3)):
            bits[k, 5 : 5 + n, 5] = 3
        image = np.where(bits & 2, -0.5, np.where(bits & 1, 0.5, 0.0)) + 0.01 * np.arange(SHAPE[0])[:, None, None]
        return image, bits

    # Planes 1 to 8 are samples: the first of them is slice 1.
    store = write_slice_store(tmp_path / "s", drawer=growing, samples=range(1, 9))
    image, bits = growing(0)
    tumour = example_slice(store, "vol-2", "tumour", "worst", {"A": saved(), "C": saved(("tumour",))})
    assert tumour.title == "worst, slice 6"
    assert np.array_equal(tumour.truth, bits[6] == 3)
    assert np.allclose(tumour.image, image[6], atol=1e-3)
    assert list(tumour.probability) == ["A", "C"]
    for p in tumour.probability.values():
        assert np.array_equal(p > 0.5, bits[6] == 3)
    assert tumour.spacing == SPACING[:2]
    liver = example_slice(store, "vol-2", "liver", "", {"A": saved()})
    assert np.array_equal(liver.truth, bits[1] > 0) and liver.title.endswith("slice 1")
    assert np.array_equal(liver.probability["A"] > 0.5, bits[1] > 0)
