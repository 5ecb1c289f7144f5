# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Kubernetes API for tests that need its rules and not a cluster; api_server_http.py serves it.

Commands of pods run on this machine. What it keeps of the real one: resourceVersion and uid as preconditions (409),
404, creation, finalizers, merge patches, the status subresource, dry runs, lists in pages that expire (410),
selectors, watches with bookmarks that expire, and the checks of growing claims. What it does to requests on demand is
what networks and busy servers do. Controllers are functions of the test.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api, Patience
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_module import API_ARGUMENTS
from ansible_collections.clusterkit.storage.tests.merge_patch import merged
from kubernetes.client import Configuration

# What can happen to a request. "lost" and "error after" are carried out; the answer of the first never arrives.
PASSING = ("too many", "unavailable", "error", "error after", "dropped", "lost")
# After these the client cannot know whether its change was made.
UNCERTAIN = {"unavailable", "error", "error after", "dropped", "lost"}
_STATUS_OF_ITS_OWN = ("persistentvolumes", "persistentvolumeclaims")

Key = tuple[str, str, str]  # resource, namespace, name
Thing = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """A patch that was carried out and has changed the object."""

    key: Key
    before: Thing
    after: Thing


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Cluster:
    """The objects, and what has happened to them."""

    url = ""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self.clear()

    def clear(self) -> None:
        with self._changed:
            self.things: dict[Key, Thing] = {}
            self.version = 10
            self.history: list[tuple[int, Key, str, Thing]] = []
            self.oldest = 0  # changes up to this one are not known any more
            self.pages: dict[str, list[Thing]] = {}
            self.effects: list[Effect] = []
            self.deleted: list[Key] = []  # that were asked to go, and may
            self.asked: list[str] = []  # "METHOD /path?query"
            self.headers: list[Mapping[str, Any]] = []  # of requests to run a command
            # To be replaced by tests. What happens to a request; what others do before a patch is judged; what
            # controllers make of each change.
            self.fate: Callable[[str, str], str] = lambda _method, _path: ""
            self.before_patch: Callable[[Key], object] = lambda _key: None
            self.before_delete: Callable[[Key], object] = lambda _key: None
            self.controller: Callable[[Key], object] = lambda _key: None
            self.add("namespaces", "kube-system")

    # What tests do and see -------------------------------------------------------------------------

    def add(self, resource: str, name: str, namespace: str = "", *, uid: str = "", **content: Any) -> Thing:
        """An object; C(metadata) in C(content) is added to what every object has."""
        more = content.pop("metadata", {})
        metadata = {"name": name, "uid": uid or str(uuid.uuid4()), **({"namespace": namespace} if namespace else {})}
        return self._store("ADDED", (resource, namespace, name), {"metadata": {**metadata, **more}, **content})

    def change(self, resource: str, name: str, patch: Thing, namespace: str = "") -> Thing:
        """As an administrator or controller does: without a precondition, status included."""
        key = (resource, namespace, name)
        with self._changed:
            return self._store("MODIFIED", key, merged(self.things[key], patch))

    def remove(self, resource: str, name: str, namespace: str = "") -> None:
        key = (resource, namespace, name)
        with self._changed:
            self._store("DELETED", key, self.things[key])
            del self.things[key]

    def get(self, resource: str, name: str, namespace: str = "") -> Thing:
        return self.things[resource, namespace, name]

    def expire(self) -> None:
        """Compact etcd: begun lists and old watches end."""
        with self._changed:
            self.oldest = self.version
            self.pages.clear()

    def disturb(self, fates: Sequence[str], act: Callable[[int], object]) -> set[str]:
        """From now on requests meet these fates in turn, and C(act) comes right before the nth patch is judged.

        Returns the fates that were met, once they were.
        """
        left, patches = list(fates), itertools.count()
        met: set[str] = set()

        def fate(_method: str, _path: str) -> str:
            found = left.pop(0) if left else ""
            met.add(found)
            return found

        self.fate = fate
        self.before_patch = lambda _key: act(next(patches))
        return met

    def when_watched(self, act: Callable[[], object]) -> None:
        """Act once somebody who has changed something watches what becomes of it."""
        left = [act]

        def fate(_method: str, path: str) -> str:
            if "watch=1" in path and self.effects and left:
                left.pop()()
            return ""

        self.fate = fate

    def patches_meet(self, *fates: str) -> None:
        """From now on patches meet these fates in turn; nothing happens to what is read."""
        left = list(fates)
        self.fate = lambda method, _path: left.pop(0) if left and method == "PATCH" else ""

    def calm(self) -> None:
        """Nothing happens to requests any more, nobody else acts; what was done is forgotten."""
        self.fate = lambda _method, _path: ""
        self.before_patch = lambda _key: None
        self.effects.clear()

    def _store(self, kind: str, key: Key, thing: Thing) -> Thing:
        with self._changed:
            self.version += 1
            kept = copy.deepcopy(thing)
            kept["metadata"]["resourceVersion"] = str(self.version)
            self.things[key] = kept
            self.history.append((self.version, key, kind, kept))
            self._changed.notify_all()
            if kind != "DELETED":
                self.controller(key)
            return kept

    # What the server does --------------------------------------------------------------------------

    def read(self, resource: str, namespace: str, name: str) -> Thing:
        with self._changed:
            found = self.things.get((resource, namespace, name))
            if found is None:
                raise RefusedError(404, f'{resource} "{name}" not found')
            return found

    def patch(self, key: Key, subresource: str, body: Thing, *, dry_run: bool) -> Thing:
        with self._changed:
            self.before_patch(key)
            before = self.read(*key)
            for field in ("resourceVersion", "uid"):
                wanted = body.get("metadata", {}).get(field)
                if wanted is not None and wanted != before["metadata"][field]:
                    raise RefusedError(
                        409, f'Operation cannot be fulfilled on {key[0]} "{key[2]}": please apply your changes'
                    )
            after: Thing = merged(before, body)
            if subresource == "status":
                after = {**before, "status": after["status"]}
            elif key[0] in _STATUS_OF_ITS_OWN and "status" in before:
                after["status"] = before["status"]
            self._judge(key, subresource, before, after)
            if dry_run or after == before:
                return after
            stored = self._store("MODIFIED", key, after)
            self.effects.append(Effect(key, before, stored))
            return stored

    def create(self, key: Key, body: Thing, *, dry_run: bool) -> Thing:
        with self._changed:
            if key[1] and ("namespaces", "", key[1]) not in self.things:
                raise RefusedError(404, f'namespaces "{key[1]}" not found')
            if key in self.things:
                raise RefusedError(409, f'{key[0]} "{key[2]}" already exists')
            metadata = {"uid": str(uuid.uuid4()), **body["metadata"], **({"namespace": key[1]} if key[1] else {})}
            made = {**body, "metadata": metadata}
            return made if dry_run else self._store("ADDED", key, made)

    def _judge(self, key: Key, subresource: str, before: Thing, after: Thing) -> None:
        """As the API server's validation and its admission plugin PersistentVolumeClaimResize."""
        if key[0] == "persistentvolumes":
            for source in ("nfs", "csi"):
                if before["spec"].get(source) != after["spec"].get(source):
                    raise RefusedError(422, "spec.persistentvolumesource: Forbidden: is immutable after creation")
        if key[0] != "persistentvolumeclaims" or subresource:
            return
        old, new = (_quantity.to_bytes(one["spec"]["resources"]["requests"]["storage"]) for one in (before, after))
        if new < old:
            raise RefusedError(422, "spec.resources.requests.storage: Forbidden: can not be less than it was")
        if new > old:
            known = self.things.get(("storageclasses", "", before["spec"].get("storageClassName", "")))
            if before["status"]["phase"] != "Bound" or not known or not known.get("allowVolumeExpansion"):
                raise RefusedError(403, "only a bound pvc can be resized, if its storageclass supports it")

    def delete(self, key: Key, body: Thing) -> Thing:
        """As the API server does: an object with finalizers stays until they are gone."""
        with self._changed:
            self.before_delete(key)
            before = self.read(*key)
            wanted = body.get("preconditions", {})
            for field in ("resourceVersion", "uid"):
                if wanted.get(field) is not None and wanted[field] != before["metadata"][field]:
                    raise RefusedError(409, f"Precondition failed: {field} in precondition")
            if body.get("dryRun"):
                return before
            self.deleted.append(key)
            if before["metadata"].get("finalizers"):
                self._store(
                    "MODIFIED", key, merged(before, {"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}})
                )
            else:
                self.remove(key[0], key[2], key[1])
            return before

    def list_page(self, resource: str, namespace: str, query: Mapping[str, str]) -> Thing:
        with self._changed:
            begun = query.get("continue")
            if begun is not None and begun not in self.pages:
                raise RefusedError(410, "the provided continue parameter is too old")
            if begun is not None:
                left = self.pages[begun]
            else:
                left = [
                    thing
                    for key, thing in sorted(self.things.items())
                    if _meant(key, thing, resource, namespace, query)
                ]
            size = int(query.get("limit") or len(left) or 1)
            metadata: Thing = {"resourceVersion": str(self.version)}
            if len(left) > size:
                token = f"t{len(self.pages)}"
                self.pages[token] = left[size:]
                metadata["continue"] = token
                if not {"labelSelector", "fieldSelector"} & set(query):
                    metadata["remainingItemCount"] = len(left) - size
            return {"kind": "List", "metadata": metadata, "items": left[:size]}

    def watch(self, resource: str, namespace: str, query: Mapping[str, str]) -> Iterator[Thing]:
        """Events after resourceVersion for timeoutSeconds, at their end a bookmark."""
        seen, deadline = int(query["resourceVersion"]), time.monotonic() + float(query["timeoutSeconds"])
        while True:
            with self._changed:
                if seen < self.oldest:
                    message = f"too old resource version: {seen} ({self.oldest})"
                    yield {"type": "ERROR", "object": {"kind": "Status", "message": message, "code": 410}}
                    return
                new = [
                    one for one in self.history if one[0] > seen and _meant(one[1], one[3], resource, namespace, query)
                ]
                seen = self.version
                if not new:
                    self._changed.wait(max(0.0, deadline - time.monotonic()))
            yield from ({"type": kind, "object": thing} for _version, _key, kind, thing in new)
            if time.monotonic() >= deadline:
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}
                return


def _meant(key: Key, thing: Thing, resource: str, namespace: str, query: Mapping[str, str]) -> bool:
    labels = thing["metadata"].get("labels") or {}
    pairs = [one.split("=", 1) for one in query.get("labelSelector", "").split(",") if one]
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return (
        key[0] == resource
        and namespace in ("", key[1])
        and name in ("", key[2])
        and all(labels.get(label) == value for label, value in pairs)
    )


def client(cluster: Cluster, *, request: float = 5.0, retry: float = 20.0, **options: Any) -> Api:
    """The product's own client, which does not sleep before it sends again."""
    configuration = Configuration()
    configuration.host, configuration.proxy = cluster.url, None
    return Api(Access.of(configuration, {}, set()), Patience(request, retry), sleep=lambda _seconds: None, **options)


def arguments(known: Mapping[str, Mapping[str, Any]], **given: Any) -> dict[str, Any]:
    """Those of a module for the API, its defaults included."""
    defaults = {name: one.get("default") for name, one in {**API_ARGUMENTS, **known}.items()}
    assert set(given) <= set(defaults)
    return {**defaults, **given}


def timed(acts: Sequence[tuple[int, str, int]], act: Callable[[str, int], object]) -> Callable[[int], None]:
    """What others do, each (number of the patch before which, what, to which object), for C(Cluster.disturb)."""

    def others(patch: int) -> None:
        for at, what, number in acts:
            if at == patch:
                act(what, number)

    return others
