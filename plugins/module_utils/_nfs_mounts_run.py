# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host's NFS mounts to what is wanted: reads the host, lets `_nfs_mounts` plan, does the steps.

Every command that may wait for a server is a child process with a deadline, and no path that may lie on a dead
server is touched by this process itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _fstab,
    _fstab_of_items,
    _live_options,
    _mount_commands,
    _nfs_mounts,
    _nfsmount_conf,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_input import Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts import Planned, Situation
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_points import (
    MountPoints,
    has_local_mount_point,
    may_touch,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_result import (
    Outcome,
    Result,
    diff,
    live_diff,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_servers import Servers
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_systemd import Systemd
from ansible_collections.clusterkit.storage.plugins.module_utils._nfsmount_conf import Default
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

PARALLEL = 8
# Mounts may be hidden below others: what an unmount uncovers is seen in the next round.
_ROUNDS = 4


class Runner:
    """One call of the module."""

    def __init__(
        self, machine: Machine, *, timeout: float, check_mode: bool, allow_abort_shared_io: bool = False
    ) -> None:
        self.machine = machine
        self.check_mode = check_mode
        self.allow_abort_shared_io = allow_abort_shared_io
        self._servers = Servers(machine, timeout)
        self._systemd = Systemd(machine, self._servers, timeout)
        self._points = MountPoints(machine, self._servers)

    def apply(self, items: Sequence[Wanted], mount_defaults: Sequence[Default] | None) -> Outcome:
        """Do what is to be done. Raises CallerGoneError; then nothing more is done."""
        machine = self.machine
        table = machine.read_table()
        fstab_before = machine.read_fstab()
        conf = machine.read_nfsmount_conf()
        new_conf = self._new_conf(conf, mount_defaults)
        merged = {path: text for path, text in {**conf, **new_conf}.items() if text is not None}
        situation = Situation(
            table=table,
            fstab=_fstab.parse(fstab_before),
            defaults=_nfsmount_conf.MountDefaults(_nfsmount_conf.in_order(merged)),
            same_server=self._servers.is_same,
            allow_abort_shared_io=self.allow_abort_shared_io,
        )
        situation, notes, warnings = self._servers.look_at_health(items, situation)
        results = [
            Result(each, failure=each.problem, live=each.live, notes=list(each.notes))
            for each in _nfs_mounts.plan(items, situation)
        ]
        for result in results:
            result.note(*notes.get(result.planned.live.mount_id if result.planned.live else 0, []))
        warnings = [f"{e.planned.wanted.path}: {words}" for e in results for words in e.planned.warnings] + warnings
        if not self.check_mode:
            for path, content in new_conf.items():
                machine.write_nfsmount_conf(path, content)
        if self.check_mode:
            self._predict(results, table)
        else:
            for _round in range(_ROUNDS):
                if not any(result.failure is None and result.planned.changes_live for result in results):
                    break
                self._change_live(results, situation)
                self._plan_again(results, situation)
        return self._finish(results, situation, fstab_before, conf, new_conf, warnings)

    def _finish(
        self,
        results: list[Result],
        situation: Situation,
        fstab_before: str,
        conf: dict[str, str],
        new_conf: dict[str, str | None],
        warnings: list[str],
    ) -> Outcome:
        """Write fstab for all that went well, arm triggers, take mount points away."""
        done = [result for result in results if result.failure is None]
        for result in done:
            result.actions += _fstab_of_items.words(situation.fstab, result.planned.wanted)
        wanted = [result.planned.wanted for result in done]
        fstab_after = _fstab.render(_fstab_of_items.new_fstab(situation.fstab, wanted))
        general: list[str] = []
        if not self.check_mode:
            self._write_fstab(fstab_before, fstab_after, results, general, warnings)
            self._points.remove(done)
        failures = [f"{each.planned.wanted.path}: {each.failure}" for each in results if each.failure is not None]
        return Outcome(
            results=results,
            changed=any(result.actions for result in results) or bool(new_conf),
            failures=failures + general,
            warnings=warnings,
            diff=[
                *(part for path, text in new_conf.items() for part in diff(path, conf.get(path, ""), text or "")),
                *diff(_fstab.FSTAB, fstab_before, fstab_after),
                *live_diff(results, situation.table, None if self.check_mode else self.machine.read_table()),
            ],
            mount_defaults_changed=bool(new_conf),
        )

    def _write_fstab(
        self,
        before: str,
        after: str,
        results: Sequence[Result],
        failures: list[str],
        warnings: list[str],
    ) -> None:
        arming = [result for result in results if result.failure is None and result.planned.arm]
        told = True
        if after != before:
            try:
                self.machine.write_fstab(after)
            except OSError as error:
                failures.append(f"{_fstab.FSTAB} cannot be written: {error}")
                told = False
        if told and (after != before or arming):
            told = self._systemd.reload(failures, warnings)
        if not told:
            for result in arming:
                result.failure = "its automount trigger is not started: systemd does not know the new fstab"
            return
        self._each(arming, self._arm)

    def _new_conf(self, conf: dict[str, str], defaults: Sequence[Default] | None) -> dict[str, str | None]:
        """Return the files of nfsmount.conf that have to change, with their new content (None: none)."""
        if defaults is None:
            return {}
        reads_folder = True
        if defaults or _nfsmount_conf.has_block(conf.get(_nfsmount_conf.CONF)):
            version = self.machine.nfs_utils_version()
            reads_folder = version is None or version >= _nfsmount_conf.READS_FOLDER
        return _nfsmount_conf.changes(conf, defaults, reads_folder=reads_folder)

    # Check mode ----------------------------------------------------------------------------------

    def _predict(self, results: Sequence[Result], table: MountTable) -> None:
        for result in results:
            if result.failure is not None:
                continue
            planned = result.planned
            unseen = planned.unmount or planned.disarm or not may_touch(table, planned.path)
            makes = planned.mount or planned.arm
            if makes and not unseen and not self.machine.is_directory(planned.path):
                result.actions.append("make the mount point")
            result.actions += planned.words()
            goes = planned.unmount or planned.disarm or self._points.is_empty(table, planned.path)
            if planned.wanted.remove_mount_point and goes and has_local_mount_point(table, planned.path):
                result.actions.append("remove the mount point")

    # Live mounts ---------------------------------------------------------------------------------

    def _plan_again(self, results: Sequence[Result], situation: Situation) -> None:
        """See what is left to do: an unmount may have uncovered another mount."""
        # The kernel gives the numbers of mounts that are gone to new ones.
        now = replace(situation, table=self.machine.read_table(), stale=frozenset())
        planned = _nfs_mounts.plan([result.planned.wanted for result in results], now)
        for result, again in zip(results, planned):
            if result.failure is None:
                result.planned = again
                result.failure = again.problem
                result.note(*again.notes)

    def _change_live(self, results: Sequence[Result], situation: Situation) -> None:
        todo = {id(result.planned): result for result in results if result.failure is None}
        groups = [
            [todo[id(planned)] for planned in group if id(planned) in todo]
            for group in _nfs_mounts.waves([result.planned for result in results])
        ]
        # Everything that goes, goes first: two mounts of one superblock must both be gone before either gets
        # other options.
        replaced = [each for group in groups for each in group if each.planned.unmount and each.planned.replaces]
        self._each(replaced, self._try_mount)
        for group in reversed(groups):
            going = [each for each in group if each.failure is None and (each.planned.unmount or each.planned.disarm)]
            self._each(going, self._unmount)
        for group in groups:
            table = self.machine.read_table()
            mounting = [each for each in group if each.failure is None and (each.planned.mount or each.planned.remount)]
            self._each(mounting, partial(self._mount, table))
        table = self.machine.read_table()
        for result in results:
            self._verify(result, table, situation)

    def _each(self, results: Sequence[Result], step: Callable[[Result], None]) -> None:
        if not results:
            return
        with ThreadPoolExecutor(max_workers=min(PARALLEL, len(results))) as pool:
            for result, error in zip(results, pool.map(lambda each: _caught(step, each), results)):
                if error is not None:
                    result.failure = f"{error.strerror}: {error.filename}" if error.filename else str(error)

    def _try_mount(self, result: Result) -> None:
        """Find out whether the new mount works before the old one goes.

        Without a mount, what uses the path would write to the local disk.
        """
        planned = result.planned
        item = planned.wanted
        command = _mount_commands.mount(item.source, planned.path, item.options)
        covered_by = len(planned.unmount) + (planned.disarm is not None)
        tried = _mount_commands.try_mount(command, planned.path, covered_by)
        finished = self._servers.command(result, tried, self._server_of(planned))
        if finished is not None and not finished.succeeded:
            result.failure = _mount_commands.failure(finished, item.source, item.options)
        if result.failure is not None:
            stale = ", with a stale file handle" if planned.stale is not None else ""
            result.failure += f"; {planned.unmount[0].source} stays mounted{stale}"

    def _unmount(self, result: Result) -> None:
        planned = result.planned
        for mount in planned.unmount:
            command = _mount_commands.unmount(planned.path, planned.wanted.unmount)
            finished = self._servers.command(result, command, mount.server_address, needs_server=False)
            if finished is None:
                return
            table = self.machine.read_table()
            if any(other.mount_id == mount.mount_id for other in table.mounts):
                result.failure = self._why_not_unmounted(planned, mount, table, finished)
                return
            result.actions.append(f"{planned.unmount_word} {mount.source}")
            if mount is planned.stale:
                result.note(f"{mount.source} was mounted with a stale file handle")
        if planned.disarm is not None:
            result.failure = self._systemd.stop_trigger(planned.path, planned.disarm)
            if result.failure is None:
                result.actions.append("stop the automount trigger")

    def _why_not_unmounted(self, planned: Planned, mount: Mount, table: MountTable, finished: Finished) -> str:
        wanted = f"wanted is {planned.wanted.source}" if planned.replaces else f"wanted is {planned.wanted.state}"
        if mount is planned.stale:
            wanted = "with a stale file handle"
        elif planned.differences:
            wanted = "; ".join(str(difference) for difference in planned.differences)
        found = f"{mount.source} is mounted ({wanted})"
        if "busy" not in finished.stderr:
            return f"{found} and cannot be unmounted: {finished.complaint()}"
        below = [other.path for other in table.below(mount)]
        holders = [f"mounted below it: {path}" for path in below] + self.machine.holders(planned.path)
        named = ", ".join(holders) if holders else "something that is no process seen here, such as another container"
        return f"{found} and cannot be unmounted, it is busy: held by {named}"

    def _mount(self, table: MountTable, result: Result) -> None:
        planned = result.planned
        item = planned.wanted
        if planned.remount:
            finished = self._servers.command(result, ["mount", *planned.remount], self._server_of(planned))
            if finished is not None and not finished.succeeded:
                result.failure = finished.complaint()
            elif finished is not None:
                result.actions += planned.words()
            return
        hidden = _nfs_mounts.hidden_by(table, planned.path)
        if hidden:
            result.failure = _nfs_mounts.would_hide(hidden)
            return
        if not self._points.ensure(result, table):
            return
        command = _mount_commands.mount(item.source, planned.path, item.options)
        finished = self._servers.command(result, command, self._server_of(planned))
        if finished is None:
            return
        if finished.succeeded:
            result.actions.append(f"mount {item.source}")
        else:
            result.failure = _mount_commands.failure(finished, item.source, item.options)

    def _arm(self, result: Result) -> None:
        path = result.planned.path
        table = self.machine.read_table()
        hidden = _nfs_mounts.hidden_by(table, path)
        if hidden:
            result.failure = _nfs_mounts.would_hide(hidden)
        elif self._points.ensure(result, table):
            result.failure = self._systemd.start_trigger(path)
            if result.failure is None:
                result.actions.append("start the automount trigger")

    def _verify(self, result: Result, table: MountTable, situation: Situation) -> None:
        """Believe the kernel, not the exit status of mount and umount."""
        planned = result.planned
        top = table.find(planned.path).top
        result.live = top if top is not None and top.is_nfs else None
        if result.failure is not None or not (planned.mount or planned.remount):
            return
        source = planned.wanted.source
        if result.live is None or not _nfs_mounts.is_source(result.live, source, self._servers.is_same):
            found = result.live.source if result.live is not None else "nothing"
            result.failure = f"mount reported success, but {found} is mounted"
            return
        effective = _nfs_mounts.effective_options(planned.wanted, situation.defaults)
        left = _live_options.differences(effective, result.live.options, result.live.super_options)
        shared = [each for each in left if _is_shared(each, result.live, table)]
        result.note(*_nfs_mounts.shared_notes(shared))
        refused = [str(each) for each in left if each not in shared]
        if refused:
            result.failure = f"is mounted, but not as wanted: {', '.join(refused)}"
            if any(each.shared_by_superblock or each.shared_by_server for each in left):
                result.failure += " (a mount that cannot be seen from here, such as a container's, may decide it)"

    def _server_of(self, planned: Planned) -> str:
        parts = split_source(planned.wanted.source)
        host = parts[0] if parts else ""
        live = planned.live
        if (
            live is not None
            and live.server_address
            and _nfs_mounts.is_source(live, planned.wanted.source, self._servers.is_same)
        ):
            return live.server_address
        return host


def _is_shared(difference: _live_options.Difference, live: Mount, table: MountTable) -> bool:
    return bool(
        (difference.shared_by_superblock and table.sharing_superblock(live))
        or (difference.shared_by_server and table.sharing_server(live))
    )


def _caught(step: Callable[[Result], None], result: Result) -> OSError | None:
    try:
        step(result)
    except OSError as error:
        return error
    return None
