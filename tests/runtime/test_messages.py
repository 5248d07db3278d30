"""What the library tells: to whom, in which process and thread, and once."""

import logging
import threading

import pytest

from tlseg_jax.runtime import processes
from tlseg_jax.runtime.messages import log, quiet, shown


def test_lines_are_on_stdout_while_they_are_shown_and_in_no_other_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = log.level, log.propagate, list(log.handlers)
    with caplog.at_level(logging.DEBUG), shown():
        log.info("100 % of\ntwo lines")
        log.warning("a warning")
        log.debug("nobody's")
    assert capsys.readouterr() == ("100 % of\ntwo lines\na warning\n", "")
    assert not caplog.records and (log.level, log.propagate, log.handlers) == before
    with caplog.at_level(logging.INFO):  # who configures logging hears it, too
        log.info("later")
    assert caplog.messages == ["later"] and capsys.readouterr().out == ""


def test_a_quiet_thread_is_alone_in_it(said: list[str]) -> None:
    def other() -> None:
        log.info("from another thread")

    with quiet():
        log.warning("unheard")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with quiet():
            pass
        log.warning("unheard")
    log.info("again")
    assert said == ["from another thread", "again"]


def test_of_several_processes_the_chief_prints(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.setattr(processes, "index", lambda: 1)
    log.info("of process 1")
    monkeypatch.setattr(processes, "index", lambda: 0)
    log.info("of process 0")
    assert said == ["of process 0"]


def test_what_writing_raises_is_not_swallowed() -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError(line)

    with pytest.raises(BrokenPipeError), shown(gone):
        log.info("a line")
