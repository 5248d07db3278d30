"""A checkpoint is of no number of devices."""

import json
from pathlib import Path

import pytest

from tests.processes import python

ROUNDING = 1e-4
"""Of float32, in three steps of a small network: the sums over a batch are made in another order by another number of
devices, and Adam divides by the square root of small second moments."""


@pytest.mark.slow
def test_saved_on_four_devices_restored_on_one_two_and_eight(tmp_path: Path) -> None:
    run = ("-m", "tests.train.topology_run", str(tmp_path / "checkpoints"))
    ended = python(*run, JAX_NUM_CPU_DEVICES="8", JAX_PLATFORMS="cpu")
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert {name: row["devices"] for name, row in found.items()} == {"one": 1, "pmap 2": 2, "mesh 4x2": 8}
    for row in found.values():
        assert (row["same bits"], row["position"], row["step"]) == (True, 24, 6)
        assert row["difference"] < ROUNDING
