# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an NFS server for a sign of life without touching any mount of it: the NULL call of the NFS protocol."""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass

NFS_PORT = 2049
_NFS_PROGRAM = 100003
_CALL, _REPLY, _RPC_VERSION, _NULL = 0, 1, 2, 0
_LAST_FRAGMENT = 0x80000000


@dataclass(frozen=True)
class Answer:
    """What a server said to the NULL call."""

    answers: bool
    latency: float | None  # seconds until the reply; None without one
    detail: str  # why there was no reply


def ask(address: str, port: int = NFS_PORT, *, timeout: float) -> Answer:
    """Make the NULL call of the NFS server at an address over TCP, and return within `timeout` seconds.

    Any reply counts, also that it does not serve this version. A host that is up while its NFS server hangs
    accepts the connection and then says nothing: only the call tells.
    """
    started = time.monotonic()
    xid = int.from_bytes(os.urandom(4), "big")
    call = struct.pack(">10L", xid, _CALL, _RPC_VERSION, _NFS_PROGRAM, 4, _NULL, 0, 0, 0, 0)
    step = "no connection"
    try:
        with socket.create_connection((address, port), timeout) as connection:
            step = "connected, but no reply to the NULL call"
            connection.settimeout(_left(started, timeout))
            connection.sendall(struct.pack(">L", _LAST_FRAGMENT | len(call)) + call)
            reply = b""
            while len(reply) < 12:
                connection.settimeout(_left(started, timeout))
                received = connection.recv(12 - len(reply))
                if not received:
                    return Answer(False, None, "the connection was closed without a reply")
                reply += received
    except (TimeoutError, socket.timeout):
        return Answer(False, None, f"{step} within {timeout:.3g} s")
    except OSError as error:
        return Answer(False, None, f"{step}: {error.strerror or error}")
    _length, reply_xid, kind = struct.unpack(">3L", reply)
    if reply_xid != xid or kind != _REPLY:
        return Answer(False, None, "what answers there is no RPC server")
    return Answer(True, round(time.monotonic() - started, 6), "")


def answers(address: str, port: int = NFS_PORT, *, timeout: float) -> bool:
    """Tell whether the NFS server at an address answers within `timeout` seconds."""
    return ask(address, port, timeout=timeout).answers


def _left(started: float, timeout: float) -> float:
    left = started + timeout - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
