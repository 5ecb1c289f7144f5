# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the Kubernetes API and what its answers say, without a connection to it."""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    data: bytes


class ApiError(Exception):
    """The API refused a request, or did not answer it; the text names verb and resource."""

    def __init__(self, message: str, status: int | None = None, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.uncertain = uncertain  # whether the request may have had its effect all the same

    @property
    def gone(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        return self.status == 409


def path_of(resource: str, name: str = "", namespace: str = "", *, group: str = "", subresource: str = "") -> str:
    """Path of an object or collection; C(group) with its version, for example C(storage.k8s.io/v1)."""
    parts = ["/apis", group] if group else ["/api/v1"]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    return "/".join([*parts, resource, *filter(None, [quote(name, safe=""), subresource])])


def resource_of(path: str) -> str:
    """C(persistentvolumeclaims/status "c" in namespace "n") for messages."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if not parts:
        return path  # no object of a resource: /apis, /version
    where = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        where, parts = f' in namespace "{parts[1]}"', parts[2:]
    kind = "/".join([parts[0], *parts[2:3]])
    return kind + (f' "{parts[1]}"' if len(parts) > 1 else "") + where


def message_of(data: bytes) -> str:
    try:
        return " ".join(str(json.loads(data)["message"]).split())
    except (ValueError, KeyError, TypeError):
        return " ".join(data[:200].decode("utf-8", "replace").split())


def retry_after(response: Response) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "")
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - date_of(response))
    except (ValueError, TypeError):
        return None


def date_of(response: Response) -> float:
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError):
        return time.time()


def is_certificate_error(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 6:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        reasons = [one for one in error.args if isinstance(one, BaseException)]
        error = reasons[0] if reasons else error.__cause__ or error.__context__
        seen += 1
    return False


def wait_at_random(longest: float) -> None:
    """Wait for up to `longest` seconds: writers that met each other do not come back together."""
    time.sleep(longest * random.random())  # noqa: S311 - it spreads writers in time, nothing secret hangs on it
