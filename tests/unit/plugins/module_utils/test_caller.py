# SPDX-License-Identifier: GPL-3.0-or-later
"""A module whose play was killed must not go on by itself."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _caller, _process
from ansible_collections.clusterkit.storage.plugins.module_utils._caller import Caller, CallerGoneError


def test_a_pipe_and_a_socket_that_nobody_reads_any_more_are_noticed() -> None:
    reading, writing = os.pipe()
    caller = Caller(writing)
    assert not caller.is_gone
    os.close(reading)
    assert caller.is_gone
    os.close(writing)
    ours, theirs = socket.socketpair()  # what sshd gives to a command without a terminal
    caller = Caller(ours.fileno())
    assert not caller.is_gone
    theirs.close()
    assert caller.is_gone
    ours.close()


def test_many_threads_may_ask() -> None:
    reading, writing = os.pipe()
    caller = Caller(writing)
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _number: caller.is_gone, range(20000)))
    os.close(reading)
    os.close(writing)


def test_whoever_hands_on_the_output_gets_an_empty_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh learns from it that nobody reads its own output any more."""
    now = [100.0]
    monkeypatch.setattr(_caller.time, "monotonic", lambda: now[0])
    reading, writing = os.pipe()
    caller = Caller(writing)
    for _second in range(10):
        now[0] += 0.5
        assert not caller.is_gone
    assert os.read(reading, 100) == b"\n\n"
    monkeypatch.setattr(_caller.select, "poll", NothingYet)
    os.close(reading)
    now[0] += 5
    assert caller.is_gone, "closed between the look and the line"
    os.close(writing)


class NothingYet:
    def register(self, *_arguments: object) -> None:
        pass

    def poll(self, _timeout: int) -> list[tuple[int, int]]:
        return []


def test_a_file_is_always_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "output").open("w") as stream:
        caller = Caller(stream.fileno())
        monkeypatch.setattr(_caller.time, "monotonic", lambda: 1e12)
        assert not caller.is_gone
    assert (tmp_path / "output").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_asks_for_the_end_counts(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    reading, writing = os.pipe()
    try:
        caller = Caller(writing)
        caller.heed_signals()
        os.kill(os.getpid(), number)
        assert caller.is_gone
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(reading)
        os.close(writing)


def test_a_command_ends_with_whoever_asked_for_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    caller = Caller(writing)
    readers = [reading]
    started = time.monotonic()

    def gone() -> bool:
        if readers and time.monotonic() - started > 0.3:
            os.close(readers.pop())
        return caller.is_gone

    with pytest.raises(CallerGoneError):
        _process.run(["sh", "-c", f"sleep 60; touch {tmp_path}/done"], timeout=60, called_off=gone)
    assert time.monotonic() - started < 50
    time.sleep(0.2)
    assert list(tmp_path.iterdir()) == []
    os.close(writing)


def test_a_command_that_nobody_calls_off_ends_by_itself_or_at_its_deadline() -> None:
    assert _process.run(["sleep", "0.5"], timeout=60, called_off=lambda: False).succeeded
    started = time.monotonic()
    assert _process.run(["sleep", "60"], timeout=0.5, called_off=lambda: False).timed_out
    assert time.monotonic() - started < 50
