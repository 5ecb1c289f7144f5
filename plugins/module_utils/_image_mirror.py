# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy images to a registry with skopeo: what is missing, for all architectures, and pulled back as a proof.

Credentials go to skopeo in files that only this user can read, never as arguments.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _process
from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import rewritten

ARGUMENTS: dict[str, Any] = {
    "images": {"type": "list", "elements": "str", "required": True},
    "registry": {"type": "str", "required": True},
    "refresh": {"type": "bool", "default": False},
    "authfile": {"type": "path"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "tls_verify": {"type": "bool", "default": True},
    "source_authfile": {"type": "path"},
    "source_tls_verify": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 600},
}
_IMAGE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:/]*(@sha256:[0-9a-f]{64})?")
_REGISTRY = re.compile(r"[A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._/]*)?/?")
# What a registry says of an image that it does not have.
_MISSING = re.compile(r"manifest unknown|name unknown|not found|404", re.IGNORECASE)


@dataclass(frozen=True)
class Side:
    """One end of a copy: how skopeo reaches it."""

    prefix: str  # of the options of `skopeo copy`: src or dest
    authfile: str | None
    tls_verify: bool

    def options(self, *, copy: bool) -> list[str]:
        before = f"--{self.prefix}-" if copy else "--"
        found = [f"{before}tls-verify={'true' if self.tls_verify else 'false'}"]
        return [*found, f"{before}authfile={self.authfile}"] if self.authfile else found


def mirror(given: Mapping[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """C(images) with what became of each, C(problems), C(changed). Raises ValueError on wrong input."""
    check(given)
    if not shutil.which("skopeo"):
        raise ValueError("skopeo is not installed on this host; its package is called skopeo")
    with _credentials(given) as authfile:
        source = Side("src", given["source_authfile"], given["source_tls_verify"])
        target = Side("dest", authfile, given["tls_verify"])
        run = _Run(given, source, target, check_mode)
        items = [run.bring(image) for image in dict.fromkeys(given["images"])]
    problems = [f"{one['image']}: {one['reason']}" for one in items if one["state"] == "failed"]
    return {"images": items, "problems": problems, "changed": any(one["state"] == "copied" for one in items)}


def check(given: Mapping[str, Any]) -> None:
    problems = [
        f'images[{number}]: "{image}" is not the name of an image; write for example registry.k8s.io/pause:3.10'
        for number, image in enumerate(given["images"])
        if not _IMAGE.fullmatch(image)
    ]
    if not _REGISTRY.fullmatch(given["registry"]):
        problems.append(
            f'registry: "{given["registry"]}" is not a registry; write for example registry.example.org:5000/mirror'
        )
    if bool(given["username"]) != bool(given["password"]):
        problems.append("username and password belong together")
    if given["username"] and given["authfile"]:
        problems.append("authfile and username exclude each other")
    if problems:
        raise ValueError("; ".join(problems))


@contextmanager
def _credentials(given: Mapping[str, Any]) -> Iterator[str | None]:
    """The file with the credentials for the registry, if there are any."""
    if not given["username"]:
        yield given["authfile"]
        return
    secret = base64.b64encode(f"{given['username']}:{given['password']}".encode()).decode()
    host = given["registry"].partition("/")[0]
    # Mode 0600 from the start.
    with tempfile.NamedTemporaryFile("w", prefix="clusterkit-mirror-", suffix=".json") as file:
        json.dump({"auths": {host: {"auth": secret}}}, file)
        file.flush()
        yield file.name


class _Run:
    def __init__(self, given: Mapping[str, Any], source: Side, target: Side, check_mode: bool) -> None:
        self._given = given
        self._source = source
        self._target = target
        self._check_mode = check_mode

    def bring(self, image: str) -> dict[str, Any]:
        """Copy it if it is missing, and pull it back."""
        copy = rewritten(image, self._given["registry"])
        item: dict[str, Any] = {"image": image, "target": copy, "state": "present"}
        found, complaint = self._digest(copy, self._target)
        if complaint and not _MISSING.search(complaint):
            return {**item, "state": "failed", "reason": complaint}
        if not found or self._given["refresh"]:
            wanted, complaint = self._digest(image, self._source)
            if complaint:
                return {**item, "state": "failed", "reason": complaint}
            if wanted != found:
                item["state"] = "copied"
        if self._check_mode:
            return item
        if item["state"] == "copied":
            complaint = self._copy(f"docker://{image}", f"docker://{copy}", [self._source, self._target])
            if complaint:
                return {**item, "state": "failed", "reason": complaint}
        return self._proven(item)

    def _proven(self, item: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="clusterkit-mirror-") as folder:
            proof = Side("src", self._target.authfile, self._target.tls_verify)
            complaint = self._copy(f"docker://{item['target']}", f"dir:{folder}", [proof])
            if complaint:
                return {**item, "state": "failed", "reason": f"cannot be pulled from the registry: {complaint}"}
            return {**item, "digest": _digest_of((Path(folder) / "manifest.json").read_bytes())}

    def _digest(self, image: str, side: Side) -> tuple[str, str]:
        """Digest of the image, or of the list of its architectures; and why there is none."""
        done = self._skopeo(["inspect", "--raw", *side.options(copy=False), f"docker://{image}"])
        return (_digest_of(done.stdout.encode("utf-8", "surrogateescape")), "") if done.succeeded else ("", _said(done))

    def _copy(self, source: str, target: str, sides: Sequence[Side]) -> str:
        options = [option for side in sides for option in side.options(copy=True)]
        done = self._skopeo(["copy", "--all", "--quiet", *options, source, target])
        return "" if done.succeeded else _said(done)

    def _skopeo(self, arguments: Sequence[str]) -> _process.Finished:
        return _process.run(["skopeo", *arguments], timeout=self._given["timeout"])


def _digest_of(manifest: bytes) -> str:
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _said(done: _process.Finished) -> str:
    if done.timed_out:
        return "skopeo did not end within the time limit"
    words = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    found = re.search(r'msg="(.*)"$', words)
    return (found[1].replace('\\"', '"') if found else words) or f"skopeo ended with status {done.returncode}"
