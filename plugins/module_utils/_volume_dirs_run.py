# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quarantine directories of volumes, bring them back, remove them for good: the only code that does.

Every step is a few renames between moments at which everything is flushed, so that a run may be ended anywhere: what
was a volume's data is in its place, or in quarantine beside a manifest, or is being removed after its time. The
next run first brings what was left half done to its end, or takes it back.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _open_state, _own_folder, _tree
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OPEN_DIRECTORY,
    OWN,
    NotBeneath,
    identity,
    look,
    open_below,
    parts_below,
    rename_to_free_name,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    DATA,
    MANIFEST,
    PURGING,
    RESTORING,
    SCHEMA,
    Entry,
    Folder,
    FolderError,
    Owner,
    Places,
    Share,
    entry_key,
    entry_name,
    intent_name,
    timestamp,
    write_json,
    write_new,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import (
    Request,
    Step,
    objects_problem,
    with_objects,
)

Item = dict[str, Any]
RESULTS = ("changed", "unchanged", "refused", "stale", "gone", "failed", "not_started")
_BAD = ("refused", "stale", "gone", "failed", "not_started")
# So many directories are prepared, flushed, moved and flushed together; each holds one or two descriptors.
_BATCH = 100
_CONTENT_ROUNDS = 5
_RESTORED = "restored-"  # before the name of an intent: the directory is back, the objects may not be


class _Stop(Exception):  # noqa: N818 - ends one step, not the run
    """How a step ends early."""

    def __init__(self, state: str, reason: str, *, changed: bool = False) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.changed = changed


@dataclass
class Outcome:
    """What a run did. `problem` says why it counts as failed."""

    items: list[Item] = field(default_factory=list)
    recovered: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: dict[str, str] = field(default_factory=lambda: {"before": "", "after": ""})
    problem: str = ""
    prepared: bool = False  # folders or owner files were made or changed
    plan_id: str | None = None

    @property
    def changed(self) -> bool:
        return self.prepared or bool(self.recovered) or any(item["changed"] for item in self.items)

    def summary(self) -> dict[str, int]:
        counted = Counter(item["state"] for item in self.items)
        return {state: counted[state] for state in RESULTS}


@dataclass
class _Moving:
    """A directory on its way into quarantine."""

    step: Step
    folder: Folder
    parent: int  # of content: the directory itself
    name: str
    found: os.stat_result
    intent: str | None
    entry: Entry | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def opened(self) -> Entry:
        """The entry, once its manifest was written."""
        assert self.entry is not None  # noqa: S101 - nothing is moved without it
        return self.entry


def run(request: Request, places: Places) -> Outcome:
    """Do what the request says. Raises ValueError for what concerns all of it; nothing is changed then."""
    with contextlib.ExitStack() as stack:
        return _Run(request, places, stack).do()


class _Run:
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

    def do(self) -> Outcome:
        self._find_shares()
        if self.request.state == "present":
            self._present()
            return self.outcome
        for folder in self.folders.values():
            self._guard(folder, lambda f=folder: f.open(create=False))
        try:
            if not self.request.check_mode:
                self._begin()
            self._read_surroundings()
            if not self.request.check_mode:
                self._recover()
            self._steps()
        finally:
            self._end()
        self._conclude()
        return self.outcome

    def _find_shares(self) -> None:
        exported = _own_folder.exported_paths(self.places.table)
        for path in self.request.shares:
            try:
                share = _own_folder.find_share(path, self.mounts, exported)
                if share.base not in self.folders:
                    folder = Folder(share.base, self.places)
                    self.stack.callback(folder.close)
                    self.folders[share.base] = folder
            except (NotBeneath, OSError) as error:
                raise ValueError(f"shares: {path}: {_words(error)}") from error
            self.shares[path] = share

    def _guard(self, folder: Folder, action: Callable[[], Any]) -> Any:
        """Whatever is wrong with a folder of ours stops the run before anything is changed."""
        try:
            return action()
        except (FolderError, OSError) as error:
            raise ValueError(f"{folder.base_path}: {_words(error)}") from error

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
            self._guard(folder, lambda f=folder: f.take_lease(self.owner, needs_space=needs_space))

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
                    folder.warnings.append(f"the lease of {folder.base_path}/{OWN} stays: {_words(error)}")
            self.outcome.warnings += folder.warnings

    def _read_surroundings(self) -> None:
        for base, folder in self.folders.items():
            self.clusters[base] = self._guard(folder, folder.clusters)
        if self.request.state == "purged" or (self.request.state == "quarantined" and self.request.steps):
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
            content = self._guard(folder, lambda n=name: folder.read_intent(n))
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
                self._guard(folder, lambda f=folder: f.open(create=False))
        else:
            for folder in self.folders.values():
                if self._guard(folder, lambda f=folder: f.open(create=True)):
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
                    self._guard(folder, lambda f=folder, n=new: f.write_clusters(n))

    # --- steps -----------------------------------------------------------------------------------------

    def _steps(self) -> None:
        actions: dict[str, Callable[[Sequence[Step]], None]] = {
            "intended": self._intend,
            "quarantined": self._quarantine,
            "restored": lambda steps: self._one_by_one(steps, self._restore),
            "purged": self._purge_all,
            "closed": lambda steps: self._one_by_one(steps, self._close_intent),
        }
        actions[self.request.state](self.request.steps)

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
        self.outcome.diff["before"] += f"{before}\n"
        self.outcome.diff["after"] += f"{after}\n"

    def _one_by_one(self, steps: Iterable[Step], action: Callable[[Step], None]) -> None:
        for step in steps:
            self._try(step, lambda s=step: action(s))
            self._write_journal(self._folder(step))

    def _try(self, step: Step, action: Callable[[], Any]) -> Any:
        """Run a part of a step, and turn what it raises into its result; None then."""
        if self.stopped:
            self._tell(step, "not_started", self.stopped)
            return None
        try:
            if not self.request.check_mode and self._folder(step).exists:
                self._renew(self._folder(step))
            return action()
        except _Stop as stop:
            self._tell(step, stop.state, stop.reason, changed=stop.changed)
        except NotBeneath as error:
            self._tell(step, "refused", str(error))
        except FileNotFoundError as error:
            self._tell(step, "gone", _words(error))
        except (FolderError, OSError) as error:
            self._tell(step, "failed", _words(error))
        return None

    def _renew(self, folder: Folder, *, begun: bool = False) -> None:
        try:
            folder.renew_lease(needs_space=self.request.state in ("intended", "quarantined"))
        except FolderError as error:
            self.stopped = str(error)
            raise _Stop("failed" if begun else "not_started", self.stopped, changed=begun) from error

    def _folder(self, step: Step) -> Folder:
        return self.folders[self.shares[step.share].base]

    def _path_below(self, step: Step) -> tuple[str, ...]:
        """The way from the share to the directory."""
        assert step.directory is not None  # noqa: S101 - checked with the arguments
        return parts_below(step.share, step.directory)

    # --- may it be touched? ----------------------------------------------------------------------------

    def _check_owner(self, step: Step) -> None:
        share = self.shares[step.share]
        owners = self.clusters[share.base].get(share.key)
        if not owners:
            raise _Stop(
                "refused",
                f"{step.share} has no owner file that says which clusters use it; state: present writes it",
            )
        if self.request.cluster_uid is None:
            raise _Stop("refused", "cluster_uid is not given, so nobody knows whose volume this is")
        if self.request.cluster_uid not in owners:
            raise _Stop(
                "refused", f"cluster {self.request.cluster_uid} is none of those that use {step.share}: "
                f"{', '.join(owners)}",
            )  # fmt: skip

    def _check_surroundings(self, step: Step) -> None:
        """Refuse what other volumes, shares or file systems lie in."""
        directory = step.directory or ""
        below = _first_below(self.mount_points, directory)
        if below:
            raise _Stop("refused", f"{below} is a mount point in it")
        if step.scope == "directory" and directory in self.mount_points:
            raise _Stop("refused", f"{directory} is a mount point")
        for paths, what in (
            (self.kept_paths, "another volume or share"),
            (self.planned_paths, "another step"),
            (self.intended_paths, "a volume that is about to be quarantined"),
        ):
            below = _first_below(paths, directory)
            if below:
                raise _Stop("refused", f"{directory} holds {below}, the directory of {what}")
        if directory in self.kept or (step.scope == "directory" and directory in self.shares):
            raise _Stop("refused", f"{directory} is the directory of another volume or share, too")
        if self.planned[directory] > 1:
            raise _Stop("refused", f"{directory} is in more than one step")
        other = self.intended.get(directory)
        if other not in (None, (step.volume or {}).get("uid")):
            raise _Stop("refused", f"{directory} is about to be quarantined as the directory of volume uid {other}")

    def _check_open_state(self, descriptor: int, folder: Folder) -> None:
        if not self.open_state.known:
            if self.request.allow_unknown_open_state:
                return
            raise _Stop(
                "refused",
                "what NFSv4 clients have open is not known on this host; say allow_unknown_open_state: true if it "
                "is certain that nobody uses it",
            )
        inodes = self.open_state.inodes(folder.device)
        if not inodes:
            return
        found = _tree.find_inode(descriptor, inodes)
        if found is not None:
            raise _Stop("refused", f"inode {found} in it is open by {', '.join(sorted(inodes[found]))}")

    def _find_directory(self, step: Step) -> tuple[int, str, os.stat_result, int]:
        """Return the open parent, the name, what is there, and the open directory, as the plan saw it.

        Raises _Stop or NotBeneath when it is something else by now.
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
                    raise _Stop("refused", f"{step.directory} is {kind}")
                descriptor = open_below(parent, [name])
                found = os.fstat(descriptor)
            if step.precondition != identity(found):
                raise _Stop("stale", _not_planned(step, found))
        except BaseException:
            os.close(parent)
            if descriptor >= 0:
                os.close(descriptor)
            raise
        return parent, name, found, descriptor

    # --- intended --------------------------------------------------------------------------------------

    def _intend(self, steps: Sequence[Step]) -> None:
        if not self.request.objects:
            self._one_by_one(steps, self._write_intent)
            return
        try:
            self._one_by_one(with_objects(steps, self.request.objects), self._write_intent)
        except (OSError, ValueError) as error:
            self.stopped = f"objects: {_words(error)}" if isinstance(error, OSError) else str(error)
            told = {item["number"] for item in self.outcome.items}
            for step in steps:
                if step.number not in told:
                    self._tell(step, "not_started", self.stopped)

    def _write_intent(self, step: Step) -> None:
        assert step.volume is not None  # noqa: S101 - checked with the arguments
        problem = objects_problem(step.objects, step.volume["uid"])
        if problem:
            raise _Stop("refused", problem)
        self._check_owner(step)
        self._check_surroundings(step)
        parent, _name, found, descriptor = self._find_directory(step)
        os.close(parent)
        os.close(descriptor)
        folder = self._folder(step)
        name = intent_name(step.volume)
        content = self._record(step, found, "Intent")
        content["objects"] = step.objects
        old = folder.read_intent(name)
        if old is not None and {**old, "at": ""} == {**content, "at": ""}:
            self._tell(step, "unchanged")
            return
        if not self.request.check_mode:
            write_json(folder.intents, name, content)
        self._tell(step, "changed")
        self._differ(f"{step.item}: no intent", f"{step.item}: intent to quarantine {step.directory}")

    def _record(self, step: Step, found: os.stat_result, kind: str) -> dict[str, Any]:
        share = self.shares[step.share]
        return {
            "schema": SCHEMA,
            "kind": kind,
            "at": timestamp(self.places.now()),
            "by": self.request.by,
            "owner": self.owner.controller,
            "cluster_uid": self.request.cluster_uid,
            "plan": self.request.plan_id,
            "step": step.id,
            "reason": step.reason,
            "share": share.key,
            "below": "/".join(self._path_below(step)),
            "directory": step.directory,
            "scope": step.scope,
            "device": found.st_dev,
            "inode": found.st_ino,
            "volume": step.volume,
            "objects": None,
        }

    # --- quarantined -----------------------------------------------------------------------------------

    def _quarantine(self, steps: Sequence[Step]) -> None:
        for batch in _batches(steps, _BATCH):
            with contextlib.ExitStack() as stack:
                self._quarantine_batch(batch, stack)
            for folder in self.folders.values():
                self._write_journal(folder)

    def _quarantine_batch(self, steps: Sequence[Step], stack: contextlib.ExitStack) -> None:
        ready = []
        for step in steps:
            moving = self._try(step, lambda s=step: self._prepare(s, stack))
            if moving is not None:
                ready.append(moving)
        if self.request.check_mode:
            for moving in ready:
                self._tell_quarantined(moving, "")
            return
        written = [m for m in ready if self._try(m.step, lambda m=m: self._write_manifest(m, stack))]
        if not self._flushed({moving.folder.trash for moving in written}, written):
            return
        moved = [moving for moving in written if self._try(moving.step, lambda m=moving: self._move(m))]
        try:
            self._settle(moved)
        except OSError as error:
            for moving in moved:
                moving.problems.append(f"it was moved, but that could not be flushed: {_words(error)}")
        for moving in moved:
            entry = moving.opened.name
            if moving.problems:
                self._tell(moving.step, "failed", "; ".join(moving.problems[:5]), entry, changed=True)
            else:
                self._tell_quarantined(moving, entry)

    def _settle(self, moved: Sequence[_Moving]) -> None:
        """Flush what was moved; only then nobody needs the intents any more."""
        self._flush({moving.parent for moving in moved})
        self._flush({moving.opened.descriptor for moving in moved})
        done = [moving for moving in moved if moving.intent and not moving.problems]
        for moving in done:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(moving.intent or "", dir_fd=moving.folder.intents)
        self._flush({moving.folder.intents for moving in done})

    def _tell_quarantined(self, moving: _Moving, entry: str) -> None:
        self._tell(moving.step, "changed", entry=entry)
        what = f"{moving.step.directory} (inode {moving.found.st_ino})"
        content = "content of " if moving.step.scope == "content" else ""
        self._differ(f"{content}{what}", f"{moving.folder.base_path}/{OWN}/trash/{entry or '...'}")

    def _prepare(self, step: Step, stack: contextlib.ExitStack) -> _Moving | None:
        """Judge a step; nothing is changed here."""
        self._check_owner(step)
        self._check_surroundings(step)
        folder = self._folder(step)
        try:
            parent, name, found, descriptor = self._find_directory(step)
        except FileNotFoundError:
            if self._is_quarantined(step):
                return None
            raise
        if step.scope == "content":
            os.close(parent)
            parent, name = descriptor, ""
        else:
            stack.callback(os.close, descriptor)
        stack.callback(os.close, parent)
        try:
            intent = self._intent_of(step, folder, found)
        except _Stop:
            if step.scope == "content" and not self._movable(step, parent) and self._is_quarantined(step):
                return None
            raise
        self._check_open_state(descriptor, folder)
        return _Moving(step, folder, parent, name, found, intent)

    def _intent_of(self, step: Step, folder: Folder, found: os.stat_result) -> str | None:
        if step.volume is None:
            return None
        name = intent_name(step.volume)
        intent = folder.read_intent(name)
        if intent is None:
            name = step.volume["name"]
            raise _Stop("refused", f"there is no open intent for volume {name}; run state: intended first")
        if intent["inode"] != found.st_ino or intent["share"] != self.shares[step.share].key:
            raise _Stop("refused", f"the open intent is for {intent['directory']}, inode {intent['inode']}")
        if intent["scope"] != step.scope:
            raise _Stop("refused", f"the open intent has scope {intent['scope']}")
        return name

    def _is_quarantined(self, step: Step) -> bool:
        """Tell of a step that was done before, and say so."""
        for entry, manifest in self._entries_of(step):
            if manifest["inode"] == (step.precondition or (0, 0))[1] and manifest["scope"] == step.scope:
                self._tell(step, "unchanged", f"is in quarantine since {manifest['quarantined_at']}", entry)
                return True
        return False

    def _entries_of(self, step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read the manifests of what was quarantined from the place of this step."""
        folder = self._folder(step)
        if folder.base_path not in self._entries:
            index: dict[str, list[str]] = {}
            for name in folder.entry_names():
                index.setdefault(entry_key(name), []).append(name)
            self._entries[folder.base_path] = index
        key = entry_key(entry_name(0, step.volume, step.directory or "", (step.precondition or (0, 0))[1]))
        for name in self._entries[folder.base_path].get(key, []):
            entry = folder.open_entry(name)
            if entry is not None:
                with entry:
                    state = entry.read()
                if state is not None and state[0] == MANIFEST and state[1]["below"] == "/".join(self._path_below(step)):
                    yield name, state[1]

    def _write_manifest(self, moving: _Moving, stack: contextlib.ExitStack) -> bool:
        step, folder, found = moving.step, moving.folder, moving.found
        intent = folder.read_intent(moving.intent) if moving.intent else None
        if step.scope == "content":
            resumed = self._unfinished(step, intent)
            if resumed is not None:
                moving.entry = resumed
                stack.callback(resumed.close)
                return True
        manifest = self._record(step, found, "Manifest")
        if intent is not None:
            manifest.update(objects=intent["objects"], intent_at=intent["at"])
            manifest["reason"] = step.reason or intent["reason"]
        now = self.places.now()
        manifest.update(
            quarantined_at=timestamp(now),
            controller_time=self.request.controller_time,
            uid=found.st_uid,
            gid=found.st_gid,
            mode=f"{stat.S_IMODE(found.st_mode):04o}",
        )
        entry = folder.make_entry(entry_name(now, step.volume, step.directory or "", found.st_ino))
        stack.callback(entry.close)
        manifest["entry"] = entry.name
        try:
            write_new(entry.descriptor, MANIFEST, manifest)
            if step.scope == "content":
                os.mkdir(DATA, 0o700, dir_fd=entry.descriptor)
            sync(entry.descriptor)
        except BaseException:
            self._forget(folder, entry)
            raise
        moving.entry = entry
        return True

    def _unfinished(self, step: Step, intent: Mapping[str, Any] | None) -> Entry | None:
        """Return the entry that a killed run had begun to fill with the content of this volume."""
        for name, manifest in self._entries_of(step):
            if intent is not None and manifest.get("intent_at") == intent["at"] and manifest["scope"] == "content":
                return self._folder(step).open_entry(name)
        return None

    def _forget(self, folder: Folder, entry: Entry) -> None:
        """Remove an entry that holds no data. Whatever keeps it is left to the next run."""
        with contextlib.suppress(OSError):
            if entry.data() is not None:
                os.rmdir(DATA, dir_fd=entry.descriptor)
            folder.remove_entry(entry)

    def _flushed(self, descriptors: Iterable[int], concerned: Sequence[_Moving]) -> bool:
        """Before anything is moved its manifest must be on the disk."""
        try:
            self._flush(descriptors)
        except OSError as error:
            for moving in concerned:
                self._forget(moving.folder, moving.opened)
                self._tell(moving.step, "failed", f"the manifest could not be flushed: {_words(error)}")
            return False
        return True

    @staticmethod
    def _flush(descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            sync(descriptor)

    def _move(self, moving: _Moving) -> bool:
        if moving.step.scope == "content":
            self._move_content(moving)
            return True
        entry, folder = moving.opened, moving.folder
        try:
            rename_to_free_name(moving.parent, moving.name, entry.descriptor, DATA)
        except OSError as error:
            self._forget(folder, entry)
            raise _across(error) from error
        moved = entry.data()
        if moved is None or identity(moved) != moving.step.precondition:
            self._put_back(moving, moved)
        return True

    def _put_back(self, moving: _Moving, moved: os.stat_result | None) -> None:
        """Somebody put something else under the name at the last moment."""
        what = _not_planned(moving.step, moved) if moved is not None else f"{moving.step.directory} was taken away"
        if moved is not None:
            try:
                rename_to_free_name(moving.opened.descriptor, DATA, moving.parent, moving.name)
            except OSError as error:
                raise _Stop(
                    "failed", f"{what}, and cannot be put back ({_words(error)}): it lies in {moving.opened.name}"
                ) from error
            self._flush({moving.parent, moving.opened.descriptor})
        self._forget(moving.folder, moving.opened)
        raise _Stop("stale", what)

    def _movable(self, step: Step, descriptor: int) -> list[str]:
        """Return what is in a directory and belongs to the volume."""
        names = list(_own_folder._names(descriptor))
        if (step.directory or "") in self.mount_points:
            names = [name for name in names if name != "lost+found"]
        return sorted(name for name in names if name != OWN)

    def _move_content(self, moving: _Moving) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(DATA, 0o700, dir_fd=moving.opened.descriptor)
        data = open_below(moving.opened.descriptor, [DATA])
        try:
            for _round in range(_CONTENT_ROUNDS):
                moving.problems = []
                names = self._movable(moving.step, moving.parent)
                if not names:
                    break
                for name in names:
                    try:
                        rename_to_free_name(moving.parent, name, data, name)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        moving.problems.append(_words(error))
            else:
                left = self._movable(moving.step, moving.parent)
                if left and not moving.problems:
                    moving.problems.append(f"somebody keeps writing, there is {left[0]!r} again")
            sync(data)
        finally:
            os.close(data)

    # --- restored --------------------------------------------------------------------------------------

    def _entry(self, step: Step) -> tuple[Entry, str, dict[str, Any]]:
        """Return the open entry of a step with its state and manifest. Raises _Stop."""
        folder = self._folder(step)
        entry = folder.open_entry(step.entry or "")
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "is not in quarantine", step.entry)
        try:
            state = entry.read()
            if state is None:
                raise _Stop("failed", f"{step.entry} has no manifest")
            name, manifest = state
            if manifest["share"] != self.shares[step.share].key:
                raise _Stop("refused", f"{step.entry} was quarantined from the share {manifest['share']!r}")
            mine, its = self.request.cluster_uid, manifest.get("cluster_uid")
            if mine and its and mine != its:
                raise _Stop("refused", f"{step.entry} belongs to the cluster {its}")
            data = entry.data()
            if data is not None and step.precondition != identity(data):
                raise _Stop("stale", _not_planned(step, data))
        except BaseException:
            entry.close()
            raise
        return entry, name, manifest

    def _restore(self, step: Step) -> None:
        try:
            entry, state, manifest = self._entry(step)
        except FileNotFoundError:
            if self._is_back(step):
                return
            raise
        with entry:
            data = entry.data()
            if state != MANIFEST or data is None:
                stage = _own_folder.MANIFESTS[state]
                raise _Stop("refused", f"{step.entry} is {stage}, and cannot be brought back whole")
            if manifest["scope"] == "directory" and data.st_ino != manifest["inode"]:
                raise _Stop("refused", f"what lies in {step.entry} is not what its manifest says")
            folder = self._folder(step)
            share = self.shares[step.share]
            below = self._target(step, manifest)
            if not below and manifest["scope"] == "directory":
                raise _Stop("refused", f"{step.share} is the root of the share, and there already")
            target = f"{step.share}/{'/'.join(below)}" if below else step.share
            try:
                if manifest["scope"] == "content":
                    parent, name = open_below(folder.base, (*share.parts, *below)), ""
                else:
                    parent, name = open_below(folder.base, (*share.parts, *below[:-1])), below[-1]
            except FileNotFoundError as error:
                raise _Stop("refused", f"{error.filename} is not there any more; make it first") from error
            try:
                if name and look(parent, name) is not None:
                    raise _Stop("refused", f"{target} is there already")
                if not self.request.check_mode:
                    entry.set_state(MANIFEST, RESTORING)
                    self._bring_back(folder, entry, manifest, parent, name)
            finally:
                os.close(parent)
        self._tell(step, "changed")
        self._differ(f"{folder.base_path}/{OWN}/trash/{step.entry}", target)

    def _target(self, step: Step, manifest: Mapping[str, Any]) -> tuple[str, ...]:
        if step.directory:
            return self._path_below(step)
        return parts_below(step.share, f"{step.share}/{manifest['below']}" if manifest["below"] else step.share)

    def _is_back(self, step: Step) -> bool:
        """Tell of a step that was done before, and say so."""
        folder = self._folder(step)
        finished = {each["entry"] for each in self.outcome.recovered if each["base"] == folder.base_path}
        kept = {each.get("entry") for each in self._intents(folder) if each["kind"] == "Manifest"}
        there = step.entry in finished | kept
        if not there and step.directory:
            with contextlib.suppress(NotBeneath, OSError, _Stop):
                parent, _name, _found, descriptor = self._find_directory(step)
                os.close(parent)
                os.close(descriptor)
                there = True
        if there:
            self._tell(step, "unchanged", "is in its place")
        return there

    def _bring_back(self, folder: Folder, entry: Entry, manifest: Mapping[str, Any], parent: int, name: str) -> None:
        problems: list[str] = []
        try:
            if manifest["scope"] == "content":
                problems = _return_content(entry, parent)
            else:
                rename_to_free_name(entry.descriptor, DATA, parent, name)
            self._flush({parent, entry.descriptor})
        except OSError as error:
            entry.set_state(RESTORING, MANIFEST)
            raise _across(error) from error
        if problems:
            entry.set_state(RESTORING, MANIFEST)
            more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
            reason = f"{len(problems)} names stay in quarantine: {'; '.join(problems[:5])}{more}"
            raise _Stop("failed", reason, changed=True)
        self._after_restore(folder, entry, manifest)

    def _after_restore(self, folder: Folder, entry: Entry, manifest: Mapping[str, Any]) -> None:
        """Keep the objects of the volume until somebody says that they are back."""
        if manifest["volume"]:
            name = _RESTORED + intent_name(manifest["volume"])
            os.rename(RESTORING, name, src_dir_fd=entry.descriptor, dst_dir_fd=folder.intents)
            sync(folder.intents)
        folder.remove_entry(entry)
        sync(folder.trash)

    # --- purged ----------------------------------------------------------------------------------------

    def _purge_all(self, steps: Sequence[Step]) -> None:
        self._one_by_one(steps, self._purge)
        asked = {(self.shares[step.share].base, step.entry) for step in steps}
        for base, folder in self.folders.items():
            for name in folder.entry_names() if folder.exists else ():
                if (base, name) in asked:
                    continue
                step = self._begun(base, folder, name)
                if step is not None:
                    self._one_by_one([step], self._purge)

    def _begun(self, base: str, folder: Folder, name: str) -> Step | None:
        """Return the step that goes on with a purge that an earlier run had begun."""
        with contextlib.suppress(FolderError, NotBeneath, OSError):
            entry = folder.open_entry(name)
            if entry is not None:
                with entry:
                    state, data = entry.read(), entry.data()
                if state is None or state[0] != PURGING:
                    return None
                for share in self.shares.values():
                    if share.base == base and share.key == state[1]["share"]:
                        number = len(self.outcome.items) + len(self.request.steps)
                        here = identity(data) if data is not None else None
                        reason = "had been begun by an earlier run"
                        return Step(number, "", share.path, None, state[1]["scope"], name, None, None, here, reason)
        return None

    def _purge(self, step: Step) -> None:
        try:
            entry, state, manifest = self._entry(step)
        except FileNotFoundError:
            self._tell(step, "unchanged", "is not in quarantine any more")
            return
        folder = self._folder(step)
        where = f"{folder.base_path}/{OWN}/trash/{step.entry}"
        with entry:
            data = entry.data()
            if state == RESTORING:
                raise _Stop("refused", f"{step.entry} is on its way back")
            if state == MANIFEST:
                self._check_age(manifest)
                if data is None or not stat.S_ISDIR(data.st_mode):
                    raise _Stop("refused", f"there is no directory in {step.entry}")
                if manifest["scope"] == "directory" and data.st_ino != manifest["inode"]:
                    raise _Stop("refused", f"what lies in {step.entry} is not what its manifest says")
            below = _first_below(self.mount_points, where)
            if below:
                raise _Stop("refused", f"{below} is a mount point in it")
            removal = _tree.Removal()
            if data is not None:
                descriptor = open_below(entry.descriptor, [DATA])
                try:
                    self._check_open_state(descriptor, folder)
                    if not self.request.check_mode:
                        if state == MANIFEST:
                            entry.set_state(MANIFEST, PURGING)
                        removal = _tree.remove_content(descriptor, lambda: self._renew(folder, begun=True))
                finally:
                    os.close(descriptor)
            if removal.failures:
                shown = "; ".join(removal.problems[:5])
                reason = f"{removal.failures} of it cannot be removed: {shown}"
                self._tell(step, "failed", reason, changed=bool(removal.files or removal.directories))
                return
            if not self.request.check_mode:
                if data is not None:
                    os.rmdir(DATA, dir_fd=entry.descriptor)
                folder.remove_entry(entry)
                sync(folder.trash)
        self._tell(step, "changed")
        self._differ(where, "absent")

    def _check_age(self, manifest: Mapping[str, Any]) -> None:
        if self.request.allow_purge_now:
            return
        age = self.places.now() - _own_folder.seconds_of(manifest["quarantined_at"])
        then, now = manifest.get("controller_time"), self.request.controller_time
        if then is not None and now is not None:
            # Two clocks: it has to be old by both.
            age = min(age, now - then)
        if age < 0:
            raise _Stop(
                "refused", f"it was quarantined at {manifest['quarantined_at']}, which is still to come: the clock of "
                "this server was, or is, wrong",
            )  # fmt: skip
        if age < self.request.retention:
            raise _Stop(
                "refused",
                f"it is in quarantine for {_days(age)}, and the retention is {_days(self.request.retention)}",
            )

    # --- closed ----------------------------------------------------------------------------------------

    def _close_intent(self, step: Step) -> None:
        assert step.volume is not None  # noqa: S101 - checked with the arguments
        folder = self._folder(step)
        name = intent_name(step.volume)
        found = [each for each in (name, _RESTORED + name) if folder.exists and look(folder.intents, each) is not None]
        if not found:
            self._tell(step, "unchanged", "there is no open intent")
            return
        if not self.request.check_mode:
            for each in found:
                os.unlink(each, dir_fd=folder.intents)
            sync(folder.intents)
        self._tell(step, "changed")
        self._differ(f"{step.item}: open intent", f"{step.item}: no intent")

    # --- what an earlier run left half done --------------------------------------------------------------

    def _recover(self) -> None:
        for _base, folder in sorted(self.folders.items()):
            if not folder.exists:
                continue
            for name in folder.entry_names():
                try:
                    action = self._recover_entry(folder, name)
                except (FolderError, NotBeneath, OSError, KeyError) as error:
                    folder.warnings.append(f"{folder.base_path}/{OWN}/trash/{name}: {_words(error)}")
                    continue
                if action:
                    self.outcome.recovered.append({"base": folder.base_path, "entry": name, "action": action})
                    self._journal.setdefault(folder.base_path, []).append(
                        {"entry": name, "result": "recovered", "action": action, "owner": self.owner.data()}
                    )
            self._write_journal(folder)

    def _recover_entry(self, folder: Folder, name: str) -> str:
        """Finish or undo what was begun with an entry; return what was done, "" for nothing."""
        entry = folder.open_entry(name)
        if entry is None:
            return ""
        with entry:
            data = entry.data()
            state = _read_or_torn(entry)
            if state is None:
                if data is not None:
                    raise FolderError("there is data without a manifest; look at it, nothing is done with it")
                self._drop(folder, entry)
                return "removed, it was empty"
            stage, manifest = state
            if stage == RESTORING and data is None:
                self._after_restore(folder, entry, manifest)
                return "its return was finished"
            if stage == RESTORING:
                if manifest["scope"] == "content" and not _fill(entry):
                    os.rmdir(DATA, dir_fd=entry.descriptor)
                    self._after_restore(folder, entry, manifest)
                    return "its return was finished"
                entry.set_state(RESTORING, MANIFEST)
                return "its return was undone, it is in quarantine"
            if stage == PURGING:
                if data is None:
                    self._drop(folder, entry)
                    return "its removal was finished"
                return ""
            return self._recover_quarantine(folder, entry, manifest, data)

    def _recover_quarantine(
        self, folder: Folder, entry: Entry, manifest: Mapping[str, Any], data: os.stat_result | None
    ) -> str:
        volume = manifest["volume"]
        name = intent_name(volume) if volume else ""
        intent = folder.read_intent(name) if volume else None
        is_open = intent is not None and intent["at"] == manifest.get("intent_at")
        if data is None or (manifest["scope"] == "content" and not _fill(entry)):
            if volume and not is_open:
                raise FolderError("there is no data beside the manifest; somebody else has taken it away")
            if data is not None:
                os.rmdir(DATA, dir_fd=entry.descriptor)
            self._drop(folder, entry)
            return "it had not been moved yet"
        if manifest["scope"] == "content":
            return ""  # the step that is planned again goes on with it
        if data.st_ino != manifest["inode"]:
            return self._recover_stranger(folder, entry, manifest)
        if is_open:
            os.unlink(name, dir_fd=folder.intents)
            sync(folder.intents)
            return "its intent was closed, it is in quarantine"
        return ""

    def _recover_stranger(self, folder: Folder, entry: Entry, manifest: Mapping[str, Any]) -> str:
        """What was moved is not what was planned, and the run was killed before it could put it back."""
        if set(_own_folder._names(entry.descriptor)) != {MANIFEST, DATA}:
            raise FolderError("what lies in it is not what its manifest says; look at it, nothing is done with it")
        share = [] if manifest["share"] == "." else manifest["share"].split("/")
        parts = [*share, *manifest["below"].split("/")]
        parent = open_below(folder.base, parts[:-1])
        try:
            rename_to_free_name(entry.descriptor, DATA, parent, parts[-1])
            sync(parent)
        finally:
            os.close(parent)
        self._drop(folder, entry)
        return "what had been moved was not what was planned, it is back in its place"

    @staticmethod
    def _drop(folder: Folder, entry: Entry) -> None:
        folder.remove_entry(entry)
        sync(folder.trash)


def _return_content(entry: Entry, target: int) -> list[str]:
    """Move the content back; return what has to stay, and why."""
    problems = []
    data = open_below(entry.descriptor, [DATA])
    try:
        for name in sorted(_own_folder._names(data)):
            try:
                rename_to_free_name(data, name, target, name)
            except FileExistsError:
                problems.append(f"{name!r} is there already")
            except OSError as error:
                problems.append(_words(error))
        sync(data)
    finally:
        os.close(data)
    if not problems:
        os.rmdir(DATA, dir_fd=entry.descriptor)
    return problems


def _read_or_torn(entry: Entry) -> tuple[str, dict[str, Any]] | None:
    """A manifest that was being written when the run ended counts as none, as long as there is no data."""
    try:
        return entry.read()
    except FolderError:
        if entry.data() is not None and _fill(entry):
            raise
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(DATA, dir_fd=entry.descriptor)
        return None


def _fill(entry: Entry) -> bool:
    """Whether there is anything in the data of an entry."""
    descriptor = os.open(DATA, OPEN_DIRECTORY, dir_fd=entry.descriptor)
    try:
        with os.scandir(descriptor) as entries:
            return next(entries, None) is not None
    finally:
        os.close(descriptor)


def _first_below(paths: Sequence[str], directory: str) -> str | None:
    """Return the first of sorted paths that lies strictly below a directory."""
    above = directory.rstrip("/") + "/"
    place = bisect.bisect_left(paths, above)
    if place < len(paths) and paths[place].startswith(above):
        return paths[place]
    return None


def _batches(steps: Iterable[Step], size: int) -> Iterator[list[Step]]:
    batch: list[Step] = []
    for step in steps:
        batch.append(step)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _not_planned(step: Step, found: os.stat_result) -> str:
    device, inode = step.precondition or (0, 0)
    return (
        f"{step.directory or step.entry} is not what was planned: device {found.st_dev}, inode {found.st_ino} found, "
        f"device {device}, inode {inode} expected"
    )


def _across(error: OSError) -> Exception:
    """Say what EXDEV means between two directories of one file system."""
    if error.errno != errno.EXDEV:
        return error
    return _Stop(
        "failed",
        "it cannot be renamed there (EXDEV): a bind mount lies between, or the directory that it goes into inherits "
        "another project of a project quota (xfs_io -c 'chattr -P')",
    )


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)
