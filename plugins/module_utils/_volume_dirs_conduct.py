# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all runs on directories of volumes have in common: locks and leases, judgement of steps, results."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _open_state, _tree
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    identity,
    look,
    open_below,
    parts_below,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Folder, Owner, Places
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import first_below
from ansible_collections.clusterkit.storage.plugins.module_utils._share_base import Share, exported_paths, find_share
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import Request, Step
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import (
    Outcome,
    Stop,
    not_planned,
    words,
)

_BAD = ("refused", "stale", "gone", "failed", "not_started")


class Conduct:
    """A run: its folders, its judgement of steps, and what it tells of them."""

    def __init__(self, request: Request, places: Places, stack: contextlib.ExitStack) -> None:
        self.request = request
        self.places = places
        self.stack = stack
        self.outcome = Outcome(plan_id=request.plan_id)
        self.mounts = _mounts.read()
        self.mount_points = sorted({mount.path for mount in self.mounts.mounts})
        self.shares: dict[str, Share] = {}
        self.folders: dict[str, Folder] = {}
        self.clusters: dict[str, dict[str, list[str]]] = {}
        self.open_state = _open_state.OpenState()
        self.owner = request.owner or Owner(socket.gethostname(), (self._boot_id() or "unknown").strip(), os.getpid())
        self.stopped = ""
        self._journal: dict[str, list[dict[str, Any]]] = {}
        self._entries: dict[str, dict[str, list[str]]] = {}

    def _boot_id(self) -> str | None:
        with contextlib.suppress(OSError):
            return Path(self.places.boot_id).read_text(encoding="ascii")
        return None

    # --- the whole -------------------------------------------------------------------------------------

    def _find_shares(self) -> None:
        exported = exported_paths(self.places.table)
        for path in self.request.shares:
            try:
                share = find_share(path, self.mounts, exported)
                if share.base not in self.folders:
                    folder = Folder(share.base, self.places)
                    self.stack.callback(folder.close)
                    self.folders[share.base] = folder
            except (NotBeneath, OSError) as error:
                raise ValueError(f"shares: {path}: {words(error)}") from error
            self.shares[path] = share

    def _guard(self, folder: Folder, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Whatever is wrong with a folder of ours stops the run before anything is changed."""
        try:
            return action(*arguments, **more)
        except (FolderError, OSError) as error:
            raise ValueError(f"{folder.base_path}: {words(error)}") from error

    def _begin(self) -> None:
        """Lock every folder, and take its lease, or give all of them back."""
        there = [folder for _base, folder in sorted(self.folders.items()) if folder.exists]
        for folder in there:
            self._guard(folder, folder.lock)
        dead = list(self.request.dead_pids)
        for folder in there:
            if self.request.owner is None:
                dead += self._ended_here(folder)
            problem = folder.lease_problem(self.owner, dead, allow_break=self.request.allow_break_lease)
            if problem:
                raise ValueError(problem)
        needs_space = self.request.state in ("intended", "quarantined")
        for folder in there:
            self._guard(folder, folder.take_lease, self.owner, needs_space=needs_space)

    def _ended_here(self, folder: Folder) -> list[int]:
        """Without an owner given, leases of this machine are held by processes that can be looked for."""
        with contextlib.suppress(FolderError, KeyError, TypeError, ValueError):
            found = folder.lease()
            if found is not None:
                pid = int(found["owner"]["pid"])
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    return [pid]
        return []

    def _end(self) -> None:
        for folder in self.folders.values():
            self._write_journal(folder)
            if not self.request.keep_lease:
                try:
                    folder.drop_lease()
                except (FolderError, OSError) as error:
                    folder.warnings.append(f"the lease of {folder.base_path}/{OWN} stays: {words(error)}")
            self.outcome.warnings += folder.warnings

    def _read_surroundings(self) -> None:
        for base, folder in self.folders.items():
            self.clusters[base] = self._guard(folder, folder.clusters)
        moving = self.request.state in ("intended", "quarantined") and self.request.steps
        if self.request.state == "purged" or moving:
            self.open_state = _open_state.read(self.places.nfsd)
            if self.open_state.nfsv3:
                self.outcome.warnings.append(
                    "this server speaks NFSv3, too: what clients of NFSv3 have open cannot be known"
                )
        self.planned = Counter(step.directory for step in self.request.steps if step.directory)
        self.planned_paths = sorted(self.planned)
        self.kept = frozenset(self.request.keep)
        self.kept_paths = sorted({*self.request.keep, *self.request.shares})
        intended: dict[str, str] = {}
        for share in self.shares.values():
            folder = self.folders[share.base]
            for intent in self._intents(folder):
                if intent["share"] == share.key and intent["kind"] == "Intent":
                    intended[f"{share.path}/{intent['below']}".rstrip("/")] = intent["volume"]["uid"]
        self.intended = intended
        self.intended_paths = sorted(intended)

    def _intents(self, folder: Folder) -> Iterator[dict[str, Any]]:
        """Read all open intents, one after the other: they hold whole objects."""
        for name in folder.intent_names() if folder.exists else ():
            content = self._guard(folder, folder.read_intent, name)
            if content is not None:
                yield content

    def _conclude(self) -> None:
        self.outcome.items.sort(key=lambda item: item["number"])
        for item in self.outcome.items:
            del item["number"]
        wrong = [item for item in self.outcome.items if item["state"] in _BAD]
        if wrong:
            shown = "; ".join(f"{item['item']} ({item['state']}): {item['reason']}" for item in wrong[:5])
            more = f"; and {len(wrong) - 5} more, see directories" if len(wrong) > 5 else ""
            self.outcome.problem = (
                f"{len(wrong)} of {len(self.outcome.items)} steps are not as asked for: {shown}{more}"
            )

    # --- owner files -----------------------------------------------------------------------------------

    def _present(self) -> None:
        if self.request.check_mode:
            for folder in self.folders.values():
                self._guard(folder, folder.open, create=False)
        else:
            for folder in self.folders.values():
                if self._guard(folder, folder.open, create=True):
                    self.outcome.prepared = True
                self._guard(folder, folder.lock)
        for base, folder in self.folders.items():
            old = self._guard(folder, folder.clusters)
            new = {key: list(uids) for key, uids in old.items()}
            for share in self.shares.values():
                if share.base == base:
                    new[share.key] = sorted({*new.get(share.key, []), *self.request.clusters})
            if new != old or not folder.exists:
                self.outcome.prepared = True
                self._differ(f"{base}/{OWN}/share.json {old}", f"{base}/{OWN}/share.json {new}")
                if not self.request.check_mode:
                    self._guard(folder, folder.write_clusters, new)

    # --- steps -----------------------------------------------------------------------------------------

    def _tell(self, step: Step, state: str, reason: str = "", entry: str = "", *, changed: bool = False) -> None:
        item = {
            "number": step.number,
            "id": step.id,
            "item": step.item,
            "share": step.share,
            "directory": step.directory,
            "entry": entry or step.entry,
            "state": state,
            "changed": changed or state == "changed",
            "reason": reason,
        }
        self.outcome.items.append(item)
        if state == "unchanged":
            return
        base = self.shares[step.share].base
        line = {key: item[key] for key in ("item", "share", "directory", "entry", "reason")}
        line.update(step=step.id, plan=self.request.plan_id, asked=self.request.state, result=state)
        line.update(by=self.request.by, owner=self.owner.data(), volume=step.volume, planned_reason=step.reason)
        self._journal.setdefault(base, []).append(line)

    def _write_journal(self, folder: Folder) -> None:
        lines = self._journal.pop(folder.base_path, [])
        if lines and folder.exists and not self.request.check_mode:
            folder.write_journal(lines)

    def _differ(self, before: str, after: str) -> None:
        self.outcome.before.append(before)
        self.outcome.after.append(after)

    def _one_by_one(self, steps: Iterable[Step], action: Callable[[Step], None]) -> None:
        for step in steps:
            self._try(step, functools.partial(action, step))
            self._write_journal(self._folder(step))

    def _try(self, step: Step, action: Callable[..., Any], *arguments: Any) -> Any:
        """Run a part of a step, and turn what it raises into its result; None then."""
        if self.stopped:
            self._tell(step, "not_started", self.stopped)
            return None
        try:
            if not self.request.check_mode and self._folder(step).exists:
                self._renew(self._folder(step))
            return action(*arguments)
        except Stop as stop:
            self._tell(step, stop.state, stop.reason, changed=stop.changed)
        except NotBeneath as error:
            self._tell(step, "refused", str(error))
        except FileNotFoundError as error:
            self._tell(step, "gone", words(error))
        except (FolderError, OSError) as error:
            self._tell(step, "failed", words(error))
        return None

    def _renew(self, folder: Folder, *, begun: bool = False) -> None:
        try:
            folder.renew_lease(needs_space=self.request.state in ("intended", "quarantined"))
        except FolderError as error:
            self.stopped = str(error)
            raise Stop("failed" if begun else "not_started", self.stopped, changed=begun) from error

    def _folder(self, step: Step) -> Folder:
        return self.folders[self.shares[step.share].base]

    def _path_below(self, step: Step) -> tuple[str, ...]:
        """The way from the share to the directory."""
        if step.directory is None:
            raise AssertionError("checked with the arguments")
        return parts_below(step.share, step.directory)

    # --- may it be touched? ----------------------------------------------------------------------------

    def _check_owner(self, step: Step) -> None:
        share = self.shares[step.share]
        owners = self.clusters[share.base].get(share.key)
        if not owners:
            raise Stop(
                "refused",
                f"{step.share} has no owner file that says which clusters use it; state: present writes it",
            )
        if self.request.cluster_uid is None:
            raise Stop("refused", "cluster_uid is not given, so nobody knows whose volume this is")
        if self.request.cluster_uid not in owners:
            raise Stop(
                "refused", f"cluster {self.request.cluster_uid} is none of those that use {step.share}: "
                f"{', '.join(owners)}",
            )  # fmt: skip

    def _check_surroundings(self, step: Step) -> None:
        """Refuse what other volumes, shares or file systems lie in."""
        directory = step.directory or ""
        below = first_below(self.mount_points, directory)
        if below:
            raise Stop("refused", f"{below} is a mount point in it")
        if step.scope == "directory" and directory in self.mount_points:
            raise Stop("refused", f"{directory} is a mount point")
        for paths, what in (
            (self.kept_paths, "another volume or share"),
            (self.planned_paths, "another step"),
            (self.intended_paths, "a volume that is about to be quarantined"),
        ):
            below = first_below(paths, directory)
            if below:
                raise Stop("refused", f"{directory} holds {below}, the directory of {what}")
        if directory in self.kept or (step.scope == "directory" and directory in self.shares):
            raise Stop("refused", f"{directory} is the directory of another volume or share, too")
        if self.planned[directory] > 1:
            raise Stop("refused", f"{directory} is in more than one step")
        other = self.intended.get(directory)
        if other not in (None, (step.volume or {}).get("uid")):
            raise Stop("refused", f"{directory} is about to be quarantined as the directory of volume uid {other}")

    def _check_open_state(self, descriptor: int, folder: Folder) -> None:
        if not self.open_state.known:
            if self.request.allow_unknown_open_state:
                return
            if self.open_state.grace:
                raise Stop(
                    "refused",
                    "the NFS server has just started, and its clients are telling it what they have open; run it again "
                    "when its grace period is over",
                )
            raise Stop(
                "refused",
                "what NFSv4 clients have open is not known on this host; say allow_unknown_open_state: true if it "
                "is certain that nobody uses it",
            )
        inodes = self.open_state.inodes(folder.device)
        if not inodes:
            return
        found = _tree.find_inode(descriptor, inodes)
        if found is not None:
            raise Stop("refused", f"inode {found} in it is open by {', '.join(sorted(inodes[found]))}")

    def _find_directory(self, step: Step) -> tuple[int, str, os.stat_result, int]:
        """Return the open parent, the name, what is there, and the open directory, as the plan saw it.

        Raises Stop or NotBeneath when it is something else by now.
        """
        share = self.shares[step.share]
        folder = self.folders[share.base]
        below = self._path_below(step)
        if not below:
            descriptor = open_below(folder.base, share.parts)
            found = os.fstat(descriptor)
            parent, name = os.dup(descriptor), ""
        else:
            parent, name = open_below(folder.base, (*share.parts, *below[:-1])), below[-1]
            descriptor = -1
        try:
            if below:
                there = look(parent, name)
                if there is None:
                    raise FileNotFoundError(errno.ENOENT, "is not there", step.directory)
                if not stat.S_ISDIR(there.st_mode):
                    kind = "a symbolic link" if stat.S_ISLNK(there.st_mode) else "no directory"
                    raise Stop("refused", f"{step.directory} is {kind}")
                descriptor = open_below(parent, [name])
                found = os.fstat(descriptor)
            if step.precondition != identity(found):
                raise Stop("stale", not_planned(step, found))
        except BaseException:
            os.close(parent)
            if descriptor >= 0:
                os.close(descriptor)
            raise
        return parent, name, found, descriptor
