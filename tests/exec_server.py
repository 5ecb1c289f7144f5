# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kubelet does with a command for a container, for tests: the command runs on this machine.

It speaks v4.channel.k8s.io over a WebSocket (RFC 6455): each message begins with the number of its channel, 1 and 2 are
the output, 3 is a Status of the API that tells how the command has ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 2, 8


def run_for(handler: BaseHTTPRequestHandler, *, tells: bool = True) -> None:
    """Run the command that a request names; without C(tells) the connection breaks before its end is told."""
    handler.close_connection = True
    if handler.headers.get("Accept", "*/*") != "*/*":
        handler.send_error(406, "Not Acceptable")
        return
    key = handler.headers["Sec-WebSocket-Key"]
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    accept = base64.b64encode(hashlib.sha1(f"{key}{_MAGIC}".encode(), usedforsecurity=False).digest())
    handler.send_header("Sec-WebSocket-Accept", accept.decode())
    handler.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
    handler.end_headers()
    handler.wfile.flush()
    argv = parse_qs(urlsplit(handler.path).query)["command"]
    output: list[tuple[int, bytes]] = []
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        output, status = [(1, done.stdout), (2, done.stderr)], _status(done.returncode)
    except OSError as error:
        status = {"status": "Failure", "reason": "InternalError", "message": str(error)}
    # Who has waited long enough is gone.
    with suppress(OSError):
        for channel, data in output:
            for start in range(0, len(data), 1000):
                handler.wfile.write(_frame(_BINARY, bytes([channel]) + data[start : start + 1000]))
        if tells:
            handler.wfile.write(_frame(_BINARY, b"\3" + json.dumps(status).encode()))
            handler.wfile.write(_frame(_CLOSE, struct.pack("!H", 1000)))
        handler.wfile.flush()


def _status(code: int) -> dict[str, Any]:
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _frame(kind: int, data: bytes) -> bytes:
    head = (
        struct.pack("!BB", 0x80 | kind, len(data))
        if len(data) < 126
        else struct.pack("!BBH", 0x80 | kind, 126, len(data))
    )
    return head + data
