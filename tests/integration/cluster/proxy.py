# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy in front of the API server that does to requests what networks and busy servers do."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .cluster import Cluster

# What can happen to a request. "lost" is carried out, but its answer never arrives; so is "error after".
FAULTS = ("conflict", "too many", "error", "error after", "unavailable", "dropped", "lost", "slow", "expired")


class Proxy:
    def __init__(
        self, cluster: Cluster, rate: float, seed: int, faults: tuple[str, ...], methods: tuple[str, ...]
    ) -> None:
        self.cluster = cluster
        self.rate = rate
        self.faults = faults
        self.methods = methods
        self.met: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()  # patches that the API server carried out, by path
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        pki = cluster.plane.folder / "pki"
        context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def fault(self, method: str, path: str) -> str:
        with self._lock:
            if method not in self.methods or self._random.random() >= self.rate:
                return ""
            chosen = self._random.choice(self.faults)
            fits = {"conflict": method == "PATCH", "expired": "continue=" in path}.get(chosen, True)
            if fits:
                self.met[chosen] += 1
            return chosen if fits else ""

    def count(self, path: str) -> None:
        with self._lock:
            self.effects[path.partition("?")[0]] += 1


@contextmanager
def proxied(
    cluster: Cluster,
    rate: float,
    *,
    seed: int = 1,
    faults: tuple[str, ...] = FAULTS,
    methods: tuple[str, ...] = ("GET", "PATCH"),
) -> Iterator[Proxy]:
    proxy = Proxy(cluster, rate, seed, faults, methods)
    thread = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: http.client.HTTPSConnection | None = None

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault(self.command, self.path)
        refusal = {
            "conflict": (409, "the object has been modified", {}),
            "too many": (429, "too many requests", {"Retry-After": "0.2"}),
            "error": (500, "internal error", {}),
            "unavailable": (503, "not now", {}),
            "expired": (410, "the provided continue parameter is too old", {}),
        }.get(fault)
        if refusal:
            self._answer(refusal[0], json.dumps({"message": refusal[1]}).encode(), refusal[2])
            return
        if fault == "dropped":
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(0.5)
        if "watch=1" in self.path:
            self.close_connection = True
            return
        status, data = self._forward(body)
        if status == 200 and self.command == "PATCH":
            self.proxy.count(self.path)
        if fault == "lost":
            self.close_connection = True
        elif fault == "error after":
            self._answer(500, b'{"message": "etcd did not answer"}', {})
        else:
            self._answer(status, data, {})

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        if self.upstream is None:
            context = ssl.create_default_context(cafile=str(self.proxy.cluster.plane.folder / "pki/ca.crt"))
            self.upstream = http.client.HTTPSConnection("127.0.0.1", self.proxy.cluster.port, context=context)
        names = ("Authorization", "Content-Type", "Accept")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        self.upstream.request(self.command, self.path, body or None, headers)
        answer = self.upstream.getresponse()
        return answer.status, answer.read()

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def finish(self) -> None:
        if self.upstream:
            self.upstream.close()
        super().finish()
