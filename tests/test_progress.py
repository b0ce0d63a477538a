"""Progress bars: in place on a terminal, lines of their own in a log."""

from __future__ import annotations

import io
import sys

import pytest

from synbrain import progress


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def moved(show: bool = True) -> None:
    with progress.bar("fit", total=200, unit="step", show=show) as bar:
        for _ in range(200):
            bar.update(1)
    list(progress.track(range(3), "read", unit="image", show=show))


def test_a_log_gets_whole_lines_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    moved()
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["fit", "fit", "read", "read"]  # first and last state
    assert "200/200" in lines[1]
    assert "step/s" in lines[1]
    assert "3/3" in lines[3]


def test_a_log_hears_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with progress.bar("fit", total=5, unit="step", show=True) as bar:
        for _ in range(5):
            bar.update(1)
    states = [line.split("|")[2].split()[0] for line in log.getvalue().splitlines()]
    assert list(dict.fromkeys(states)) == [f"{done}/5" for done in range(6)]


def test_a_terminal_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    moved()
    assert terminal.getvalue().count("\r") >= 4
    assert terminal.getvalue().count("\n") == 2


def test_nothing_is_said_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    moved(show=False)
    assert log.getvalue() == ""
