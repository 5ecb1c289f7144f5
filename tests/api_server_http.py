# SPDX-License-Identifier: GPL-3.0-or-later
"""The small Kubernetes API of api_server.py, on the loopback. What is to happen to requests happens here."""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.clusterkit.storage.tests.api_server import Cluster, RefusedError, Thing
from ansible_collections.clusterkit.storage.tests.exec_server import run_for

# What can happen to a request and is an answer.
_REFUSALS: dict[str, tuple[int, str]] = {
    "too many": (429, "too many requests"),
    "unavailable": (503, "not now"),
    "error": (500, "internal error"),
    "expired": (410, "the provided continue parameter is too old"),
    "forbidden": (403, "RBAC says no"),
    "conflict": (409, "the object has been modified"),
}
_EXEC = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/exec")
_PATH = re.compile(r"(?:/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/([^/]+)(?=/))?/([^/]+)(?:/([^/]+)(?:/(status))?)?")


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cluster.asked.append(f"{self.command} {self.path}")
        fate = self.cluster.fate(self.command, self.path)
        if fate in _REFUSALS:
            self._answer(_REFUSALS[fate][0], {"kind": "Status", "message": _REFUSALS[fate][1]})
            return
        if fate == "dropped":
            self.close_connection = True
            return
        try:
            if _EXEC.fullmatch(urlsplit(self.path).path):
                self._run_command(tells=fate != "lost")
                return
            status, answer = 200, self._carry_out(json.loads(data) if data else {})
        except RefusedError as refusal:
            status, answer = refusal.status, {"kind": "Status", "code": refusal.status, "message": refusal.message}
        if fate == "lost":
            self.close_connection = True
        elif fate == "error after":
            self._answer(500, {"kind": "Status", "message": "etcd did not answer"})
        elif answer is not None:
            self._answer(status, answer)

    def _carry_out(self, body: Thing) -> Thing | None:
        """None: it was a watch, which has answered by itself."""
        place = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        if place.path == "/version":
            return {"gitVersion": "v1.37.2"}
        found = _PATH.fullmatch(place.path)
        if found is None:
            raise RefusedError(404, "the server could not find the requested resource")
        namespace, resource, name, subresource = (part or "" for part in found.groups())
        if self.command == "PATCH":
            key = (resource, namespace, name)
            return self.cluster.patch(key, subresource, body, dry_run=query.get("dryRun") == "All")
        if self.command == "DELETE":
            return self.cluster.delete((resource, namespace, name), body)
        if self.command == "POST":
            key = (resource, namespace, body["metadata"]["name"])
            return self.cluster.create(key, body, dry_run=query.get("dryRun") == "All")
        if name:
            return self.cluster.read(resource, namespace, name)
        if query.get("watch"):
            self._stream(self.cluster.watch(resource, namespace, query))
            return None
        return self.cluster.list_page(resource, namespace, query)

    def _run_command(self, *, tells: bool) -> None:
        place = urlsplit(self.path)
        namespace, name = place.path.split("/")[4:7:2]
        containers = self.cluster.read("pods", namespace, name)["spec"]["containers"]
        if parse_qs(place.query)["container"][0] not in [one["name"] for one in containers]:
            raise RefusedError(400, "container is not valid for pod")
        self.cluster.headers.append({key: self.headers.get_all(key) for key in self.headers})
        run_for(self, tells=tells)

    def _stream(self, events: Iterator[Thing]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):  # the client has seen enough
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, content: Thing) -> None:
        data = json.dumps(content, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that has waited long enough, or that does not trust the certificate.
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Cluster]:
    """A cluster whose API can be reached at its C(url)."""
    cluster = Cluster()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    cluster.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
