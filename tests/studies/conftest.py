"""A small study on hand-written stores: four methods' worth of cells in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import he_variables, write_store
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.study import Study, study_from_dict
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train import run as run_module
from tlseg_jax.train import usual

STUDY: dict[str, Any] = {
    "name": "small",
    "task": "target",
    "unseen": ["other"],
    "n": [2, 3],
    "seeds": 2,
    "steps": 4,
    "pretrain_steps": 4,
    "recipe_values": {"intensity_augmentation": False, "affine_augmentation": False, "elastic_augmentation": 0.0},
    "methods": [{"name": "FT", "pretask": "source"}, {"name": "E2E"}],
}

MakeSweep = Callable[..., Sweep]


@pytest.fixture(scope="session")
def small_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets "source" and "target" of the same persons, and "other" of others who only test; read only."""
    root = tmp_path_factory.mktemp("stores")
    for name, train, test, first in (("source", 4, 2, 0), ("target", 4, 2, 0), ("other", 0, 2, 10)):
        store = write_store(
            root / name,
            train=train,
            test=test,
            first=first,
            spec={"name": name, "flip_left_right": True, "split_group": "other" if name == "other" else "tiny"},
        )
        manifest = store.manifest
        for subject, record in manifest["subjects"].items():
            # Same anatomy, other label file: the two tasks show the same scans.
            record["centre_of_mass"] = [8.0, 8.0, 8.0]
            record["label_box"] = {"start": [4, 4, 4], "size": [8, 8, 8]}
            del subject
        write_json(root / name / "manifest.json", manifest)
    return root


@pytest.fixture
def make_sweep(
    small_stores: Path, tmp_path: Path, tiny_network: UNetConfig, monkeypatch: pytest.MonkeyPatch
) -> MakeSweep:
    """A function that opens a sweep of `STUDY`, with changes, below this test's folder."""
    monkeypatch.setattr(usual, "get_network", lambda _: tiny_network)
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config, int(key._base_array[1])))

    def make(workdir: str = "work", store: Path = small_stores, **changes: Any) -> Sweep:
        place = Workplace(tmp_path / workdir, store, progress=False)
        study: Study = study_from_dict(STUDY | changes, "test")
        return Sweep(place, study)

    return make
