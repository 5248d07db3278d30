"""The parallel benchmark's tables, of a tiny network on the one device that there is here."""

from typing import Any

import jax
import pytest

from benchmarks import parallel
from benchmarks.tables import TABLES
from tests.train.parallel_run import TINY
from tlseg_jax.train.parallel import ONE, Parallel

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_ways_share_all_devices_by_powers_of_two() -> None:
    devices: list[Any] = list(range(8))
    found = parallel.ways(devices)
    assert next(iter(found)) == "one" and found["one"] is ONE
    assert [p.data for n, p in found.items() if n.startswith("pmap")] == [2, 4, 8]
    meshes = [(p.data, p.space) for n, p in found.items() if n.startswith("mesh")]
    assert meshes == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert all(len(p.devices) == p.data * p.space for n, p in found.items() if n != "one")


@pytest.mark.slow
def test_a_mesh_of_one_device_is_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exchanged, and nothing differs but the rounding."""
    mesh = {"one": ONE, "pmap 2": Parallel("pmap", 1, 1, (jax.devices()[0],))}
    monkeypatch.setattr(parallel, "ways", lambda devices: mesh)
    monkeypatch.setattr(parallel, "STEPS", 2)
    case = parallel.measure(TINY, jax.devices()[:1], 1, (8, 8, 8))
    assert case["equality"]["none"]["pmap 2"]["losses"] < 1e-5
    assert case["memory"]["one"]["temporary_bytes"] > 0
    equality, memory, time = TABLES["parallel"]({"cases": [case]})
    assert [row[:2] for row in equality.rows] == [["pmap 2", "none"], ["pmap 2", "encoder"]]
    assert [row[0] for row in memory.rows] == ["one", "pmap 2"] and memory.rows[0][3] == "none"
    assert [row[0] for row in time.rows] == ["pmap 2"]
