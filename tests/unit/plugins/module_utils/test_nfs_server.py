# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_server


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _peer = listening.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def reply(connection: socket.socket) -> None:
    length, xid, kind, rpc_version, program, version, procedure = struct.unpack(">7L", connection.recv(44)[:28])
    assert (length, kind, rpc_version, program, version, procedure) == (0x80000000 | 40, 0, 2, 100003, 4, 0)
    answer = struct.pack(">6L", xid, 1, 0, 0, 0, 0)
    connection.sendall(struct.pack(">L", 0x80000000 | len(answer)) + answer[:2])
    time.sleep(0.05)
    connection.sendall(answer[2:])


def test_a_server_that_replies_is_alive() -> None:
    with server(reply) as port:
        assert _nfs_server.answers("127.0.0.1", port, timeout=5)


def test_a_host_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with server(lambda _connection: time.sleep(1)) as port:
        started = time.monotonic()
        assert not _nfs_server.answers("127.0.0.1", port, timeout=0.3)
        assert time.monotonic() - started < 0.9


def test_a_host_that_hangs_up_or_refuses_is_not_alive() -> None:
    with server(lambda _connection: None) as port:
        assert not _nfs_server.answers("127.0.0.1", port, timeout=5)
    assert not _nfs_server.answers("127.0.0.1", port, timeout=5)


def test_the_reply_to_something_else_does_not_count() -> None:
    with server(lambda connection: connection.sendall(struct.pack(">3L", 0, 1, 1))) as port:
        assert not _nfs_server.answers("127.0.0.1", port, timeout=5)


def test_a_host_that_ends_in_the_middle_of_its_reply_is_not_alive() -> None:
    def half(connection: socket.socket) -> None:
        connection.recv(44)
        connection.sendall(b"\0" * 5)

    with server(half) as port:
        assert not _nfs_server.answers("127.0.0.1", port, timeout=5)


def test_why_there_was_no_reply_is_told() -> None:
    with server(reply) as port:
        answer = _nfs_server.ask("127.0.0.1", port, timeout=5)
    assert (answer.answers, answer.detail) == (True, "")
    assert answer.latency is not None and 0 < answer.latency < 5
    assert _nfs_server.ask("127.0.0.1", port, timeout=5).detail == "no connection: Connection refused"
    with server(lambda _connection: time.sleep(1)) as port:
        said = _nfs_server.ask("127.0.0.1", port, timeout=0.3)
    assert said == _nfs_server.Answer(False, None, "connected, but no reply to the NULL call within 0.3 s")
    with server(lambda connection: connection.sendall(struct.pack(">3L", 0, 1, 1))) as port:
        assert _nfs_server.ask("127.0.0.1", port, timeout=5).detail == "what answers there is no RPC server"


def test_a_server_that_dribbles_does_not_stretch_the_deadline() -> None:
    def dribble(connection: socket.socket) -> None:
        for _byte in range(11):
            time.sleep(0.2)
            try:
                connection.sendall(b"\0")
            except OSError:
                return

    with server(dribble) as port:
        started = time.monotonic()
        assert not _nfs_server.answers("127.0.0.1", port, timeout=0.5)
        assert time.monotonic() - started < 1
