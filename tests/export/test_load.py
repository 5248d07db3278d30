"""One model read in three ways marks the same voxels."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import blob
from tests.train.slice_runs import small
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.evaluate.inference import predict_tiles, predict_volume
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.export.load import AnyModel, load_any_model
from tlseg_jax.export.model_folder import export_model
from tlseg_jax.geometry import Box
from tlseg_jax.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")


def three(run: Path, folder: Path) -> tuple[AnyModel, ...]:
    """The run, its exported folder, and the program in that."""
    export_model(run, folder)
    found = tuple(load_any_model(p) for p in (run, folder, folder / "model.stablehlo"))
    assert [m.kind for m in found] == ["run", "model", "program"]
    for other in found[1:]:
        assert (other.config, other.step) == (found[0].config, found[0].step)
        assert other.description["spec"] == found[0].description["spec"]
    return found


def test_a_volume_three_ways(volume_run: Path, tmp_path: Path) -> None:
    models = three(volume_run, tmp_path / "model")
    image = blob(9)[0].astype(np.float16)
    boxed, tiled = [], []
    for model in models:
        d, predictor = model.description, model.predictor()
        boxed.append(predict_volume(image, spec_from_dict(d["spec"], "here"), Box.from_dict(d["patch_box"]), predictor))
        # Sides that no pooling divides.
        tiled.append(predict_tiles(image, (10, 9, 7), predictor))
    for first, same, near in (boxed, tiled):
        assert np.ptp(first) > 0.1 and np.array_equal(first, same)
        np.testing.assert_allclose(near, first, atol=1e-5)
        assert np.array_equal(near > 0.5, first > 0.5) and 0 < (first > 0.5).sum() < first.size


def test_planes_three_ways(slice_run: Path, tmp_path: Path) -> None:
    models = three(slice_run, tmp_path / "model")
    image = np.asarray(small(5)(3)[0], np.float16)[..., None]
    first, same, near = (predict_planes(image, m.predictor(), batch=2) for m in models)
    assert first.shape == (5, 16, 20, 2) and np.ptp(first) > 0.1 and np.array_equal(first, same)
    np.testing.assert_allclose(near, first, atol=1e-5)
    assert np.array_equal(near > 0.5, first > 0.5)


def test_what_is_no_model_is_said(slice_run: Path, tmp_path: Path) -> None:
    export_model(slice_run, tmp_path / "model", platforms=["cuda"])
    program = tmp_path / "model" / "model.stablehlo"
    with pytest.raises(InputError, match="computes on cpu"):
        load_any_model(program).predictor()
    renamed, alone = program.with_name("best.stablehlo"), tmp_path / "model.stablehlo"
    shutil.copy(program, renamed)
    shutil.copy(program, alone)
    (tmp_path / "scan.nii").write_bytes(b"")
    for path, fault in (
        (renamed, "call it model.stablehlo again"),
        (alone, "keep the exported folder together"),
        (tmp_path / "none.stablehlo", "does not exist"),
        (tmp_path / "scan.nii", "is no model"),
        (tmp_path / "none", "no trained model"),
        (tmp_path, "no trained model"),
    ):
        with pytest.raises(InputError, match=fault):
            load_any_model(path)
