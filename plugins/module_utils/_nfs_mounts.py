# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that a host's NFS mounts are as wanted. Pure: the live table and fstab come in, steps go out.

The live table decides, not fstab. Of what is mounted at a path only NFS is ever unmounted: anything else there
was put there by somebody for something.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab, _mount_options
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import (
    Mount,
    MountTable,
    export_path,
    is_within,
    split_source,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._nfsmount_conf import MountDefaults

STATES = ("mounted", "present", "unmounted", "absent")
SameServer = Callable[[str, Mount], bool]


@dataclass(frozen=True)
class Wanted:
    """One item of the input."""

    path: str
    state: str = "mounted"
    source: str = ""
    options: tuple[str, ...] = ()
    boot: bool = True
    owner: str | None = None
    group: str | None = None
    mode: int = 0o755

    @property
    def in_fstab(self) -> bool | None:
        """Whether fstab shall have a line of it; None: fstab is left alone."""
        if self.state == "unmounted":
            return None
        return self.boot and self.state != "absent"

    @property
    def entry(self) -> _fstab.Entry:
        return _fstab.Entry(self.source, self.path, "nfs", _fstab.normal_options(self.options))


@dataclass
class Planned:
    """What has to be done for one item."""

    wanted: Wanted
    path: str  # without symlinks
    live: Mount | None = None  # what is visible there now, if it is NFS
    differing: Mount | None = None  # the mount of the wanted export, where its options are the reason to mount anew
    unmount: list[Mount] = field(default_factory=list)  # from the top
    mount: bool = False
    remount: list[str] = field(default_factory=list)  # the arguments after `mount`
    differences: list[_mount_options.Difference] = field(default_factory=list)
    problem: str | None = None  # why nothing can be done
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changes_live(self) -> bool:
        return bool(self.unmount or self.mount or self.remount)

    def words(self) -> list[str]:
        """Return the live steps for a person."""
        steps = [f"unmount {mount.source}" for mount in self.unmount]
        if self.mount:
            steps.append(f"mount {self.wanted.source}")
        if self.remount:
            changed = ", ".join(difference.wanted for difference in self.differences if difference.remountable)
            steps.append(f"remount with {changed}")
        return steps


def read_input(mounts: Sequence[Mapping[str, Any]]) -> tuple[list[Wanted], list[str]]:
    """Return the items of the input and everything that is wrong with them, each problem with its place."""
    wanted: list[Wanted] = []
    problems: list[str] = []
    first_at: dict[str, int] = {}
    for index, raw in enumerate(mounts):
        item, found = _read_item(raw)
        if item.path in first_at:
            found.append(f'path: "{item.path}" is also the path of mounts[{first_at[item.path]}]')
        elif item.path:
            first_at[item.path] = index
        problems += [f"mounts[{index}].{problem}" for problem in found]
        wanted.append(item)
    return wanted, problems


def _read_item(raw: Mapping[str, Any]) -> tuple[Wanted, list[str]]:
    path, source = raw.get("path") or "", raw.get("src") or ""
    state, boot = raw.get("state") or "mounted", raw.get("boot") is not False
    options = _mount_options.parse(raw.get("options"))
    problems = _path_problems(path)
    if state in ("mounted", "present") or source:
        problems += _source_problems(source)
    problems += [f"options: {problem}" for problem in _mount_options.problems(options)]
    if state == "present" and not boot:
        problems.append('boot: false leaves nothing to do for state "present", which is a line in fstab only')
    mode = raw.get("mode")
    if mode is not None and not (isinstance(mode, str) and re.fullmatch("0?[0-7]{3,4}", mode)):
        problems.append(f'mode: {mode!r} is no mode; write it octal and quoted, such as "0755"')
        mode = None
    item = Wanted(
        # Only what is surely a path is normalised; the rest has been complained about.
        path=posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else path,
        state=state,
        source=source,
        options=tuple(options),
        boot=boot,
        owner=raw.get("owner"),
        group=raw.get("group"),
        mode=int(mode, 8) if mode is not None else 0o755,
    )
    return item, problems


def _path_problems(path: str) -> list[str]:
    if not path.startswith("/"):
        return [f'path: "{path}" is not an absolute path']
    if "\0" in path:
        return ["path: has a NUL character in it"]
    if ".." in path.split("/"):
        return [f'path: "{path}" must not contain ".."']
    if posixpath.normpath(path) in ("/", "//"):
        return ["path: the root directory cannot be a mount point of NFS"]
    return []


def _source_problems(source: str) -> list[str]:
    if not source:
        return ["src: is needed (server:/exported/path)"]
    if ":" not in source:
        return [f'src: "{source}" has no colon; write server:/exported/path']
    parts = split_source(source)
    if parts is None or parts[0].startswith("-") or any(c.isspace() for c in parts[0]):
        hint = "; an IPv6 address needs brackets" if source.count(":") > 1 and not source.startswith("[") else ""
        return [f'src: "{source}" is not server:/exported/path{hint}']
    if "\0" in source:
        return ["src: has a NUL character in it"]
    if ".." in parts[1].split("/"):
        return [f'src: "{source}" must not contain ".."']
    return []


def plan(
    items: Sequence[Wanted],
    table: MountTable,
    fstab: Sequence[_fstab.Line],
    defaults: MountDefaults,
    same_server: SameServer,
) -> list[Planned]:
    """Return what has to be done for each item.

    `same_server` tells whether a host name of an item means the server of a live mount.
    """
    planned = [_plan_item(item, table, fstab, defaults, same_server) for item in items]
    _move_into_new_mounts(planned, table)
    _leave_what_others_decide(planned, table)
    return planned


def _plan_item(
    item: Wanted,
    table: MountTable,
    fstab: Sequence[_fstab.Line],
    defaults: MountDefaults,
    same_server: SameServer,
) -> Planned:
    try:
        path = table.resolve(item.path)
    except OSError as error:
        return Planned(item, item.path, problem=str(error))
    planned = Planned(item, path, notes=_mount_options.notes(item.options))
    top = table.find(path).top
    planned.live = top if top is not None and top.is_nfs else None
    planned.problem = _fstab_conflict(item, fstab)
    if planned.problem is not None or item.state == "present":
        return planned
    if item.state == "mounted":
        _plan_mounted(planned, table, defaults, same_server)
    else:
        _plan_unmounted(planned, table)
    return planned


def _fstab_conflict(item: Wanted, fstab: Sequence[_fstab.Line]) -> str | None:
    if not item.in_fstab:
        return None
    for entry in _fstab.entries_at(fstab, item.path):
        if not entry.is_nfs:
            return (
                f"{_fstab.FSTAB} mounts {entry.source} ({entry.fstype}) at {item.path}: "
                "remove that line or choose another path"
            )
    return None


def _plan_mounted(planned: Planned, table: MountTable, defaults: MountDefaults, same_server: SameServer) -> None:
    item = planned.wanted
    effective = effective_options(item, defaults)
    planned.warnings += _overruled(item, effective)
    stack = list(table.find(planned.path).stack)
    while stack and stack[-1].is_nfs and not is_source(stack[-1], item.source, same_server):
        planned.unmount.append(stack.pop())
    if not stack:
        planned.mount = True
        return
    top = stack[-1]
    if top.fstype == "autofs":
        if not any(option.startswith("x-systemd.automount") for option in item.options):
            planned.problem = f"{top.source} (autofs) manages {planned.path}: an automounter mounts there"
        elif planned.unmount:
            planned.mount = True
        else:
            planned.notes.append("an automount trigger is armed here; the mount comes with the first access")
        return
    if not top.is_nfs:
        covered = " and hides what is below" if len(stack) > 1 else ""
        planned.problem = (
            f"{top.source} ({top.fstype}) is mounted at {planned.path}{covered}; "
            "only NFS is unmounted here, so unmount it yourself or choose another path"
        )
        planned.unmount.clear()
        return
    if split_source(top.source) != split_source(item.source):
        planned.notes.append(f"mounted as {top.source}: the same server and path under another name")
    planned.differences = _mount_options.differences(effective, top.options, top.super_options)
    if not planned.differences:
        return
    if all(difference.remountable for difference in planned.differences):
        planned.remount = _remount_arguments(planned, top, effective)
    else:
        planned.unmount.append(top)
        planned.mount = True
        planned.differing = top


def effective_options(item: Wanted, defaults: MountDefaults) -> list[str]:
    """Return the options of an item with those that nfsmount.conf adds."""
    return [*item.options, *defaults.added_to(item.options, item.source, item.path)]


def _overruled(item: Wanted, effective: Sequence[str]) -> list[str]:
    given = _mount_options.what_they_mean(item.options)
    in_force = _mount_options.what_they_mean(effective)
    return [
        f'"{given[decides]}" is asked for, but nfsmount.conf makes it "{in_force[decides]}": '
        "mount.nfs appends its settings, and the last one wins"
        for decides in given
        if in_force[decides] != given[decides] and decides != "softreval"
    ]


def _remount_arguments(planned: Planned, top: Mount, effective: Sequence[str]) -> list[str]:
    flags = ",".join(_mount_options.per_mount_flags(effective))
    if "ro" in top.super_options and not flags.startswith("ro"):
        # The superblock is read-only: the mount alone cannot become writable. Other mounts of it stay read-only.
        return ["-t", "nfs", "-o", f"remount,{flags}", top.source, planned.path]
    # "bind" keeps to this mount: a plain remount would also change others that share the superblock.
    # The source is named so that mount(8) adds nothing from fstab.
    return ["-o", f"remount,bind,{flags}", top.source, planned.path]


def _plan_unmounted(planned: Planned, table: MountTable) -> None:
    stack = list(table.find(planned.path).stack)
    nfs_below = any(mount.is_nfs for mount in stack)
    if nfs_below and not stack[-1].is_nfs and stack[-1].fstype != "autofs":
        planned.problem = (
            f"{stack[-1].source} ({stack[-1].fstype}) is mounted over the NFS mount at {planned.path}; "
            "only NFS is unmounted here, so unmount it yourself first"
        )
        return
    while stack and stack[-1].is_nfs:
        planned.unmount.append(stack.pop())


def is_source(mount: Mount, source: str, same_server: SameServer) -> bool:
    """Tell whether a live mount shows the wanted export, under whatever name of its server."""
    live, wanted = split_source(mount.source), split_source(source)
    if live is None or wanted is None or export_path(live[1]) != export_path(wanted[1]):
        return False
    return live[0].lower() == wanted[0].lower() or same_server(wanted[0], mount)


def _move_into_new_mounts(planned: Sequence[Planned], table: MountTable) -> None:
    """See to what lies below a path that gets a mount: it would be hidden, still mounted and out of reach."""
    for outer in [each for each in planned if each.mount]:
        inner = {each.path: each for each in planned if each.problem is None and each.wanted.state != "present"}
        for mount in hidden_by(table, outer.path):
            item = inner.get(mount.path)
            if item is None or not mount.is_nfs:
                outer.problem = would_hide([mount])
                outer.unmount.clear()
                outer.mount = False
                outer.differing = None
                break
            if item.wanted.state == "mounted" and not item.mount:
                item.unmount = [each for each in reversed(table.find(mount.path).stack) if each.is_nfs]
                item.mount = True
                item.remount.clear()


def hidden_by(table: MountTable, path: str) -> list[Mount]:
    """Return the mounts that a new mount at `path` would hide."""
    here = table.find(path).stack
    return [
        mount
        for mount in table.mounts
        if mount.path != path
        and is_within(mount.path, path)
        # What sits on a mount at the path itself goes before that one can go.
        and not any(table.sits_on(mount, each) for each in here)
        and table.find(mount.path).top == mount
    ]


def would_hide(mounts: Sequence[Mount]) -> str:
    return "a mount here would hide " + ", ".join(f"{each.path} ({each.source}, {each.fstype})" for each in mounts)


def _leave_what_others_decide(planned: Sequence[Planned], table: MountTable) -> None:
    """Do not unmount for options that another mount, which stays, would impose again at once."""
    while True:
        going = {mount.mount_id for each in planned for mount in each.unmount}
        vain = [each for each in planned if each.differing is not None and _in_vain(each, each.differing, table, going)]
        if not vain:
            return
        for each in vain:
            # It is the lowest one; what lies over it is another export and goes all the same.
            each.unmount.pop()
            each.mount = False
            each.differing = None
            each.notes += shared_notes(each.differences)


def _in_vain(planned: Planned, mount: Mount, table: MountTable, going: set[int]) -> bool:
    for difference in planned.differences:
        if difference.shared_by_superblock:
            others = table.sharing_superblock(mount)
        elif difference.shared_by_server:
            others = table.sharing_server(mount)
        else:
            return False
        if not any(other.mount_id not in going for other in others):
            return False
    return True


def shared_notes(differences: Iterable[_mount_options.Difference]) -> list[str]:
    """Say why these differences stay."""
    notes = []
    for difference in differences:
        if difference.shared_by_superblock:
            notes.append(f"{difference}: another mount of the same superblock decided it; nosharecache separates them")
        elif difference.shared_by_server:
            notes.append(f"{difference}: the first mount from that server decided it")
    return notes


def new_fstab(lines: Sequence[_fstab.Line], items: Iterable[Wanted]) -> list[_fstab.Line]:
    """Return fstab as the items want it."""
    result = list(lines)
    for item in items:
        if item.in_fstab is True:
            result = _fstab.with_entry(result, item.entry)
        elif item.in_fstab is False:
            result = _fstab.without_entry(result, item.path)
    return result


def fstab_words(lines: Sequence[_fstab.Line], item: Wanted) -> list[str]:
    """Return what changes in fstab for an item, for a person."""
    before = _fstab.render(lines)
    if _fstab.render(new_fstab(lines, [item])) == before:
        return []
    if not item.in_fstab:
        return [f"remove its line from {_fstab.FSTAB}"]
    there = any(entry.is_nfs for entry in _fstab.entries_at(lines, item.path))
    return [f"{'change' if there else 'add'} its line in {_fstab.FSTAB}"]


def waves(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Group the items so that each comes in a later group than the items whose paths hold its own."""
    groups: dict[int, list[Planned]] = {}
    for each in planned:
        depth = sum(other is not each and is_within(each.path, other.path) for other in planned)
        groups.setdefault(depth, []).append(each)
    return [groups[depth] for depth in sorted(groups)]
