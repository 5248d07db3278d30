"""The built-in cohort of a factor data set, at the workplace's voxel size, beside a user's store."""

from pathlib import Path

import pytest

from tests.conftest import write_store
from tlseg_jax.datasets.factors import Levels
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store

NAME = Levels("lateral ventricle", "AD", "native", "stripped", "registry", "automatic").name


def workplace(root: Path, **changes: object) -> Workplace:
    values = {"cohort_train": 2, "cohort_test": 1, "workers": 1, "progress": False, "cohort_spacing": 8.0} | changes
    return Workplace(root / "work", **values)  # type: ignore[arg-type]


def test_a_factor_data_set_is_drawn_at_the_workplace_s_spacing(tmp_path: Path, said: list[str]) -> None:
    place = workplace(tmp_path)
    store = open_store(place, named_spec(place, NAME))
    assert isinstance(store, Store)
    assert store.spec.volumes.spacing == (8.0, 8.0, 8.0) and store.spec.volumes.skull_strip and store.spec.name == NAME
    assert store.manifest["synthetic"] is True
    assert (store.subjects("train"), store.subjects("test")) == (("pre-001", "pre-002"), ("pre-000",))
    assert "native space at 8 mm" in said[0]
    with pytest.raises(InputError, match="another built-in cohort"):
        open_store(workplace(tmp_path, cohort_spacing=9.0), named_spec(place, NAME))


def test_a_user_s_store_that_lacks_it_does_not_stop_it(tmp_path: Path) -> None:
    place = workplace(tmp_path, store=tmp_path / "mine")
    write_store(tmp_path / "mine" / "heads", spec={"name": "heads"})
    name = Levels().name
    assert open_store(place, named_spec(place, name)).spec.name == name
    assert not (tmp_path / "mine" / name).exists()
    with pytest.raises(InputError, match="holds no prepared data set 'hdt_c'"):
        open_store(place, named_spec(place, "hdt_c"))
