"""A sweep that is asked to stop: no cell counts as failed, and no other one is begun."""

from typing import Any

import jax
import pytest

from tests.studies.conftest import MakeSweep
from tlseg_jax.report.study_info import read_study
from tlseg_jax.runtime.errors import Preempted
from tlseg_jax.studies import sweep as run_module
from tlseg_jax.train.execution import Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

CHANGES: dict[str, Any] = {"n": [2], "seeds": 4, "methods": [{"name": "E2E"}]}


@pytest.mark.parametrize("devices", [1, 2])
def test_a_stopped_cell_has_not_failed(devices: int, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def stopped(*args: Any, **_: Any) -> None:
        begun.append(args[3].name)
        raise Preempted("Stopped by SIGTERM.")

    monkeypatch.setattr(run_module, "train_and_assess", stopped)
    sweep = make_sweep(**CHANGES)
    with pytest.raises(Preempted, match="Stopped by SIGTERM"):
        sweep.run(Execution(), devices=jax.local_devices()[:1] * devices)
    assert 1 <= len(begun) <= devices + 1
    study = read_study(sweep.folder / "study.json")
    assert (study.failed, len(study.missing)) == ((), 4)


@pytest.mark.slow
def test_cells_that_train_at_once_begin_again(make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in their first step."""
    monkeypatch.setattr("tlseg_jax.train.together.signals.asked", lambda: True)
    sweep = make_sweep(**CHANGES | {"seeds": 2})
    with pytest.raises(Preempted, match=r"after step 1 of 4 of 2 runs at once, which are not saved before their end"):
        sweep.run(Execution(), together=2)
    study = read_study(sweep.folder / "study.json")
    assert (study.failed, len(study.missing)) == ((), 2)
    assert not list(sweep.folder.glob("cells/*/checkpoints"))
