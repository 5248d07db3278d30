"""Kill `prepare` at random moments, run it again, and compare what it leaves with a store that nobody touched.

    python -m tests.preprocess.prepare_kill_trials --kills=10 --seed=0

A process is forked for each call, so that the libraries are imported once. It is killed by SIGKILL: in the modes
"one", "shards" and "redo" by itself at a file operation drawn from those that an uninterrupted call makes, so that
every operation is as likely as another however fast the machine is; in the mode "workers", where worker processes
write, at a drawn time by its parent. Prints a tally as JSON; fails where a store differs.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import Volumes, prepare_dataset
from tlseg_jax.preprocess.store.shards import Shard

MODES = ("one", "redo", "shards", "workers")
SCANS = 4
SETTINGS = PrepareSettings(registration="skip", bias_correction=False, order=1)
OTHER = dataclasses.replace(SETTINGS, order=0)
SPEC = DatasetSpec(
    "few", ("ball",), VolumeGrid("native", (70, 12, 12), (2.0, 2.0, 2.0), (8, 8, 8), train_count=3, test_count=1), "few"
)
EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")
TIMES = ("seconds", "written", "source_files")

Call = Callable[[Path, Path], None]


def _prepare(settings: PrepareSettings, workers: int = 1) -> Call:
    def call(source: Path, root: Path) -> None:
        prepare_dataset(SPEC, source, root, settings, workers=workers, overwrite=True, progress=False)

    return call


def _shard(index: int) -> Call:
    def call(source: Path, root: Path) -> None:
        Volumes(SPEC, source, root, SETTINGS).prepare(shard=Shard(index, 2), workers=1, progress=False)

    return call


def calls(mode: str) -> tuple[list[Call], list[Call]]:
    """What is done before the kill, and the calls of which one is killed and which finish the store again."""
    if mode == "shards":
        return [], [_shard(1), _shard(0)]
    if mode == "redo":  # killed while its arrays are replaced, then asked for what it was before
        return [_prepare(SETTINGS)], [_prepare(OTHER)]
    return [], [_prepare(SETTINGS, workers=2 if mode == "workers" else 1)]


def write_scans(folder: Path) -> None:
    """Small scans of a ball; the last has no label in it, and is excluded."""
    folder.mkdir()
    for i in range(SCANS):
        rng = np.random.default_rng(i)
        at = np.indices((70, 12, 12)) - np.array([34.5, 5.5, 5.5])[:, None, None, None]
        label = ((at**2).sum(0) < 9) * (i < SCANS - 1)
        image = rng.normal(0, 10, label.shape) + 500 * ((at**2).sum(0) < 400)
        for kind, volume in (("T1w", image.astype(np.float32)), ("labels", label.astype(np.uint8))):
            nib.Nifti1Image(volume, np.diag([2.1, 2.1, 2.1, 1.0])).to_filename(folder / f"sub-{i}_{kind}.nii.gz")


def child(call: Call, source: Path, root: Path, die_at: int | None = None) -> tuple[int, int]:
    """Make a call in a process of its own, which kills itself at its file operation number `die_at`.

    Returns:
      What `os.waitstatus_to_exitcode` gives, and how many operations there were if it ended by itself.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            seen = 0

            def watch(event: str, arguments: tuple[Any, ...]) -> None:
                nonlocal seen
                if event in EVENTS and str(root) in str(arguments[0]):
                    seen += 1
                    if seen == die_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            call(source, root)
            os.write(writer, str(seen).encode())
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(said or 0)


def killed_after(call: Call, source: Path, root: Path, seconds: float) -> bool:
    """Make a call in a process of its own and kill that after some time; whether it was still running."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call(source, root)
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def arrays_of(root: Path) -> dict[str, bytes]:
    """Every file of every subject's group."""
    subjects = root / SPEC.name / "subjects"
    files = [p for p in subjects.rglob("*") if p.is_file() and not p.relative_to(subjects).parts[0].startswith(".")]
    return {str(p.relative_to(subjects)): p.read_bytes() for p in files if ".zarr" in str(p)}


def records_of(root: Path) -> dict[str, Any]:
    """The manifest and every record, without times."""
    folder = root / SPEC.name
    paths = [*sorted((folder / "subjects").glob("*.json")), folder / "manifest.json"]
    return {p.name: without_times(json.loads(p.read_text())) for p in paths if p.exists()}


def without_times(value: Any) -> Any:
    """A manifest or a record less what another call takes."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return value


def check_after_kill(root: Path, references: list[dict[str, bytes]]) -> None:
    """Check that no subject is half there: its group is one of those that uninterrupted calls make, or missing."""
    there = arrays_of(root)
    for i in range(SCANS):
        name = f"sub-{i}"
        group = {k: v for k, v in there.items() if k.startswith(f"{name}.zarr/")}
        if not (root / SPEC.name / "subjects" / f"{name}.json").exists():
            continue  # without its record what is there is replaced, in whichever state it is
        wholes = [{k: v for k, v in r.items() if k.startswith(f"{name}.zarr/")} for r in references]
        assert group in wholes, f"{name} has a record and is not whole in {root}"


def run(kills: int, seed: int, modes: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Kill that many times, one mode after the other, and compare after each."""
    draw = random.Random(seed)
    source = folder / "source"
    write_scans(source)
    begin = time.monotonic()
    for name, settings in (("reference", SETTINGS), ("other", OTHER)):
        assert child(_prepare(settings), source, folder / name)[0] == 0
    wanted, wanted_records = arrays_of(folder / "reference"), records_of(folder / "reference")
    wholes = [wanted, arrays_of(folder / "other")]
    assert len({k.split("/")[0] for k in wanted}) == SCANS - 1 and wholes[0] != wholes[1]
    lengths: dict[str, list[int]] = {}
    seconds = 0.0
    for mode in modes:  # how many operations each call makes that one of the kills is drawn from
        before, after = calls(mode)
        root = folder / f"whole-{mode}"
        for call in before:
            assert child(call, source, root)[0] == 0
        start = time.monotonic()
        done = [child(call, source, root) for call in after]
        seconds = time.monotonic() - start if mode == "workers" else seconds
        assert all(code == 0 for code, _ in done)
        lengths[mode] = [count for _, count in done]
    tally: dict[str, Any] = {"kills": 0, "by_mode": dict.fromkeys(modes, 0), "half_written": 0, "moments": []}
    attempt = 0
    while tally["kills"] < kills:
        mode = modes[tally["kills"] % len(modes)]
        root = folder / f"trial-{attempt}"
        attempt += 1
        assert attempt < 5 * kills + 10, "most calls ended before they were killed"
        before, after = calls(mode)
        for call in before:
            assert child(call, source, root)[0] == 0
        which = draw.randrange(len(after))
        for call in after[:which]:
            assert child(call, source, root)[0] == 0
        if mode == "workers":
            moment: float = round(draw.uniform(0.2, 1) * seconds, 3)
            if not killed_after(after[which], source, root, moment):
                continue
        else:
            moment = draw.randint(1, lengths[mode][which])
            assert child(after[which], source, root, die_at=int(moment))[0] == -signal.SIGKILL
        tally["kills"] += 1
        tally["by_mode"][mode] += 1
        tally["moments"].append([mode, which, moment])
        tally["half_written"] += bool(list(root.rglob("*.tmp")))
        if (root / SPEC.name / "subjects").exists():
            check_after_kill(root, wholes)
        # The same command again goes on, and what it leaves is what nobody interrupted would have left.
        for call in before if mode == "redo" else after:
            assert child(call, source, root)[0] == 0
        assert arrays_of(root) == wanted, f"{root}: other arrays than those of an uninterrupted call"
        assert records_of(root) == wanted_records, f"{root}: other records"
        assert not list(root.rglob("*.tmp")), f"{root}: something half written is left"
    return tally | {"identical": tally["kills"], "operations": lengths, "seconds": round(time.monotonic() - begin, 1)}


def main() -> None:
    """Read the arguments and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options.kills, options.seed, tuple(options.modes.split(",")), Path(folder))))


if __name__ == "__main__":
    main()
