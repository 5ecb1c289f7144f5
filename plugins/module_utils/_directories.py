# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of directories with owner, group, mode and SELinux type: their own, never those of what they hold.

Exported directories are writable for strangers. Everything is therefore done through open descriptors, one
component after the other without following links, so that nobody can put a link in the way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _export_mounts, _files, _fstab, _mounts, _users
from ansible_collections.clusterkit.storage.plugins.module_utils._export_mounts import Mounts

PARENT_MODE = 0o755
DEFAULT_MODE = "0755"
_MODE = re.compile(r"0?[0-7]{3,4}")
_SETYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
# user:role:type[:range], see selinux(8); the kernel ends it with a NUL.
_CONTEXT = "security.selinux"
SELINUX = Path("/sys/fs/selinux/enforce")
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Attributes:
    uid: int
    gid: int
    mode: int
    setype: str = ""  # empty: SELinux is off, or nothing was asked of it

    def words(self) -> dict[str, Any]:
        words = {
            "owner": _users.user_name(self.uid),
            "group": _users.group_name(self.gid),
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
        }
        return {**words, "setype": self.setype} if self.setype else words

    def __str__(self) -> str:
        words = self.words()
        return " ".join([f"{words['owner']}:{words['group']}", words["mode"], *([self.setype] if self.setype else [])])


@dataclass(frozen=True)
class Directory:
    """One item of the list."""

    path: str
    wanted: Attributes | None  # None: the owner or the group is not known (yet)
    number: int

    @property
    def label(self) -> str:
        return f"directories[{self.number}]"


@dataclass(frozen=True)
class Step:
    """What has to be done with one directory; `found` is None when it has to be made."""

    path: str
    real_path: str  # without links in the components before the last
    wanted: Attributes | None
    found: Attributes | None
    number: int | None = None  # its place in the list; None: made because a listed directory needs it

    @property
    def changes(self) -> bool:
        return self.found is None or self.wanted != self.found


@dataclass
class Plan:
    steps: list[Step] = field(default_factory=list)  # parents before what they contain
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def make_plan(items: Sequence[Mapping[str, Any]], *, check_mode: bool = False, mounts: Mounts | None = None) -> Plan:
    """Compare the list with what is there. In check mode, unknown names may belong to users made meanwhile."""
    plan = Plan(problems=list_problems(items))
    directories = [_read(number, item, plan, check_mode=check_mode) for number, item in enumerate(items)]
    listed: dict[str, str] = {}
    planned: set[str] = set()
    for directory in sorted((entry for entry in directories if entry), key=lambda entry: entry.path.count("/")):
        try:
            real_path, missing = _look_for(directory.path)
            asked = directory.wanted is not None and bool(directory.wanted.setype)
            found = None if missing else _attributes(real_path, setype=asked)
        except ValueError as error:
            plan.problems.append(f"{directory.label}.path: {error}")
            continue
        disk = mounts.missing(real_path) if mounts is not None else None
        if disk not in (None, real_path):  # the mount point itself has to be made by somebody
            plan.problems.append(
                f"{directory.label}.path: {directory.path} lies on {disk}, which /etc/fstab has and which is not "
                "mounted; mount it first"
            )
            continue
        if real_path in listed:
            plan.problems.append(f"{directory.label}.path: {directory.path} is listed already ({listed[real_path]})")
            continue
        listed[real_path] = directory.label
        parents = [path for path in missing[:-1] if path not in planned]
        planned.update(missing)
        plan.steps += [Step(path, path, Attributes(0, 0, PARENT_MODE), None) for path in parents]
        plan.steps.append(Step(directory.path, real_path, directory.wanted, found, directory.number))
    plan.problems.sort(key=lambda problem: int(problem[len("directories[") : problem.index("]")]))
    return plan


def list_problems(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a list wherever it is used; what a host says to it comes on top."""
    problems = []
    for number, item in enumerate(items):
        label = f"directories[{number}]"
        problem = path_problem(item["path"])
        if problem is not None:
            problems.append(f"{label}.path: {problem}")
        mode = read_mode(item.get("mode", DEFAULT_MODE))
        if isinstance(mode, str):
            problems.append(f"{label}.mode: {mode}")
        setype = item.get("setype") or ""
        if setype and not _SETYPE.fullmatch(setype):
            problems.append(
                f'{label}.setype: "{setype}" is not the name of an SELinux type such as public_content_rw_t'
            )
        for key in ("owner", "group"):
            name = str(item.get(key, "root"))
            if name.isdigit() and int(name) > _users.MAX_ID:
                problems.append(f"{label}.{key}: {name} is not an id from 0 to {_users.MAX_ID}")
    return problems


def _read(number: int, item: Mapping[str, Any], plan: Plan, *, check_mode: bool) -> Directory | None:
    """Read one item, and note the names that this host does not know."""
    ids = []
    for key, look_up in (("owner", _users.user_id), ("group", _users.group_id)):
        name = str(item.get(key, "root"))
        found = look_up(name)
        if found is None and not name.isdigit():
            words = f'directories[{number}].{key}: "{name}" does not exist on this host'
            if check_mode:
                plan.warnings.append(f"{words} yet")
            else:
                plan.problems.append(words)
        ids.append(found)
    uid, gid = ids
    mode = read_mode(item.get("mode", DEFAULT_MODE))
    if path_problem(item["path"]) is not None:
        return None
    if uid is None or gid is None or not isinstance(mode, int):
        return Directory(item["path"], None, number)
    setype = (item.get("setype") or "") if SELINUX.exists() else ""
    return Directory(item["path"], Attributes(uid, gid, mode, setype), number)


def path_problem(path: str) -> str | None:
    if not path.startswith("/"):
        return f'"{path}" is not an absolute path'
    if "\0" in path:
        return f"{path!r} contains a NUL character"
    if ".." in path.split("/"):
        return f'"{path}" contains ".."'
    if not path.strip("/"):
        return f'"{path}" is the root directory, which is not changed here'
    plain = "/" + os.path.normpath(path).lstrip("/")
    return None if path.rstrip("/") == plain else f'"{path}" is not in its plain form; write "{plain}"'


def read_mode(value: object) -> int | str:
    """Return the bits of an octal string, or what is wrong with it."""
    if isinstance(value, str) and _MODE.fullmatch(value):
        return int(value, 8)
    if isinstance(value, int) and not isinstance(value, bool):
        # YAML reads 0777 as octal (511) and 777 as decimal: one cannot know which was meant.
        shown = f'"{value:04o}"' if 0 <= value <= 0o7777 else "an octal string"
        return (
            f'{value} is a number, and YAML may have converted it; write it in quotes, such as "0755" (this is {shown})'
        )
    return f'"{value}" is not an octal string such as "0755"'


def _look_for(path: str) -> tuple[str, list[str]]:
    """Return the path without links in its parents, and the directories that have to be made on the way to it.

    Raises ValueError with what stands in the way.
    """
    parts = path.strip("/").split("/")
    here = "/"
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        there = os.path.join(here, part)  # noqa: PTH118 - text is what the plan is made of
        try:
            found = Path(there).lstat()
        except FileNotFoundError:
            made = [os.path.join(here, *parts[position : end + 1]) for end in range(position, len(parts))]  # noqa: PTH118 - as above
            return made[-1], made
        except OSError as error:
            raise ValueError(f"{there}: {error.strerror}") from error
        if stat.S_ISLNK(found.st_mode):
            if last:
                raise ValueError(f"{path} is a symbolic link; name the directory that it leads to")
            _refuse_risky_link(there, here)
            there = os.path.realpath(there)
            if not Path(there).is_dir():
                raise ValueError(f"{path}: the link at {os.path.join(here, part)} leads nowhere")  # noqa: PTH118 - as above
        elif not stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{there} is not a directory")
        here = there
    return here, []


def _refuse_risky_link(link: str, folder: str) -> None:
    """Raise ValueError for a link that somebody else than root may have made: it could lead anywhere."""
    found = Path(folder).stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise ValueError(f"{link} is a symbolic link in a directory that others can write to")


def _attributes(path: str, *, setype: bool) -> Attributes:
    """Raises ValueError if the SELinux type is asked for and there is none."""
    found = Path(path).lstat()
    try:
        context = os.getxattr(path, _CONTEXT, follow_symlinks=False) if setype else b""
    except OSError as error:
        raise ValueError(f"{path} has no SELinux context: {error.strerror}") from error
    return Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), _type_of(context))


def _type_of(context: bytes) -> str:
    parts = context.decode(errors="replace").rstrip("\0").split(":")
    return parts[2] if len(parts) > 2 else ""


def apply(step: Step) -> None:
    """Do one step. Raises OSError."""
    if not step.changes or step.wanted is None:
        return
    folder, name = os.path.split(step.real_path)
    parent = _open_folder(folder)
    try:
        if step.found is None:
            # Closed until it has its owner; a directory that appeared meanwhile is taken as it is.
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        _set_attributes(descriptor, step.wanted)
    finally:
        os.close(descriptor)


def _open_folder(path: str) -> int:
    """Open a directory without following links."""
    descriptor = os.open("/", _OPEN)
    for part in path.strip("/").split("/"):
        if not part:
            continue
        try:
            below = os.open(part, _OPEN, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _set_attributes(descriptor: int, wanted: Attributes) -> None:
    found = os.fstat(descriptor)
    mode = stat.S_IMODE(found.st_mode)
    if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
        # Between the calls nobody gets more than both modes allow.
        if mode & ~wanted.mode:
            os.fchmod(descriptor, mode & wanted.mode)
        os.fchown(descriptor, wanted.uid, wanted.gid)
    # After chown, which may clear setuid and setgid.
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != wanted.mode:
        os.fchmod(descriptor, wanted.mode)
    if wanted.setype:
        _set_type(descriptor, wanted.setype)


def _set_type(descriptor: int, wanted: str) -> None:
    """Give a directory another type, keeping the rest of its context."""
    context = os.getxattr(descriptor, _CONTEXT)
    if _type_of(context) == wanted:
        return
    user, role, _type, *level = context.decode().rstrip("\0").split(":", 3)
    try:
        os.setxattr(descriptor, _CONTEXT, ":".join([user, role, wanted, *level]).encode() + b"\0")
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise OSError(errno.EINVAL, f'the SELinux policy of this host has no type "{wanted}"') from error
        raise


# --- the result --------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    changed: bool = False
    directories: list[dict[str, Any]] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: dict[str, str] = field(default_factory=dict)
    refused: bool = False  # nothing was even tried

    @property
    def message(self) -> str:
        count = f"{len(self.problems)} problems" if len(self.problems) > 1 else "a problem"
        return f"{count}{', nothing was changed' if self.refused else ''}: " + "; ".join(self.problems)


def ensure_directories(items: Sequence[Mapping[str, Any]], *, check_mode: bool) -> Outcome:
    """Make the directories of a list, or say what is wrong with it and change nothing."""
    mounts = Mounts(_mounts.read(), _export_mounts.at_boot(_files.read_text(_fstab.FSTAB) or ""))
    plan = make_plan(items, check_mode=check_mode, mounts=mounts)
    outcome = Outcome(problems=plan.problems, warnings=plan.warnings)
    if plan.problems:
        outcome.refused = True
        return outcome
    before, after = [], []
    results: dict[int, dict[str, Any]] = {}
    for step in plan.steps:
        problem = None
        if not check_mode:
            try:
                apply(step)
            except OSError as error:
                problem = f"{step.path}: {error.strerror}"
                outcome.problems.append(problem)
        changed = step.changes and problem is None
        outcome.changed |= changed
        if changed:
            before.append(f"{step.path} {step.found or 'absent'}\n")
            after.append(f"{step.path} {step.wanted or 'owner or group not known yet'}\n")
            if step.number is None:
                outcome.parents.append(step.path)
        if step.number is not None:
            results[step.number] = _result(step, problem, changed=changed)
    outcome.directories = [results[number] for number in sorted(results)]
    outcome.diff = {"before": "".join(before), "after": "".join(after)}
    return outcome


def _result(step: Step, problem: str | None, *, changed: bool) -> dict[str, Any]:
    there = step.found if problem is not None else step.wanted
    result: dict[str, Any] = {"path": step.path, "changed": changed, "created": changed and step.found is None}
    if there is not None:
        result.update(there.words())
    if problem is not None:
        result["msg"] = problem
    return result
