# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an NFS server for a sign of life without touching any mount of it: the NULL call of the NFS protocol."""

from __future__ import annotations

import os
import socket
import struct

NFS_PORT = 2049
_NFS_PROGRAM = 100003
_CALL, _REPLY, _RPC_VERSION, _NULL = 0, 1, 2, 0
_LAST_FRAGMENT = 0x80000000


def answers(address: str, port: int = NFS_PORT, *, timeout: float) -> bool:
    """Tell whether the NFS server at an address answers within `timeout` seconds.

    Any answer counts, also that it does not serve this version. A host that is up while its NFS server hangs
    accepts the connection and then says nothing: only the call tells.
    """
    xid = int.from_bytes(os.urandom(4), "big")
    call = struct.pack(">10L", xid, _CALL, _RPC_VERSION, _NFS_PROGRAM, 4, _NULL, 0, 0, 0, 0)
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">L", _LAST_FRAGMENT | len(call)) + call)
            reply = b""
            while len(reply) < 12:
                received = connection.recv(12 - len(reply))
                if not received:
                    return False
                reply += received
    except OSError:
        return False
    _length, reply_xid, kind = struct.unpack(">3L", reply)
    return bool(reply_xid == xid and kind == _REPLY)
