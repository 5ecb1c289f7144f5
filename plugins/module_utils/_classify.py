# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each directory of the shares is, judged against the records of all clusters: pure.

The classes, of which the first that fits counts:

    foreign      excluded by a pattern, of another cluster, or nobody knows enough to call it an archive or an orphan
    quarantined  an intent says that it is on its way there
    shared       several volumes use it, or it lies in the directory of a volume
    parent       holds the directories of volumes, or a share
    deleting     its PersistentVolume is being deleted
    bound, available, released, failed  the phase of its volume
    archived     what a provisioner kept of a volume that it deleted
    orphan       no volume and nobody else uses it

A volume whose directory is not there is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_csi
from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Classified, Found, Rules, Use, User
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._missing import CLOCKS, Absence
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import first_below, plain
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place, ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

CLASSES = (
    "foreign", "quarantined", "shared", "parent", "deleting", "bound", "available", "released", "failed", "archived",
    "orphan",
)  # fmt: skip
ARCHIVED = "archived-"
ORPHAN_SECONDS = 24 * 3600
_PHASES = {"Available": "available", "Released": "released", "Failed": "failed"}


def is_nfs(volume: Volume) -> bool:
    return volume.driver == "nfs" or volume.csi_driver == _nfs_csi.DRIVER


def parents_of(volumes: Iterable[Volume], servers: ServerMap) -> dict[str, list[str]]:
    """By host, the directories between the roots of shares and the directories of volumes."""
    found: dict[str, set[str]] = {}
    for volume in volumes:
        place = servers.find(volume.server, volume.path) if is_nfs(volume) else None
        if place is not None:
            above = set(_above(place.directory, place.share))
            found.setdefault(place.host, set()).update(above - {place.share})
    return {host: sorted(paths) for host, paths in found.items() if paths}


def classify(
    sets: Sequence[DirectorySet],
    listings: Sequence[Listing],
    servers: ServerMap,
    uses: Sequence[Use] | None,
    rules: Rules,
) -> Classified:
    """C(listings): first the cluster that is meant, then others. C(uses): None if nobody asked for them."""
    return _Classifier(sets, listings, servers, uses, rules).run()


def _by_phase(volume: Volume) -> tuple[str, str]:
    """The class of a directory that is one volume's alone, and the reason."""
    if volume.deleting:
        return "deleting", f"volume {volume.name} is being deleted since {volume.deleting}"
    # A phase that is none of those, and a claim that is about to be bound, count as in use.
    about_to_be_bound = volume.phase == "Available" and volume.claim and volume.claim[2]
    kind = "bound" if about_to_be_bound else _PHASES.get(volume.phase, "bound")
    return kind, f"volume {volume.name}"


def _above(path: str, share: str) -> Iterator[str]:
    """The directories above a path, up to the root of its share."""
    while path != share and path.startswith(share.rstrip("/") + "/"):
        path = path.rpartition("/")[0] or "/"
        yield path


class _Classifier:
    def __init__(
        self,
        sets: Sequence[DirectorySet],
        listings: Sequence[Listing],
        servers: ServerMap,
        uses: Sequence[Use] | None,
        rules: Rules,
    ) -> None:
        self._sets = sets
        self._listings = listings
        self._own = listings[0].cluster_uid
        self._servers = servers
        self._rules = rules
        self._uses = uses
        self.result = Classified(self._own)
        self._users = self.result.users
        self._inside: dict[tuple[str, str, str], str] = {}  # by host, share and the directory above
        self._strange: list[tuple[str | None, str]] = []  # host, or None for any, and why nothing is known of it

    def run(self) -> Classified:
        self._place_volumes()
        self._find_kept()
        self._place_uses()
        self._find_twins()
        for one in self._sets:
            self._look_for_missing(one)
            ordinary = self._ordinary(one.host)
            for share in one.shares:
                self._judge_share(one, share, ordinary)
        return self.result

    # What is used -------------------------------------------------------------------------------------

    def _place_volumes(self) -> None:
        for listing in self._listings:
            carried = {one["claim"]: one["provisioner"] for one in listing.uses or () if one["claim"]}
            for one in listing.uses or ():
                place = self._servers.find(one["server"], one["path"]) if one["provisioner"] else None
                if place is not None:
                    self.result.carriers.append((one["provisioner"], place))
            for volume in listing.volumes:
                if not is_nfs(volume):
                    continue
                place = self._servers.find(volume.server, volume.path)
                if place is None:
                    self._note_stranger(f"volume {volume.name}", volume.server, volume.path)
                    if listing.cluster_uid == self._own:
                        self.result.unplaced.append(volume)
                    continue
                if carried and volume.phase == "Bound" and volume.claim_name in carried:
                    # Through it a provisioner works: what lies in it is its volumes', and not a part of it.
                    self.result.carriers.append((carried[volume.claim_name], place))
                    continue
                user = (volume, listing.cluster_uid, place.share)
                self._users.setdefault((place.host, place.directory), []).append(user)

    def _note_stranger(self, who: str, server: str | None, path: str | None) -> None:
        host = self._servers.host(server or "")
        if host is None and server in self._rules.foreign_servers:
            return
        self._strange.append(
            (
                host,
                f"nobody knows which directory {who} means by {server}:{path}; say it in storage_servers, or in "
                "cleanup_foreign_servers that the server is another one",
            )
        )

    def _place_uses(self) -> None:
        self._used: dict[str, dict[str, str]] = {}
        for use in self._uses or ():
            if not use.server:
                for host, roots in self._roots.items():
                    if any(use.path.startswith(f"{root.rstrip('/')}/") for root in roots):
                        self._used.setdefault(host, {}).setdefault(plain(use.path), use.who)
                continue
            place = self._servers.find(use.server, use.path)
            if place is not None:
                self._used.setdefault(place.host, {}).setdefault(place.directory, use.who)
            else:
                self._note_stranger(use.who, use.server, use.path)
        self._used_paths = {host: sorted(paths) for host, paths in self._used.items()}

    def _find_kept(self) -> None:
        kept: dict[str, set[str]] = {host: set(roots) for host, roots in self._servers.roots().items()}
        for host, path in self._users:
            kept.setdefault(host, set()).add(path)
        for _name, place in self.result.carriers:
            kept.setdefault(place.host, set()).add(place.directory)
        self._intended: dict[tuple[str, str], str] = {}
        for one in self._sets:
            kept.setdefault(one.host, set()).update(share["path"] for share in one.shares)
            for intent in one.intents:
                if not intent["restored"]:
                    self._intended[one.host, intent["directory"]] = (intent["volume"] or {}).get("name", "")
        self.result.keep = {host: sorted(paths) for host, paths in kept.items()}
        roots = self._servers.roots()
        self._roots = {
            one.host: frozenset([*roots.get(one.host, []), *(share["path"] for share in one.shares)])
            for one in self._sets
        }
        self._carried = {(place.host, place.directory) for _name, place in self.result.carriers}
        paths: dict[str, set[str]] = {host: set(found) for host, found in kept.items()}
        for host, path in self._intended:
            paths.setdefault(host, set()).add(path)
        self._below = {host: sorted(found) for host, found in paths.items()} if self._intended else self.result.keep
        self._holders: dict[str, set[str]] = {host: set() for host in paths}
        for host, found in paths.items():
            holders = self._holders[host]
            for path in found:
                while path != "/" and (path := path.rpartition("/")[0] or "/") not in holders:
                    holders.add(path)

    def _find_twins(self) -> None:
        """One directory under several paths: bind mounts, or shares in shares."""
        first: dict[tuple[str, int, int], str] = {}
        several: dict[tuple[str, int, int], set[str]] = {}
        for one in self._sets:
            for record in (*one.directories, *one.shares):
                key, path = (one.host, record["device"], record["inode"]), record["path"]
                if first.setdefault(key, path) != path:
                    several.setdefault(key, {first[key]}).add(path)
        self._twins = {(key[0], path): sorted(paths - {path}) for key, paths in several.items() for path in paths}

    # What is not there --------------------------------------------------------------------------------

    def _look_for_missing(self, one: DirectorySet) -> None:
        there = {record["path"] for record in one.directories} | {share["path"] for share in one.shares}
        roots = {share["path"]: share for share in one.shares}
        self._doubts: dict[str, str] = {}
        self._lost: dict[str, str] = {}  # names of directories that are not there, and their volumes
        counted: dict[str, list[int]] = {share: [0, 0] for share in roots}
        absence: Absence | None = None
        for (host, path), users in self._users.items():
            share = users[-1][2]
            if host != one.host or share not in roots:
                continue
            counted[share][path in there] += len(users)
            if path in there:
                continue
            for volume, cluster, _share in users:
                place = Place(host, share, path)
                self._lost[path.rpartition("/")[2]] = volume.name
                first = path[len(place.share.rstrip("/")) + 1 :].partition("/")[0]
                top = f"{place.share.rstrip('/')}/{first}"
                above = path.rpartition("/")[0]
                is_listed = top not in there or above in one.parents or above == place.share
                if is_listed and one.complete and cluster == self._own:
                    absence = absence or self._absence(one)
                    self.result.missing.append((volume, place))
                    pattern = self._excluded(place.share, path, users)
                    doubt = f"excluded by {pattern}" if pattern else absence.doubt(volume, place)
                    self.result.doubts[volume.uid] = doubt
                elif cluster == self._own:
                    self.result.unlisted.append((volume, place))
                if top in there or roots[place.share]["others"]:
                    # A link of the server's, which clients follow, may lead to any directory.
                    self._doubts[place.share] = (
                        f"the directory of volume {volume.name}, {path}, is not there, or is a link that leads to "
                        "another directory"
                    )

        for share, (missing, found) in counted.items():
            if missing and not found:
                self._doubts.setdefault(
                    share,
                    f"of {missing} volumes in it not one directory is there: is its disk mounted, and is it right in "
                    "storage_servers?",
                )

    def _absence(self, one: DirectorySet) -> Absence:
        used = {
            path: [volume.name for volume, _cluster, _share in users]
            for (host, path), users in self._users.items()
            if host == one.host
        }
        return Absence(one, self._listings[0], used)

    # What it is ---------------------------------------------------------------------------------------

    def _ordinary(self, host: str) -> dict[str, Volume]:
        """The volumes of which only the phase counts, by directory, unless that lies in the one of another volume.

        Nearly all are, and C(_judge) would come to the same.
        """
        if self._rules.exclude:
            return {}
        special = {*self._roots[host], *self._holders.get(host, ())}
        for places in (self._intended, self._carried, self._twins):
            special.update(path for one, path in places if one == host)
        return {
            path: users[0][0]
            for (one, path), users in self._users.items()
            if one == host and len(users) == 1 and users[0][1] == self._own and path not in special
        }

    def _judge_share(self, one: DirectorySet, share: Mapping[str, Any], ordinary: Mapping[str, Volume]) -> None:
        unknown = self._unknown_owner(share)
        doubt = unknown or self._doubt(one, share)
        if (one.host, share["path"]) in {*self._users, *self._intended}:
            self.result.directories.append(self._judge(one, share, share, unknown, doubt))
        # By the directory above: whether what lies in it is judged elsewhere, and whether it lies in that of a volume.
        above_it: dict[str, tuple[bool, bool]] = {}
        host, root, add = one.host, share["path"], self.result.directories.append
        for record in one.directories:
            if record["share"] != root:
                continue
            path = record["path"]
            above = path.rpartition("/")[0]
            if above not in above_it:
                between = set(_above(path, root)) - {root}
                # What lies in a share that lies in this one is judged there.
                above_it[above] = bool(between & self._roots[host]), bool(self._lies_in(host, root, path))
            elsewhere, is_inside = above_it[above]
            if elsewhere:
                continue
            volume = ordinary.get(path)
            if volume is None or is_inside:
                add(self._judge(one, share, record, unknown, doubt))
            else:
                kind, reason = _by_phase(volume)
                add(Found(kind, host, root, path, record, volume, reason))

    def _judge(
        self, one: DirectorySet, share: Mapping[str, Any], record: Mapping[str, Any], unknown: str, doubt: str
    ) -> Found:
        host, path = one.host, record["path"]
        users = self._users.get((host, path), [])

        def found(kind: str, reason: str = "", volume: Volume | None = None) -> Found:
            return Found(kind, host, share["path"], path, record, volume, reason)

        pattern = self._excluded(share["path"], path, users)
        if pattern:
            return found("foreign", f"excluded by {pattern}")
        strangers = [f"{volume.name} of cluster {cluster}" for volume, cluster, _share in users if cluster != self._own]
        if strangers:
            return found("foreign", f"the directory of volume {strangers[0]}")
        if (host, path) in self._intended:
            obstacle = self._several(host, share["path"], path, users)
            below = self._held(host, path)
            obstacle = obstacle or (f"holds {below}" if below else "")
            reason = f"an intent is open for volume {self._intended[host, path]}"
            return Found(
                "quarantined", host, share["path"], path, record, users[0][0] if users else None, reason, obstacle
            )
        if path != share["path"] and path in self._roots[host]:
            return found("parent", "is a share of its own")
        if (host, path) in self._carried:
            return found("parent", "is the root in which a provisioner works")
        several = self._several(host, share["path"], path, users)
        if several:
            return found("shared", several)
        below = self._held(host, path)
        if below:
            return found("parent", f"holds {below}")
        if users:
            return found(*_by_phase(users[0][0]), users[0][0])
        if unknown:
            return found("foreign", unknown)
        name = path.rpartition("/")[2]
        if path.rpartition("/")[0] == share["path"].rstrip("/") and name.startswith(ARCHIVED) and name != ARCHIVED:
            return found("archived", "a provisioner kept it")
        reason = doubt or self._in_use(one, share["path"], record)
        return found("foreign", reason) if reason else found("orphan", "no volume and nobody else uses it")

    def _held(self, host: str, path: str) -> str | None:
        """What is used below a directory, or is about to move."""
        return first_below(self._below[host], path) if path in self._holders.get(host, ()) else None

    def _excluded(self, share: str, path: str, users: Sequence[User]) -> str:
        if not self._rules.exclude:
            return ""
        names = {path, path[len(share.rstrip("/")) + 1 :], path.rpartition("/")[2], *(user[0].name for user in users)}
        for pattern in self._rules.exclude:
            if any(fnmatchcase(name, pattern) for name in names):
                return pattern
        return ""

    def _several(self, host: str, share: str, path: str, users: Sequence[User]) -> str:
        if len(users) > 1:
            return f"the directory of {', '.join(sorted(volume.name for volume, _cluster, _share in users))}"
        twins = self._twins.get((host, path))
        if twins:
            return f"is the same directory as {twins[0]}"
        return self._lies_in(host, share, path)

    def _lies_in(self, host: str, share: str, path: str) -> str:
        key = (host, share, path.rpartition("/")[0])
        if key not in self._inside:
            used = next((one for one in _above(path, share) if (host, one) in self._users), None)
            self._inside[key] = ""
            if used is not None:
                self._inside[key] = f"lies in {used}, the directory of volume {self._users[host, used][0][0].name}"
        return self._inside[key]

    # Who knows it -------------------------------------------------------------------------------------

    def _unknown_owner(self, share: Mapping[str, Any]) -> str:
        """Why nobody knows all clusters that use a share."""
        if not share["clusters"]:
            return "the share has no owner file that says which clusters use it"
        known = {listing.cluster_uid for listing in self._listings if listing.complete}
        unknown = sorted(set(share["clusters"]) - known)
        if unknown:
            return f"cluster {unknown[0]} uses the share, and there is no complete list of its volumes"
        return ""

    def _doubt(self, one: DirectorySet, share: Mapping[str, Any]) -> str:
        """Why no directory of a share can be called an orphan."""
        if not one.complete:
            return f"not everything could be listed: {'; '.join(one.problems[:3])}"
        listed = seconds_of(one.listed_at)
        for listing in self._listings:
            if listed > seconds_of(listing.listed_at) + CLOCKS:
                return (
                    f"the directories were listed at {one.listed_at}, and cluster {listing.cluster_uid} was asked "
                    f"before that, at {listing.listed_at}, or the clocks differ"
                )
        for host, reason in self._strange:
            if host in (None, one.host):
                return reason
        if self._uses is None:
            return "nobody knows which pods and hosts mount it without a volume"
        return self._doubts.get(share["path"], "")

    def _in_use(self, one: DirectorySet, share: str, record: Mapping[str, Any]) -> str:
        path, now = record["path"], seconds_of(one.listed_at)
        if record["mount_point"]:
            return "is a mount point"
        if path.rpartition("/")[2] in self._lost:
            return f"has the name of the directory of volume {self._lost[path.rpartition('/')[2]]}, which is missing"
        youngest = max(time for time in (record["ctime"], record["birthtime"]) if time is not None)
        if now - youngest < ORPHAN_SECONDS:
            return "was made or changed within the last 24 hours"
        used = self._used.get(one.host, {})
        below = path if path in used else first_below(self._used_paths.get(one.host, ()), path)
        if below:
            return f"{used[below]} mounts {below}"
        for above in _above(path, "/"):
            inside = above.startswith(share.rstrip("/") + "/")
            if above in used and (inside or not self._rules.allow_mounted_above):
                return f"{used[above]} mounts {above}; say cleanup_allow_mounted_above if it uses nothing of it"
        return ""
