"""A model's folder: whole or not there, the same when made twice, and nothing in it taken on trust."""

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import write_store
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.checkpoints.exported import load_exported
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.export import model_folder
from tlseg_jax.export.load import load_any_model
from tlseg_jax.export.model_folder import export_model
from tlseg_jax.export.stablehlo import export_network
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.run import prepare_run
from tlseg_jax.train.seen import seen_subjects


@pytest.fixture(scope="module", autouse=True)
def lowered_once() -> Iterator[None]:
    """All exports here are of one run: each choice of platforms is lowered once."""
    made: dict[tuple[str, ...], bytes] = {}

    def export(config: Any, params: Any, batch_stats: Any, platforms: Sequence[str]) -> bytes:
        if tuple(platforms) not in made:
            made[tuple(platforms)] = export_network(config, params, batch_stats, platforms)
        return made[tuple(platforms)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "export_network", export)
        yield


@pytest.fixture(scope="module")
def model(volume_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 3D run, exported; read only."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(volume_run, folder, licence="CC0")
    return folder


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def files(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time and checksum of every file."""
    return {
        p.relative_to(folder).as_posix(): (
            p.stat().st_ino,
            p.stat().st_mtime_ns,
            hashlib.sha256(p.read_bytes()).hexdigest(),
        )
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def only(folder: Path, name: str) -> bool:
    """Whether a folder holds this and nothing else."""
    return [p.name for p in folder.iterdir()] == [name]


def test_the_checkpoint_is_the_runs(model: Path, volume_run: Path) -> None:
    ours, theirs = load_model(volume_run), load_exported(model)
    assert (theirs.config, theirs.step) == (ours.config, ours.step)
    jax.tree.map(np.testing.assert_array_equal, (ours.params, ours.batch_stats), (theirs.params, theirs.batch_stats))
    for key in ("spec", "prepare", "patch_box", "seen_images", "synthetic", "n"):
        assert theirs.description[key] == ours.description[key]


def test_every_file_but_the_card_has_its_checksum(model: Path) -> None:
    card = read_json(model / "card.json")
    found = {name: checksum for name, (_, _, checksum) in files(model).items() if name != "card.json"}
    assert card["files"] == found
    assert {"CARD.md", "model.stablehlo", "checkpoint/description/metadata"} <= set(found)
    assert only(model.parent, "model")


def test_no_file_names_a_subject_a_person_or_a_place(model: Path, volume_run: Path) -> None:
    run = load_model(volume_run)
    names = [*read_json(volume_run / "settings.json")["data"]["subjects"], *run.description["seen_persons"]]
    assert len(names) >= 8
    for path in model.rglob("*"):
        for name in (*names, "person-", str(volume_run.parent), str(model.parent)):
            assert not path.is_file() or name.encode() not in path.read_bytes(), path


def test_a_scan_that_was_seen_is_still_found_by_its_checksum(model: Path, tiny_store: Any) -> None:
    """The store of the run's own scans: all its training scans, and no other."""
    assert seen_subjects(tiny_store, "train", load_exported(model).description) == tiny_store.subjects("train")
    assert seen_subjects(tiny_store, "test", load_exported(model).description) == ()


def test_a_run_may_start_from_it(model: Path, volume_run: Path, tmp_path: Path) -> None:
    settings = JobSettings(load_exported(model).config, get_recipe("default"), 2)
    other = write_store(tmp_path / "other", first=20)
    with lock_folder(tmp_path / "run"):
        run = prepare_run(other, settings, tmp_path / "run", Pretrained.load(model))
    jax.tree.map(np.testing.assert_array_equal, dict(run.state.params), load_model(volume_run).params)
    seen = load_model(volume_run).description["seen_images"]
    assert seen and set(seen) < set(run.description["seen_images"])
    mixed = write_store(tmp_path / "mixed", train=1, test=3)  # its test subjects are three that trained it
    with pytest.raises(InputError, match="so the scores would be too good"):
        prepare_run(mixed, settings, tmp_path / "run", Pretrained.load(model))


def test_twice_is_once(copied: Path, volume_run: Path, said: list[str]) -> None:
    before = files(copied)
    export_model(volume_run, copied, licence="CC0")
    assert files(copied) == before and len(said) == 1 and "there already" in said[0]
    card = export_model(volume_run, copied, licence="CC BY 4.0")
    assert card["licence"] == read_json(copied / "card.json")["licence"] == "CC BY 4.0" and len(said) == 1
    assert "CC BY 4.0" in (copied / "CARD.md").read_text()
    assert only(copied.parent, "model")


def test_a_damaged_export_is_made_again(copied: Path, volume_run: Path) -> None:
    (copied / "model.stablehlo").write_bytes(b"")
    export_model(volume_run, copied, licence="CC0")
    assert load_any_model(copied / "model.stablehlo").kind == "program"


@pytest.mark.parametrize("what", ["a file", "a folder", "another run", "a link"])
def test_what_is_no_export_of_this_run_stays(what: str, tmp_path: Path, volume_run: Path, copied: Path) -> None:
    output = tmp_path / "output"
    if what == "a file":
        output.write_text("mine")
    elif what == "a folder":
        output.mkdir()
        (output / "notes.txt").write_text("mine")
    elif what == "a link":
        output.symlink_to(copied)
    else:
        output = copied
        card = read_json(output / "card.json")
        (output / "card.json").write_text(json.dumps(card | {"run": "f" * 64}))
    before = files(tmp_path)
    with pytest.raises(InputError, match="exists and is no export of this run"):
        export_model(volume_run, output, licence="CC BY 4.0")
    assert files(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["notes.txt", "checkpoint/mine", "CARD.md"])
def test_what_somebody_added_or_wrote_is_not_lost(name: str, copied: Path, volume_run: Path) -> None:
    (copied / name).write_text("Please cite us.")
    before = files(copied)
    with pytest.raises(InputError, match=rf"{name} was added or edited since the export and would be lost: move it"):
        export_model(volume_run, copied, licence="another")
    assert files(copied) == before


@pytest.mark.parametrize("name", ["a[1]b", "a*b?", "a\\b"])
def test_the_folder_may_have_any_name(name: str, tmp_path: Path, volume_run: Path, model: Path) -> None:
    export_model(volume_run, tmp_path / name, licence="CC BY 4.0", platforms=("cpu",))
    assert {p.name for p in tmp_path.iterdir()} == {name}
    a, b = load_exported(tmp_path / name), load_exported(model)
    assert jax.tree.all(jax.tree.map(np.array_equal, a.params, b.params))
    assert not [p for p in (tmp_path / name).rglob("*") if p.is_file() and b"/tmp" in p.read_bytes()]


def test_an_empty_folder_may_be_filled(tmp_path: Path, volume_run: Path) -> None:
    (tmp_path / "model").mkdir()
    export_model(volume_run, tmp_path / "model", platforms=["cpu"])
    assert load_exported(tmp_path / "model").step == load_model(volume_run).step
    assert read_json(tmp_path / "model" / "card.json")["program"]["platforms"] == ["cpu"]


def test_a_run_without_a_model_and_a_model_as_a_run(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no trained model"):
        export_model(tmp_path / "none", tmp_path / "model")
    with pytest.raises(InputError, match="an exported model already"):
        export_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first", [True, False])
def test_an_export_that_fails_leaves_what_was_there(
    first: bool, copied: Path, volume_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first:
        shutil.rmtree(copied)
    before = files(copied)

    def fail(*_: object) -> bytes:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(model_folder, "export_network", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        export_model(volume_run, copied, licence="another")
    assert files(copied) == before
    assert only(copied.parent, "model") if not first else not list(copied.parent.iterdir())


def test_a_full_disk_is_met_before_anything_is_written(
    tmp_path: Path, volume_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError) as caught:
        export_model(volume_run, tmp_path / "model")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_between_the_renames_is_mended(
    renames: int, copied: Path, volume_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0: before the first rename; 1: the old model is aside and the new one not yet there; 2: both are done."""
    done: list[Path] = []
    real, remove = Path.rename, shutil.rmtree

    def rename(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(path)
        return real(path, target)

    def rmtree(path: Path, **given: Any) -> None:
        if len(done) == 2 and path.name.endswith(".old"):
            raise Killed
        if given.get("ignore_errors"):
            return  # a killed process cleans nothing up
        remove(path, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(model_folder.shutil, "rmtree", rmtree)
        with contextlib.suppress(Killed):
            export_model(volume_run, copied, licence="second")
    assert len(done) == renames and not only(copied.parent, "model")
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(model_folder.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
        export_model(volume_run, copied, licence="third")
    # One that fails in between has still put back what was there.
    assert read_json(copied / "card.json")["licence"] == ("second" if renames == 2 else "CC0")
    assert only(copied.parent, "model")
    export_model(volume_run, copied, licence="third")
    assert only(copied.parent, "model")
    assert read_json(copied / "card.json")["licence"] == "third"
    load_exported(copied)


def test_two_exports_at_once(tmp_path: Path, volume_run: Path) -> None:
    with lock_folder(tmp_path / ".model.new"), pytest.raises(InputError, match="in use by another process"):
        export_model(volume_run, tmp_path / "model")


def flip(path: Path, at: int | None = None) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2 if at is None else at] ^= 1
    path.write_bytes(held)


def test_a_flipped_bit_of_any_file_is_found_and_named(copied: Path) -> None:
    names = [n for n in read_json(copied / "card.json")["files"] if n != "CARD.md"]
    assert len(names) > 5
    for name in names:
        whole = (copied / name).read_bytes()
        flip(copied / name)
        program = name == "model.stablehlo"
        with pytest.raises(InputError) as caught:
            load_any_model(copied / "model.stablehlo" if program else copied)
        assert str(copied / name) in str(caught.value) and "checksum" in str(caught.value)
        # The other of the two is whole, and serves.
        load_any_model(copied if program else copied / "model.stablehlo")
        (copied / name).write_bytes(whole)
    (copied / names[0]).unlink()
    with pytest.raises(InputError, match="is missing"):
        load_exported(copied)


def test_a_card_may_be_edited_but_not_in_what_predictions_depend_on(copied: Path) -> None:
    card = read_json(copied / "card.json")
    (copied / "card.json").write_text(json.dumps(card | {"licence": "mine", "intended_use": []}))
    load_exported(copied)
    card["model"]["spec"]["spacing"] = [2.0, 2.0, 2.0]
    (copied / "card.json").write_text(json.dumps(card))
    for path in (copied, copied / "model.stablehlo"):
        with pytest.raises(InputError, match=r"card\.json was changed or damaged"):
            load_any_model(path)
    for text, fault in (("{", "cannot be read"), ("[]", "is no card"), ('{"files": {}, "format": 9}', "version")):
        (copied / "card.json").write_text(text)
        with pytest.raises(InputError, match=fault):
            load_exported(copied)
