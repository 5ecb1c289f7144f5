# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done so that a host's NFS mounts are as wanted. Pure: the live table and fstab come in, steps go out.

The live table decides, not fstab. Of what is mounted at a path only NFS is ever unmounted: anything else there
was put there by somebody for something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _fstab,
    _fstab_of_items,
    _live_options,
    _mount_options,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_input import Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import (
    Mount,
    MountTable,
    export_path,
    is_within,
    split_source,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._nfsmount_conf import MountDefaults

SameServer = Callable[[str, Mount], bool]


@dataclass(frozen=True)
class Situation:
    """What is known of the host."""

    table: MountTable
    fstab: Sequence[_fstab.Line]
    defaults: MountDefaults
    same_server: SameServer  # whether a host name of an item means the server of a live mount
    stale: Set[int] = frozenset()  # mount ids whose server knows their directory no longer
    allow_abort_shared_io: bool = False


@dataclass
class Planned:
    """What has to be done for one item."""

    wanted: Wanted
    path: str  # without symlinks
    live: Mount | None = None  # what is visible there now, if it is NFS
    differing: Mount | None = None  # the mount of the wanted export, where its options are the reason to mount anew
    stale: Mount | None = None  # the mount of the wanted export, where its dead directory is the reason
    unmount: list[Mount] = field(default_factory=list)  # from the top
    disarm: Mount | None = None  # the automount trigger that has to be stopped, after that
    mount: bool = False
    remount: list[str] = field(default_factory=list)  # the arguments after `mount`
    arm: bool = False  # start the automount trigger, once systemd knows the new fstab
    differences: list[_live_options.Difference] = field(default_factory=list)
    problem: str | None = None  # why nothing can be done
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changes_live(self) -> bool:
        """Something has to be done before fstab is written."""
        return bool(self.unmount or self.disarm or self.mount or self.remount)

    @property
    def replaces(self) -> bool:
        """What is unmounted makes room for the wanted export, now or at the first access."""
        return self.mount or self.arm

    def words(self) -> list[str]:
        """Return the live steps for a person."""
        steps = [f"{self.unmount_word} {mount.source}" for mount in self.unmount]
        if self.disarm:
            steps.append("stop the automount trigger")
        if self.mount:
            steps.append(f"mount {self.wanted.source}")
        if self.remount:
            changed = ", ".join(difference.wanted for difference in self.differences if difference.remountable)
            steps.append(f"remount with {changed}")
        if self.arm:
            steps.append("start the automount trigger")
        return steps

    @property
    def unmount_word(self) -> str:
        return {"normal": "unmount", "lazy": "lazily unmount", "abort": "abort and unmount"}[self.wanted.unmount]

    def give_up(self, problem: str) -> None:
        """Nothing is done for this item."""
        self.problem = problem
        self.unmount.clear()
        self.remount.clear()
        self.disarm = self.differing = self.stale = None
        self.mount = self.arm = False


def plan(items: Sequence[Wanted], situation: Situation) -> list[Planned]:
    """Return what has to be done for each item."""
    planned = [_plan_item(item, situation) for item in items]
    _move_into_new_mounts(planned, situation.table)
    _leave_what_others_decide(planned, situation.table)
    if not situation.allow_abort_shared_io:
        _refuse_to_abort_others(planned, situation.table)
    return planned


def _plan_item(item: Wanted, situation: Situation) -> Planned:
    table = situation.table
    try:
        path = table.resolve(item.path)
    except OSError as error:
        return Planned(item, item.path, problem=str(error))
    planned = Planned(item, path, notes=_mount_options.notes(item.options))
    top = table.find(path).top
    planned.live = top if top is not None and top.is_nfs else None
    planned.problem = _fstab_of_items.conflict(item, situation.fstab)
    if planned.problem is not None or item.state == "present":
        return planned
    if item.state == "mounted":
        _plan_mounted(planned, situation)
    elif item.mount_id is not None or item.major_minor is not None:
        _plan_one_unmounted(planned, table)
    else:
        _plan_unmounted(planned, situation)
    return planned


def _plan_mounted(planned: Planned, situation: Situation) -> None:
    item, table = planned.wanted, situation.table
    effective = effective_options(item, situation.defaults)
    planned.warnings += _overruled(item, effective)
    stack = list(table.find(planned.path).stack)
    while stack and stack[-1].is_nfs and not is_source(stack[-1], item.source, situation.same_server):
        planned.unmount.append(stack.pop())
    top = stack[-1] if stack else None
    if top is not None and not top.is_nfs and top.fstype != "autofs":
        covered = " and hides what is below" if len(stack) > 1 else ""
        planned.give_up(
            f"{top.source} ({top.fstype}) is mounted at {planned.path}{covered}; "
            "only NFS is unmounted here, so unmount it yourself or choose another path"
        )
        return
    trigger = next((mount for mount in reversed(stack) if mount.fstype == "autofs"), None)
    ours = trigger is not None and _fstab_of_items.keeps_trigger(trigger, item, situation.fstab)
    if trigger is not None and not ours and (item.automount or top is trigger):
        planned.give_up(f"{trigger.source} (autofs) manages {planned.path}: an automounter mounts there")
        return
    if top is not None and top.is_nfs:
        _compare(planned, top, effective, situation)
    wrong_trigger = ours and (not item.automount or not _same_idle_timeout(item, trigger))
    if wrong_trigger or (item.automount and trigger is None):
        # The mount over a trigger goes first: stopping the trigger would take it away, busy or not.
        above = stack[stack.index(trigger) + 1 :] if trigger is not None else stack
        planned.unmount += [mount for mount in reversed(above) if mount.is_nfs and mount not in planned.unmount]
        planned.differing = None
        planned.remount.clear()
        _do_anew(planned, trigger if ours else None)
    elif planned.unmount or top is None:
        if top is None or not top.is_nfs or top in planned.unmount:
            _do_anew(planned, trigger if ours else None)
    elif top is trigger:
        planned.notes.append("an automount trigger is armed here; the mount comes with the first access")


def _do_anew(planned: Planned, trigger: Mount | None) -> None:
    """Mount, or let systemd mount at the first access. Its trigger is started anew, so that it uses the new fstab."""
    planned.disarm = trigger
    planned.arm = planned.wanted.automount
    planned.mount = not planned.wanted.automount


def _compare(planned: Planned, top: Mount, effective: Sequence[str], situation: Situation) -> None:
    """See whether the mount of the wanted export is as wanted."""
    if split_source(top.source) != split_source(planned.wanted.source):
        planned.notes.append(f"mounted as {top.source}: the same server and path under another name")
    planned.differences = _live_options.differences(effective, top.options, top.super_options)
    if top.mount_id in situation.stale:
        planned.unmount.append(top)
        planned.stale = top
    elif planned.differences and all(difference.remountable for difference in planned.differences):
        planned.remount = _remount_arguments(planned, top, effective)
    elif planned.differences:
        planned.unmount.append(top)
        planned.differing = top


def _same_idle_timeout(item: Wanted, trigger: Mount | None) -> bool:
    wanted = item.idle_timeout
    live = [option for option in trigger.super_options if option.startswith("timeout=")] if trigger else []
    return wanted is None or not live or live[0] == f"timeout={wanted}"


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
    flags = ",".join(_live_options.per_mount_flags(effective))
    if "ro" in top.super_options and not flags.startswith("ro"):
        # The superblock is read-only: the mount alone cannot become writable. Other mounts of it stay read-only.
        return ["-t", "nfs", "-o", f"remount,{flags}", top.source, planned.path]
    # "bind" keeps to this mount: a plain remount would also change others that share the superblock.
    # The source is named so that mount(8) adds nothing from fstab.
    return ["-o", f"remount,bind,{flags}", top.source, planned.path]


def _plan_unmounted(planned: Planned, situation: Situation) -> None:
    item = planned.wanted
    stack = list(situation.table.find(planned.path).stack)
    nfs_below = any(mount.is_nfs for mount in stack)
    if nfs_below and not stack[-1].is_nfs and stack[-1].fstype != "autofs":
        planned.give_up(
            f"{stack[-1].source} ({stack[-1].fstype}) is mounted over the NFS mount at {planned.path}; "
            "only NFS is unmounted here, so unmount it yourself first"
        )
        return
    while stack and (stack[-1].is_nfs or _fstab_of_items.keeps_trigger(stack[-1], item, situation.fstab)):
        mount = stack.pop()
        if mount.is_nfs:
            planned.unmount.append(mount)
        else:
            planned.disarm = mount


def _plan_one_unmounted(planned: Planned, table: MountTable) -> None:
    """Plan to unmount the mount that somebody has looked at, and none that took its place since."""
    item = planned.wanted
    there = [
        mount
        for mount in table.mounts
        if item.mount_id in (None, mount.mount_id)
        and item.major_minor in (None, mount.device)
        and mount.path == planned.path
    ]
    top = table.find(planned.path).top
    if top is not None and top in there and top.is_nfs:
        planned.unmount.append(top)
    elif there:
        found = f"{top.source} ({top.fstype})" if top is not None else "another mount"
        planned.give_up(f"the mount that shall go is covered by {found}, or is not NFS")
    elif top is not None and top.is_nfs and item.mount_id is None:
        planned.give_up(f"{top.source} is mounted with {top.device}, not {item.major_minor}: it is another mount")
    else:
        planned.notes.append("the mount that shall go is there no longer")


def is_source(mount: Mount, source: str, same_server: SameServer) -> bool:
    """Tell whether a live mount shows the wanted export, under whatever name of its server."""
    live, wanted = split_source(mount.source), split_source(source)
    if live is None or wanted is None or export_path(live[1]) != export_path(wanted[1]):
        return False
    return live[0].lower() == wanted[0].lower() or same_server(wanted[0], mount)


def _move_into_new_mounts(planned: Sequence[Planned], table: MountTable) -> None:
    """See to what lies below a path that gets a mount: it would be hidden, still mounted and out of reach."""
    for outer in [each for each in planned if each.replaces]:
        inner = {each.path: each for each in planned if each.problem is None and each.wanted.state != "present"}
        hidden = hidden_by(table, outer.path)
        stacks = {mount.path: table.find(mount.path).stack for mount in hidden}
        stay = [
            mount for mount in hidden if mount.path not in inner or not all(each.is_nfs for each in stacks[mount.path])
        ]
        if stay:
            outer.give_up(would_hide(stay))
            continue
        for path, stack in stacks.items():
            item = inner[path]
            if item.wanted.state == "mounted" and not item.replaces:
                item.unmount = list(reversed(stack))
                item.remount.clear()
                _do_anew(item, None)


def _refuse_to_abort_others(planned: Sequence[Planned], table: MountTable) -> None:
    """`umount -f` ends the requests of a whole superblock: whoever uses another mount of it gets errors, too."""
    aborted = {mount.mount_id for each in planned if each.wanted.unmount == "abort" for mount in each.unmount}
    for each in planned:
        if each.wanted.unmount != "abort" or not each.unmount:
            continue
        others = {
            other.path
            for mount in each.unmount
            for other in table.sharing_superblock(mount)
            if other.mount_id not in aborted
        }
        if others:
            each.give_up(
                f"not aborted: {', '.join(sorted(others))} share its superblock, and whoever writes there would get "
                "errors, too; allow_abort_shared_io: true does it all the same"
            )


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
    names = sorted(f"{each.path} ({each.source}, {each.fstype})" for each in mounts)
    return f"a mount here would hide {', '.join(names)}"


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
            each.mount = each.arm = False
            each.differing = each.disarm = None
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


def shared_notes(differences: Iterable[_live_options.Difference]) -> list[str]:
    """Say why these differences stay."""
    notes = []
    for difference in differences:
        if difference.shared_by_superblock:
            notes.append(f"{difference}: another mount of the same superblock decided it; nosharecache separates them")
        elif difference.shared_by_server:
            notes.append(f"{difference}: the first mount from that server decided it")
    return notes


def waves(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Group the items so that each comes in a later group than the items whose paths hold its own."""
    groups: dict[int, list[Planned]] = {}
    for each in planned:
        depth = sum(other is not each and is_within(each.path, other.path) for other in planned)
        groups.setdefault(depth, []).append(each)
    return [groups[depth] for depth in sorted(groups)]
