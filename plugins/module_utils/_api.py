# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the Kubernetes API for thousands of objects: paged, side by side, under preconditions, patient.

The Python library C(kubernetes) reads the access (kubeconfig, service account, exec plugins, proxies, certificates)
and makes the connection pool. Its model objects are left out: they cost ten times the time and memory of the JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar
from urllib.parse import urlencode

from ansible_collections.clusterkit.storage.plugins.module_utils import _api_exec
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import WORKERS, Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import (
    ApiError,
    Response,
    date_of,
    is_certificate_error,
    message_of,
    resource_of,
    retry_after,
)

with contextlib.suppress(ImportError):  # told by ApiModule
    import urllib3

T = TypeVar("T")
R = TypeVar("R")

_CONTENT_TYPES = {"POST": "application/json", "PATCH": "application/merge-patch+json", "DELETE": "application/json"}
PAGE = 500
_RETRIED = {429, 500, 502, 503, 504}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0
# An API that never answered is more likely a wrong address than a short outage.
_FIRST_CONTACT = 10.0
_RESTARTS = 3
_CONTINUE = re.compile(rb'"metadata":\{[^{}]*?"continue":"([^"\\]+)"')


@dataclass(frozen=True)
class Patience:
    """Seconds that one answer may take, and for which a failed request is sent again."""

    request: float = 30.0
    retry: float = 120.0


@dataclass(frozen=True)
class Listing:
    """All items of a collection, each as what C(convert) made of it."""

    items: list[Any]
    resource_version: str
    date: float  # by the API server's clock, when the first page was made


class Api:
    """A Kubernetes API server. Safe for use by several threads."""

    def __init__(
        self,
        access: Access,
        patience: Patience | None = None,
        *,
        workers: int = WORKERS,
        dry_run: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access = access
        self._patience = patience or Patience()
        self._workers = workers
        self.dry_run = dry_run
        self._sleep = sleep
        self._answered = False
        self._last_answer = time.monotonic()
        self._given_up = False

    # Single requests -------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any]:
        """Raises ApiError; C(gone) tells that there is no such object."""
        answer: dict[str, Any] = json.loads(self._send("GET", path, {}, None).data)
        return answer

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch; in check mode the server judges it without keeping it.

        With metadata.resourceVersion in C(body) the server refuses it (C(conflict)) unless the object is as it was
        read, so that sending it again after a dropped connection has no second effect.
        """
        query = {"dryRun": "All"} if self.dry_run else {}
        answer: dict[str, Any] = json.loads(self._send("PATCH", path, query, json.dumps(body).encode()).data)
        return answer

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object; in check mode the server judges it without keeping it.

        C(conflict): there is one of this name, which may be ours if the answer to an earlier try was lost.
        """
        query = {"dryRun": "All"} if self.dry_run else {}
        sent = json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(self._send("POST", path, query, sent, verb="create").data)
        return answer

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> str:
        """The text of one answer, without a second try: for what can be done without, such as logs of a dead node.

        A body is sent as JSON. For requests without a lasting effect only: check mode makes no difference.
        """
        sent = None if body is None else json.dumps(body).encode()
        try:
            headers = self._access.headers().copy()
            headers.update({"Accept": "*/*", **({"Content-Type": "application/json"} if sent else {})})
            answer = self._access.pool.request(
                method,
                f"{self._access.host}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=sent,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=self._patience.request, read=self._patience.request),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"{method.lower()} {resource_of(path)}: {self._clean(error)}") from error
        response = Response(answer.status, answer.headers, answer.data)
        if response.status >= 300:
            raise _refusal({"POST": "create"}.get(method, method.lower()), path, response)
        text: str = response.data.decode("utf-8", "replace")
        return text

    def command(self, path: str, container: str, argv: Sequence[str], seconds: float, *, again: bool = False) -> str:
        """Run a command in a container of the pod at C(path); why it has failed, "" if it ended well.

        Nothing is run in check mode. C(again): it may be begun once more when the API does not answer.
        """
        if self.dry_run:
            return ""
        began, pause, path = time.monotonic(), _FIRST_PAUSE, f"{path}/exec"
        while True:
            try:
                return _api_exec.run(
                    self._access, path, container, argv, connect=self._patience.request, seconds=seconds
                )
            except _api_exec.RefusedError as error:
                refused, failure = error.response.status not in _RETRIED, _refusal("get", path, error.response)
            except OSError as error:
                refused = is_certificate_error(error)
                failure = ApiError(f"get {resource_of(path)}: {self._clean(error)}")
            if refused or not again or time.monotonic() - began + pause > self._patience.retry:
                raise failure
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def delete(
        self, path: str, uid: str, *, resource_version: str | None = None, grace_period: int | None = None
    ) -> None:
        """Delete exactly this object; in check mode the server judges it without doing it.

        C(conflict): the object of this name is another one by now, or has another resourceVersion than given.
        C(grace_period): seconds for a pod to end, instead of its own; 0 removes the object at once (by force).
        """
        preconditions = {"uid": uid, **({"resourceVersion": resource_version} if resource_version else {})}
        body: dict[str, Any] = {"preconditions": preconditions}
        if grace_period is not None:
            body["gracePeriodSeconds"] = grace_period
        if self.dry_run:
            # In the body: with a body the API server does not look at the query, and would delete.
            body["dryRun"] = ["All"]
        self._send("DELETE", path, {}, json.dumps(body).encode())

    # Collections -----------------------------------------------------------------------------------

    def list_all(
        self, path: str, convert: Callable[[dict[str, Any]], Any], query: Mapping[str, str] | None = None
    ) -> Listing:
        """Read a collection in pages. C(convert) makes of each object what is kept; None is left out.

        A page that came too late (410 Expired: etcd was compacted) restarts the list; one that always does is read
        as a whole at last, as client-go's pager does.
        """
        for _restart in range(_RESTARTS):
            try:
                return self._list(path, convert, {**(query or {}), "limit": str(PAGE)})
            except ApiError as error:
                if error.status != 410:
                    raise
        return self._list(path, convert, dict(query or {}))

    def count(self, path: str) -> tuple[int, str]:
        """How many objects there are, and the collection's resourceVersion, without reading all."""
        answer = json.loads(self._send("GET", path, {"limit": "1"}, None, verb="list").data)
        metadata = answer["metadata"]
        return len(answer["items"] or []) + int(metadata.get("remainingItemCount") or 0), metadata["resourceVersion"]

    def _list(self, path: str, convert: Callable[[dict[str, Any]], Any], query: dict[str, str]) -> Listing:
        found: list[Any] = []
        # The next page is on its way while this one is read.
        with ThreadPool(1) as ahead:
            waiting = ahead.apply_async(self._send, ("GET", path, query, None), {"verb": "list"})
            date = resource_version = None
            while True:
                response = waiting.get()
                more = _CONTINUE.search(response.data, 0, 4096)
                if more:
                    query = {**query, "continue": more[1].decode()}
                    waiting = ahead.apply_async(self._send, ("GET", path, query, None), {"verb": "list"})
                if date is None:
                    date = date_of(response)
                page = json.loads(response.data)
                resource_version = page["metadata"].get("resourceVersion", "")
                for item in page["items"] or []:
                    kept = convert(item)
                    if kept is not None:
                        found.append(kept)
                following = page["metadata"].get("continue")
                del page, response
                if not following:
                    return Listing(found, resource_version, date)
                if not more:
                    query = {**query, "continue": following}
                    waiting = ahead.apply_async(self._send, ("GET", path, query, None), {"verb": "list"})

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Results of C(function) for all items, in their order, several at a time."""
        todo = list(items)
        if len(todo) < 2 or self._workers < 2:
            return [function(item) for item in todo]
        with ThreadPool(min(self._workers, len(todo))) as pool:
            return list(pool.imap(function, todo))

    def watch(
        self, path: str, resource_version: str, deadline: float, query: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Changes after C(resource_version) as (type, object), until C(deadline) by time.monotonic().

        Raises ApiError with status 410 when the changes since then are not known any more: list again.
        """
        while time.monotonic() < deadline:
            left = max(1.0, deadline - time.monotonic())
            asked = {**(query or {}), "watch": "1", "allowWatchBookmarks": "true"}
            asked |= {"resourceVersion": resource_version, "timeoutSeconds": str(int(min(left, 300)) or 1)}
            try:
                for kind, item in self._events(path, asked, min(left, 300) + 5):
                    if kind == "ERROR":
                        raise ApiError(f"watch of {resource_of(path)}: {item.get('message')}", item.get("code"))
                    resource_version = item["metadata"]["resourceVersion"]
                    yield kind, item
                    if time.monotonic() >= deadline:
                        return
            except (urllib3.exceptions.HTTPError, OSError):
                self._sleep(min(0.5, max(0.0, deadline - time.monotonic())))

    def _events(self, path: str, query: Mapping[str, str], timeout: float) -> Iterator[tuple[str, dict[str, Any]]]:
        response = self._access.pool.request(
            "GET",
            f"{self._access.host}{path}?{urlencode(query)}",
            headers=self._access.headers(),
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=self._patience.request, read=timeout),
        )
        try:
            if response.status in _RETRIED:
                raise urllib3.exceptions.HTTPError(f"status {response.status}")
            if response.status != 200:
                raise _refusal("watch", path, Response(response.status, response.headers, response.read()))
            rest = b""
            for part in response.stream(65536):
                *lines, rest = (rest + part).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    yield event["type"], event["object"]
        finally:
            response.close()

    # Faults ----------------------------------------------------------------------------------------

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, *, verb: str = ""
    ) -> Response:
        verb = verb or method.lower()
        began = time.monotonic()
        pause, uncertain = _FIRST_PAUSE, False
        while True:
            response, fault, wait = None, "", None
            try:
                response = self._once(method, path, query, body)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if is_certificate_error(error):
                    raise ApiError(f"{verb} {resource_of(path)}: {self._clean(error)}") from error
                fault = self._clean(error)
                uncertain = uncertain or not isinstance(error, urllib3.exceptions.NewConnectionError)
            if response is not None:
                self._answered, self._last_answer = True, time.monotonic()
                if response.status < 300:
                    self._given_up = False
                    return response
                if response.status not in _RETRIED:
                    raise _refusal(verb, path, response, uncertain=uncertain)
                uncertain = uncertain or response.status != 429
                fault = f"{response.status} {message_of(response.data)}"
                wait = retry_after(response)
            # Full jitter: writers that were turned away together do not come back together.
            wait = wait if wait is not None else pause * (0.5 + random.random() / 2)  # noqa: S311 - it spreads requests in time, no secret
            pause = min(pause * 2, _LONGEST_PAUSE)
            limit = self._patience.retry if self._answered else min(_FIRST_CONTACT, self._patience.retry)
            if self._given_up or time.monotonic() + wait > began + limit:
                # The others need not wait as long for an API that does not answer at all any more.
                self._given_up = self._last_answer < began
                raise ApiError(
                    f"{verb} {resource_of(path)}: no answer within {limit:.0f} s; last: {fault}",
                    response.status if response else None,
                    uncertain=uncertain,
                )
            self._sleep(wait)

    def _once(self, method: str, path: str, query: Mapping[str, str], body: bytes | None) -> Response:
        url = f"{self._access.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = self._access.headers()
        if body:
            headers = headers.copy()
            headers["Content-Type"] = _CONTENT_TYPES[method]
        answer = self._access.pool.request(
            method,
            url,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=self._patience.request, read=self._patience.request),
        )
        return Response(answer.status, answer.headers, answer.data)

    def _clean(self, error: Exception) -> str:
        """urllib3 names pool objects and a URL that may hold a proxy's password."""
        text = " ".join(str(error).split())
        text = re.sub(r"<urllib3\.[^>]*>:? ?", "", text)
        text = re.sub(r"//[^/@\s]*@", "//", text)
        return f"{type(error).__name__}: {text}"


def _refusal(verb: str, path: str, response: Response, *, uncertain: bool = False) -> ApiError:
    said = message_of(response.data)
    what = f"{verb} {resource_of(path)}"
    if response.status == 403:
        said = f"not allowed; the role of this user needs verb {verb} on {resource_of(path).partition(' ')[0]}: {said}"
    if response.status == 401:
        said = f"the API does not accept these credentials: {said}"
    return ApiError(f"{what}: {said or response.status}", response.status, uncertain=uncertain)
