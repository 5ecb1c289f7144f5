# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command in a container of a pod, over a WebSocket, until it has ended.

The client of the Python library C(kubernetes) sends no other header than that of authorization: a user that is to be
impersonated would be forgotten, and the command run as somebody else.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import Response

with contextlib.suppress(ImportError):  # told by ApiModule
    import websocket
    from kubernetes.stream.ws_client import websocket_proxycare

# Each message begins with the number of its channel: 1 and 2 are the command's output, 3 is how it ended.
# The fifth version of it can close the input as well, which has none here.
_PROTOCOLS = ["v4.channel.k8s.io"]
_OUTPUT, _STATUS = (1, 2), 3
_KEPT = 4096  # bytes of output, for a message


class RefusedError(Exception):
    """The server did not begin: C(response) says why."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status}")
        self.response = response


def run(access: Access, path: str, container: str, argv: Sequence[str], *, connect: float, seconds: float) -> str:
    """Return why the command has failed, "" if it ended well.

    One that does not end in C(seconds) is left to itself: nobody can end it from here. Raises RefusedError, and OSError
    when the server cannot be reached or the connection broke before the end was told.
    """
    words = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", one) for one in argv)]
    deadline = time.monotonic() + seconds
    output, told = b"", b""
    try:
        channel = _open(access, f"{path}?{urlencode(words)}", connect)
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return f"did not end within {seconds:g} s, and may still run"
                channel.settimeout(left)
                code, frame = channel.recv_data_frame(True)
                if code == websocket.ABNF.OPCODE_CLOSE:
                    break
                kind, data = frame.data[:1], bytes(frame.data[1:])
                if code not in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY) or not kind:
                    continue
                if kind[0] in _OUTPUT:
                    output = (output + data)[-_KEPT:]
                elif kind[0] == _STATUS:
                    told += data
        except websocket.WebSocketConnectionClosedException:
            if not told:
                raise
        finally:
            channel.close(timeout=0)
    except websocket.WebSocketBadStatusException as error:
        body = getattr(error, "resp_body", None) or str(error).encode()
        raise RefusedError(Response(error.status_code, getattr(error, "resp_headers", None) or {}, body)) from error
    except websocket.WebSocketTimeoutException as error:
        if deadline <= time.monotonic():
            return f"did not end within {seconds:g} s, and may still run"
        raise OSError(str(error)) from error
    except websocket.WebSocketException as error:
        raise OSError(f"the connection broke before the command had told its end: {error}") from error
    return problem_of(told, output)


def problem_of(told: bytes, output: bytes) -> str:
    """What a Status of the API and the output of the command say of its end; "" if that was good."""
    try:
        status: Mapping[str, Any] = json.loads(told)
    except ValueError as error:
        raise OSError("the connection broke before the command had told its end") from error
    if status.get("status") == "Success":
        return ""
    causes = (status.get("details") or {}).get("causes") or []
    codes = [one.get("message") for one in causes if one.get("reason") == "ExitCode"]
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    said = f": {'; '.join(lines[-3:])}" if lines else ""
    return f"exit status {codes[0]}{said}" if codes else f"{status.get('message') or 'failed'}{said}"


def _open(access: Access, path: str, connect: float) -> Any:
    """A WebSocket by the same access as all other requests."""
    configuration = access.configuration
    url = f"{configuration.host.rstrip('/')}{path}"
    tls: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE}
    for name, setting in (
        ("ca_certs", "ssl_ca_cert"), ("certfile", "cert_file"), ("keyfile", "key_file"),
        ("server_hostname", "tls_server_name"),
    ):  # fmt: skip
        if getattr(configuration, setting, None):
            tls[name] = getattr(configuration, setting)
    if configuration.assert_hostname is not None or not configuration.verify_ssl:
        tls["check_hostname"] = bool(configuration.assert_hostname)
    # The kubelet offers no type of content for it, and refuses who wants a certain one (406).
    headers = ["Accept: */*"]
    headers += [f"{name}: {value}" for name, value in access.headers().items() if name.lower() != "accept"]
    options: dict[str, Any] = {"header": headers, "subprotocols": _PROTOCOLS, "timeout": connect}
    if configuration.proxy or configuration.proxy_headers:
        options = websocket_proxycare(options, configuration, url, {})
    channel: Any = websocket.WebSocket(sslopt=tls, skip_utf8_validation=True)
    channel.connect(f"ws{url[len('http') :]}", **options)
    return channel
