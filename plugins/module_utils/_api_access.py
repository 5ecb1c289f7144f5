# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the Kubernetes API is and how to get in: connections, and headers with tokens that are renewed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

try:
    import urllib3
    from kubernetes.client.rest import RESTClientObject

    HAS_KUBERNETES = True
except ImportError:  # told by ApiModule
    HAS_KUBERNETES = False

WORKERS = 16
# Tokens that expire are renewed well before.
_TOKEN_SECONDS = 10.0


@dataclass
class Access:
    """Where the API is and how to get in; C(headers) is asked for each request since tokens are renewed."""

    host: str
    pool: Any
    headers: Callable[[], Any]
    configuration: Any = None

    @classmethod
    def of(cls, configuration: Any, headers: Mapping[str, Sequence[str]], secrets: set[str]) -> Access:
        """C(configuration) is a kubernetes.client.Configuration; tokens that come up are added to C(secrets)."""
        configuration.connection_pool_maxsize = WORKERS
        configuration.retries = False
        kept: list[Any] = []

        def all_headers() -> Any:
            if not kept or time.monotonic() > kept[0]:
                kept[:] = [time.monotonic() + _TOKEN_SECONDS, _headers(configuration, headers, secrets)]
            return kept[1]

        manager, host = RESTClientObject(configuration).pool_manager, configuration.host.rstrip("/")
        if isinstance(manager, urllib3.ProxyManager):
            return cls(host, manager, all_headers, configuration)
        return cls(urlsplit(host).path, _Host(manager.connection_from_url(host)), all_headers, configuration)


class _Host:
    """The connections to one host; a manager finds them anew for each request, which takes as long as the rest."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def request(self, method: str, path: str, **options: Any) -> Any:
        return self._pool.request(method, path, assert_same_host=False, **options)


def _headers(configuration: Any, more: Mapping[str, Sequence[str]], secrets: set[str]) -> Any:
    """Renews a token that expires; those of a kubeconfig are read anew for it."""
    found = urllib3.HTTPHeaderDict({"Accept": "application/json", "User-Agent": "clusterkit.storage"})
    for name, values in more.items():
        for value in values:
            found.add(name, value)
    for setting in configuration.auth_settings().values():
        if setting["value"]:
            found[setting["key"]] = setting["value"]
            secrets.add(setting["value"].split(" ")[-1])
    if configuration.username and configuration.password and "authorization" not in found:
        found.extend(urllib3.make_headers(basic_auth=f"{configuration.username}:{configuration.password}"))
    several = any(len(values) > 1 for values in more.values())
    return found if several else dict(found.items())
