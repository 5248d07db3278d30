"""A run is told, refused or ended in one sentence where memory is what it is about."""

from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train import job as job_module
from tlseg_jax.train import memory
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

pytestmark = pytest.mark.usefixtures("quick_compile")


def _job(network: UNetConfig) -> JobSettings:
    return JobSettings(network, get_recipe("paper"), 2, n=2)


def test_a_dry_run_tells_and_writes_nothing(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, said: list[str]
) -> None:
    """It names the network and the time, and leaves no folder."""
    execution = Execution(dry_run=True)
    result = train_job(tiny_store, _job(tiny_network), tmp_path / "run", execution=execution, progress=False)
    assert result.stopped == "dry run" and not list(tmp_path.iterdir())
    report = next(s for s in said if s.startswith("dry run:"))
    assert "tiny, float32" in report and "2 steps" in report and "FLOPs a step" in report


def test_a_budget_that_nothing_fits_is_refused_before_the_folder_is_used(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and the next call may use the folder."""
    monkeypatch.setattr(memory, "HOPELESS", 1.0)
    with pytest.raises(InputError, match=r"`memory_budget` is 0\.01 MB: no `remat`"):
        train_job(
            tiny_store, _job(tiny_network), tmp_path / "run", execution=Execution(memory_budget=10_000), progress=False
        )
    assert not (tmp_path / "run" / "settings.json").exists()


@pytest.mark.slow
def test_running_out_of_memory_is_one_sentence(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked, what there is and what to do; another error stays what it is."""

    def failing(error: Exception) -> Any:
        def fit(*_: Any, **__: Any) -> Any:
            raise error

        return fit

    monkeypatch.setattr(memory, "_on_cpu", lambda: False)
    monkeypatch.setattr(memory, "AMPLE", 1.0)  # the trace's word is taken
    for error, expected in (
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."), InputError),
        (RuntimeError("INTERNAL: a fault"), RuntimeError),
    ):
        monkeypatch.setattr(job_module, "fit", failing(error))
        with lock_folder(tmp_path / "run"), pytest.raises(expected) as e:
            train_job(tiny_store, _job(tiny_network), tmp_path / "run", progress=False)
        if expected is InputError:
            assert str(e.value).startswith("The memory ran out while training: a training step on 2 samples of 16x16")
            assert "it would fit with `batch_size=1`" in str(e.value)
