"""What we wrote is told from what others put there, also after a stop at any moment."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import RECORD, Written, publishing


def publish(folder: Path, **files: str) -> None:
    with publishing(folder, "page") as beside:
        for name, text in files.items():
            path = beside / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: p.read_text() for n, p in found.items() if n != RECORD and not n.startswith(".")}


class Stopped(BaseException):
    """As a kill does, but that the test goes on."""


@pytest.mark.parametrize("stop", range(1, 9))
def test_after_a_stop_at_any_step_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    publish(tmp_path, page="1", figures__a="1", figures__old="1")
    (tmp_path / "figures" / "mine").write_text("mine")
    replace, unlink, steps = os.replace, os.unlink, iter(range(1, 100))

    def count(call: Callable[..., None]) -> Callable[..., None]:
        def counted(*given: Any, **named: Any) -> None:
            if next(steps) >= stop:
                raise Stopped
            return call(*given, **named)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", count(replace))
        patch.setattr(os, "unlink", count(unlink))
        with pytest.raises(Stopped):
            publish(tmp_path, page="2", figures__a="2", figures__b="2")
    publish(tmp_path, page="3", figures__a="3", figures__b="3")
    assert contents(tmp_path) == {"page": "3", "figures/a": "3", "figures/b": "3", "figures/mine": "mine"}


def test_what_somebody_else_put_there_or_changed_is_theirs(tmp_path: Path) -> None:
    written = Written(tmp_path)
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").symlink_to("nowhere")
    assert written.others(["a", "b", "c"]) == ["a", "b"]
    written.add({"a": hashlib.sha256(b"2").hexdigest()})
    assert written.others(["a"]) == ["a"]  # as it would be after a stop here
    (tmp_path / "a").write_text("2")
    assert written.others(["a"]) == []
    written.add({"a": hashlib.sha256(b"3").hexdigest()})
    assert written.others(["a"]) == []
    (tmp_path / "a").write_text("2, corrected")
    assert written.others(["a"]) == ["a"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": 1}}', '{"files": {"a": {"sha256": "x"}}}'])
def test_a_damaged_list_or_another_file_of_that_name_is_said_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(InputError, match=f"{RECORD}, the list of what was written there, cannot be read .*move it"):
        publish(tmp_path, page="1")
    assert contents(tmp_path) == {} and (tmp_path / RECORD).read_text() == text
