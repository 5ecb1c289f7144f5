# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host's NFS mounts to what is wanted: reads the host, lets `_nfs_mounts` plan, does the steps.

Every command that may wait for a server is a child process with a deadline, and no path that may lie on a dead
server is touched by this process itself.
"""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import pwd
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _files,
    _fstab,
    _holders,
    _mount_options,
    _mounts,
    _nfs_mounts,
    _nfs_server,
    _nfsmount_conf,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts import Planned, Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished, run

PARALLEL = 8
# Mounts may be hidden below others: what an unmount uncovers is seen in the next round.
_ROUNDS = 4
# Asking for a name's addresses, and systemd for a reload, needs no NFS server.
_SHORT = 10.0
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
# $1 mode, $2 owner, $3 group, $4 path
_MAKE_DIRECTORY = (
    '[ -d "$4" ] || { mkdir -p -- "$(dirname -- "$4")" && install -d -m "$1" -o "$2" -g "$3" -- "$4" && echo made; }'
)
# $1 how many mounts to take away, $2 path, then the mount command. In a namespace of its own: "umount -l" takes
# away the copies of that namespace only, and what is mounted there goes with the process.
_TRY = (
    'count=$1; path=$2; shift 2; while [ "$count" -gt 0 ]; '
    'do umount -i -l -- "$path" || exit; count=$((count - 1)); done; exec "$@"'
)
OWN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "--"]


class Machine:
    """What the module does to the host it runs on; tests put a simulated one in its place."""

    def read_table(self) -> MountTable:
        return _mounts.read()

    def read_fstab(self) -> str:
        return _files.read_text(_fstab.FSTAB) or ""

    def write_fstab(self, content: str) -> None:
        _files.replace_file(_fstab.FSTAB, content)

    def read_nfsmount_conf(self) -> dict[str, str]:
        return _nfsmount_conf.read_files()

    def write_drop_in(self, content: str | None) -> None:
        drop_in = Path(_nfsmount_conf.DROP_IN)
        if content is None:
            _files.remove_file(str(drop_in))
            return
        drop_in.parent.mkdir(mode=0o755, exist_ok=True)
        _files.replace_file(str(drop_in), content)

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        return run(argv, timeout=timeout, env={"PATH": SEARCH_PATH})

    def can_mount_nfs(self) -> bool:
        return shutil.which("mount.nfs", path=SEARCH_PATH) is not None

    def has_systemd(self) -> bool:
        return Path("/run/systemd/system").is_dir()

    def is_directory(self, path: str) -> bool:
        return Path(path).is_dir()

    def has_entries(self, path: str) -> bool:
        with os.scandir(path) as entries:
            return next(entries, None) is not None

    def make_directory(self, path: str, mode: int, uid: int, gid: int) -> None:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            Path(path).mkdir(mode=0o700)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "the mount point is there, but is no directory", path) from None
        os.chown(path, uid, gid)
        Path(path).chmod(mode)

    def server_answers(self, address: str, port: int) -> bool:
        return _nfs_server.answers(address, port, timeout=_SHORT / 2)

    def holders(self, path: str) -> list[str]:
        return _holders.processes_in(path)


@dataclass
class Result:
    """What became of one item."""

    planned: Planned
    actions: list[str] = field(default_factory=list)
    failure: str | None = None
    live: Mount | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        item = self.planned.wanted
        live = None
        if self.live is not None:
            live = {
                "source": self.live.source,
                "options": list(self.live.options),
                "super_options": list(self.live.super_options),
            }
        return {
            "path": item.path,
            "src": item.source or None,
            "state": item.state,
            "changed": bool(self.actions),
            "failed": self.failure is not None,
            "msg": self.failure or "",
            "actions": self.actions,
            "notes": self.notes,
            "live": live,
        }


@dataclass
class Outcome:
    """What became of the whole call."""

    results: list[Result]
    changed: bool
    failures: list[str]
    warnings: list[str]
    diff: list[dict[str, str]]
    mount_defaults_changed: bool = False


def problems_of_host(machine: Machine, items: Sequence[Wanted]) -> list[str]:
    """Return what makes the whole input impossible on this host: a missing program, unknown users and groups."""
    found = []
    if any(item.state == "mounted" for item in items) and not machine.can_mount_nfs():
        found.append("mount.nfs is not installed here; it comes with nfs-common (Debian) or nfs-utils")
    for index, item in enumerate(items):
        for name, lookup in (("owner", user_id), ("group", group_id)):
            value = getattr(item, name)
            try:
                lookup(value)
            except KeyError:
                found.append(f'mounts[{index}].{name}: there is no {name} "{value}" here')
    return found


def user_id(name: str | None) -> int:
    if name is None:
        return 0
    return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid


def group_id(name: str | None) -> int:
    if name is None:
        return 0
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid


class Runner:
    """One call of the module."""

    def __init__(self, machine: Machine, *, timeout: float, check_mode: bool) -> None:
        self.machine = machine
        self.timeout = timeout
        self.check_mode = check_mode
        self._silent: dict[str, str] = {}  # server -> the path whose step got no answer
        self._lock = threading.Lock()
        self._addresses: dict[str, set[str]] = {}
        self._defaults = _nfsmount_conf.MountDefaults([])

    def apply(self, items: Sequence[Wanted], mount_defaults: Sequence[str] | None) -> Outcome:
        machine = self.machine
        table = machine.read_table()
        fstab_before = machine.read_fstab()
        lines = _fstab.parse(fstab_before)
        conf = machine.read_nfsmount_conf()
        drop_in, drop_in_before = self._drop_in(conf, mount_defaults)
        self._defaults = _nfsmount_conf.MountDefaults(_nfsmount_conf.in_order(conf))
        planned = _nfs_mounts.plan(items, table, lines, self._defaults, self._same_server)
        results = [Result(each, failure=each.problem, live=each.live, notes=list(each.notes)) for each in planned]
        if drop_in != drop_in_before and not self.check_mode:
            machine.write_drop_in(drop_in)
        if self.check_mode:
            self._predict(results, table)
        else:
            for _round in range(_ROUNDS):
                if not any(result.failure is None and result.planned.changes_live for result in results):
                    break
                self._change_live(results)
                self._plan_again(results, lines)
        done = [result for result in results if result.failure is None]
        for result in done:
            result.actions += _nfs_mounts.fstab_words(lines, result.planned.wanted)
        fstab_after = _fstab.render(_nfs_mounts.new_fstab(lines, [result.planned.wanted for result in done]))
        failures = [f"{each.planned.wanted.path}: {each.failure}" for each in results if each.failure is not None]
        warnings = [f"{each.wanted.path}: {warning}" for each in planned for warning in each.warnings]
        if fstab_after != fstab_before and not self.check_mode:
            try:
                machine.write_fstab(fstab_after)
            except OSError as error:
                failures.append(f"{_fstab.FSTAB} cannot be written: {error}")
            else:
                self._reload_systemd(failures, warnings)
        return Outcome(
            results=results,
            changed=any(result.actions for result in results) or drop_in != drop_in_before,
            failures=failures,
            warnings=warnings,
            diff=[
                *_diff(_nfsmount_conf.DROP_IN, drop_in_before or "", drop_in or ""),
                *_diff(_fstab.FSTAB, fstab_before, fstab_after),
                *self._live_diff(results, table),
            ],
            mount_defaults_changed=drop_in != drop_in_before,
        )

    def _drop_in(self, conf: dict[str, str], mount_defaults: Sequence[str] | None) -> tuple[str | None, str | None]:
        """Return the drop-in's content as wanted and as it is; puts the wanted one into `conf`."""
        before = conf.get(_nfsmount_conf.DROP_IN)
        if mount_defaults is None:
            return before, before
        wanted = _nfsmount_conf.render(mount_defaults) if mount_defaults else None
        if wanted is None:
            conf.pop(_nfsmount_conf.DROP_IN, None)
        else:
            conf[_nfsmount_conf.DROP_IN] = wanted
        return wanted, before

    def _same_server(self, host: str, mount: Mount) -> bool:
        address = mount.server_address
        return address is not None and _normal_address(address) in self._addresses_of(host)

    def _addresses_of(self, host: str) -> set[str]:
        if host not in self._addresses:
            self._addresses[host] = self._ask_addresses(host)
        return self._addresses[host]

    def _ask_addresses(self, host: str) -> set[str]:
        try:
            return {_normal_address(str(ipaddress.ip_address(host.partition("%")[0])))}
        except ValueError:
            pass
        # A child process: the resolver of this process would wait for dead name servers without limit.
        finished = self.machine.run(["getent", "ahosts", host], _SHORT)
        return {_normal_address(line.split()[0]) for line in finished.stdout.splitlines() if line.strip()}

    def _predict(self, results: Sequence[Result], table: MountTable) -> None:
        for result in results:
            if result.failure is not None:
                continue
            planned = result.planned
            unseen = planned.unmount or not self._may_touch(table, planned.path)
            if planned.mount and not unseen and not self.machine.is_directory(planned.path):
                result.actions.append("make the mount point")
            result.actions += planned.words()

    def _may_touch(self, table: MountTable, path: str) -> bool:
        place = table.find(path)
        return not place.stack and not (place.inside is not None and place.inside.may_hang)

    def _plan_again(self, results: Sequence[Result], lines: Sequence[_fstab.Line]) -> None:
        """See what is left to do: an unmount may have uncovered another mount."""
        items = [result.planned.wanted for result in results]
        planned = _nfs_mounts.plan(items, self.machine.read_table(), lines, self._defaults, self._same_server)
        for result, again in zip(results, planned):
            if result.failure is None:
                result.planned = again
                result.failure = again.problem
                result.notes += [note for note in again.notes if note not in result.notes]

    def _change_live(self, results: Sequence[Result]) -> None:
        todo = {id(result.planned): result for result in results if result.failure is None}
        groups = [
            [todo[id(planned)] for planned in group if id(planned) in todo]
            for group in _nfs_mounts.waves([result.planned for result in results])
        ]
        # Everything that goes, goes first: two mounts of one superblock must both be gone before either gets
        # other options.
        replaced = [each for group in groups for each in group if each.planned.unmount and each.planned.mount]
        self._each(replaced, self._try_mount)
        for group in reversed(groups):
            self._each([each for each in group if each.failure is None and each.planned.unmount], self._unmount)
        for group in groups:
            table = self.machine.read_table()
            mounting = [each for each in group if each.failure is None and (each.planned.mount or each.planned.remount)]
            self._each(mounting, partial(self._mount, table))
        table = self.machine.read_table()
        for result in results:
            self._verify(result, table)

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
        argv = [*OWN_NAMESPACE, "sh", "-c", _TRY, "sh", str(len(planned.unmount)), planned.path]
        finished = self._command(result, [*argv, *_mount_command(planned)], self._server_of(planned))
        if finished is not None and not finished.succeeded:
            result.failure = mount_failure(finished, planned.wanted.source, planned.wanted.options)
        if result.failure is not None:
            result.failure += f"; {planned.unmount[0].source} stays mounted"

    def _unmount(self, result: Result) -> None:
        planned = result.planned
        for mount in planned.unmount:
            finished = self._command(result, ["umount", planned.path], mount.server_address)
            if finished is None:
                return
            table = self.machine.read_table()
            if any(other.mount_id == mount.mount_id for other in table.mounts):
                result.failure = self._why_not_unmounted(planned, mount, table, finished)
                return
            result.actions.append(f"unmount {mount.source}")

    def _why_not_unmounted(self, planned: Planned, mount: Mount, table: MountTable, finished: Finished) -> str:
        wanted = f"wanted is {planned.wanted.source}" if planned.mount else f"wanted is {planned.wanted.state}"
        if planned.differences:
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
        if planned.remount:
            finished = self._command(result, ["mount", *planned.remount], self._server_of(planned))
            if finished is not None and not finished.succeeded:
                result.failure = finished.complaint()
            elif finished is not None:
                result.actions += planned.words()
            return
        hidden = _nfs_mounts.hidden_by(table, planned.path)
        if hidden:
            result.failure = _nfs_mounts.would_hide(hidden)
            return
        if not self._ensure_mount_point(result, table):
            return
        finished = self._command(result, _mount_command(planned), self._server_of(planned))
        if finished is None:
            return
        if finished.succeeded:
            result.actions.append(f"mount {planned.wanted.source}")
        else:
            result.failure = mount_failure(finished, planned.wanted.source, planned.wanted.options)

    def _ensure_mount_point(self, result: Result, table: MountTable) -> bool:
        planned = result.planned
        item = planned.wanted
        place = table.find(planned.path)
        if place.stack:
            # Whatever is mounted there (an automount trigger), the mount point exists.
            return True
        uid, gid = user_id(item.owner), group_id(item.group)
        if not self._may_touch(table, planned.path):
            argv = ["sh", "-c", _MAKE_DIRECTORY, "sh", f"{item.mode:o}", str(uid), str(gid), planned.path]
            finished = self._command(result, argv, place.inside.server_address if place.inside else None)
            if finished is not None and not finished.succeeded:
                result.failure = f"the mount point cannot be made: {finished.complaint()}"
            elif finished is not None and "made" in finished.stdout:
                result.actions.append("make the mount point")
            return result.failure is None
        if not self.machine.is_directory(planned.path):
            self.machine.make_directory(planned.path, item.mode, uid, gid)
            result.actions.append("make the mount point")
        elif self.machine.has_entries(planned.path):
            result.notes.append("the directory was not empty; what is in it is hidden while the mount is there")
        return True

    def _server_of(self, planned: Planned) -> str:
        parts = split_source(planned.wanted.source)
        host = parts[0] if parts else ""
        if planned.live is not None and planned.live.server_address:
            return planned.live.server_address
        return host

    def _command(self, result: Result, argv: list[str], server: str | None) -> Finished | None:
        """Run a command that may wait for a server; None, with the item failed, when the server keeps silent.

        A server that let one command wait until the deadline is not asked again: 50 mounts of it would otherwise
        cost 50 deadlines.
        """
        with self._lock:
            silent_at = self._silent.get(server or "")
        if silent_at is not None:
            result.failure = f"not tried: {server} gave no answer for {silent_at} within {self.timeout:g} s"
            return None
        finished = self.machine.run(argv, self.timeout)
        if finished.timed_out:
            if server:
                with self._lock:
                    self._silent.setdefault(server, result.planned.wanted.path)
            words = " ".join(finished.stderr.split())
            result.failure = f"{argv[0]}: no answer from {server} within {self.timeout:g} s" + (
                f": {words}" if words else ""
            )
            return None
        return finished

    def _verify(self, result: Result, table: MountTable) -> None:
        """Believe the kernel, not the exit status of mount and umount."""
        planned = result.planned
        top = table.find(planned.path).top
        result.live = top if top is not None and top.is_nfs else None
        if result.failure is not None or planned.wanted.state != "mounted" or not planned.changes_live:
            return
        source = planned.wanted.source
        if result.live is None or not _nfs_mounts.is_source(result.live, source, self._same_server):
            found = result.live.source if result.live is not None else "nothing"
            result.failure = f"mount reported success, but {found} is mounted"
            return
        effective = _nfs_mounts.effective_options(planned.wanted, self._defaults)
        left = _mount_options.differences(effective, result.live.options, result.live.super_options)
        shared = [each for each in left if self._is_shared(each, result.live, table)]
        result.notes += [note for note in _nfs_mounts.shared_notes(shared) if note not in result.notes]
        refused = [str(each) for each in left if each not in shared]
        if refused:
            result.failure = f"is mounted, but not as wanted: {', '.join(refused)}"
            if any(each.shared_by_superblock or each.shared_by_server for each in left):
                result.failure += " (a mount that cannot be seen from here, such as a container's, may decide it)"

    def _is_shared(self, difference: _mount_options.Difference, live: Mount, table: MountTable) -> bool:
        return bool(
            (difference.shared_by_superblock and table.sharing_superblock(live))
            or (difference.shared_by_server and table.sharing_server(live))
        )

    def _reload_systemd(self, failures: list[str], warnings: list[str]) -> None:
        """Tell systemd of the new fstab: it mounts by units made from the old one until then."""
        if not self.machine.has_systemd():
            return
        silent = sorted(self._silent) or self._servers_that_do_not_answer()
        if silent:
            # systemd-fstab-generator looks at each mount point, and process 1 waits up to 90 s for it.
            warnings.append(
                f"systemd was not told of the new {_fstab.FSTAB}: {', '.join(silent)} does not answer, "
                "and systemd would wait for it; run systemctl daemon-reload when it does"
            )
            return
        finished = self.machine.run(["systemctl", "daemon-reload"], max(self.timeout, _SHORT))
        if not finished.succeeded:
            failures.append(finished.complaint())

    def _servers_that_do_not_answer(self) -> list[str]:
        servers = sorted({each.server for each in self.machine.read_table().mounts if each.server is not None})
        if not servers:
            return []
        with ThreadPoolExecutor(max_workers=min(PARALLEL, len(servers))) as pool:
            answers = list(pool.map(lambda server: self.machine.server_answers(*server), servers))
        return [address for (address, _port), answered in zip(servers, answers) if not answered]

    def _live_diff(self, results: Sequence[Result], before: MountTable) -> list[dict[str, str]]:
        def shown(path: str, table: MountTable) -> str:
            return "".join(
                f"{each.source} {each.path} {each.fstype} {','.join(each.options)} {','.join(each.super_options)}\n"
                for each in table.find(path).stack
                if each.is_nfs
            )

        paths = [result.planned.path for result in results]
        text = "".join(shown(path, before) for path in paths)
        if not self.check_mode:
            after = self.machine.read_table()
            return _diff("live mounts", text, "".join(shown(path, after) for path in paths))
        predicted = ""
        for result in results:
            planned = result.planned
            if result.failure is None and planned.changes_live:
                item = planned.wanted
                if item.state == "mounted":
                    predicted += f"{item.source} {planned.path} nfs {','.join(item.options) or 'defaults'}\n"
            else:
                predicted += shown(planned.path, before)
        return _diff("live mounts", text, predicted)


def _mount_command(planned: Planned) -> list[str]:
    item = planned.wanted
    options = _mount_options.for_a_mount_now(item.options)
    if not any(option.startswith("retry=") for option in options):
        # One try: mount.nfs would hide the server's reason behind two minutes of trying.
        options.append("retry=0")
    return ["mount", "-t", "nfs", "-o", ",".join(options), item.source, planned.path]


def _caught(step: Callable[[Result], None], result: Result) -> OSError | None:
    try:
        step(result)
    except OSError as error:
        return error
    return None


def _diff(name: str, before: str, after: str) -> list[dict[str, str]]:
    if before == after:
        return []
    return [{"before_header": name, "after_header": name, "before": before, "after": after}]


def _normal_address(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def mount_failure(finished: Finished, source: str, options: Sequence[str]) -> str:
    """Return the server's reason in words, with what it usually means."""
    words = " ".join(finished.stderr.split()).replace("mount.nfs4: ", "").replace("mount.nfs: ", "")
    denied = "the path is not exported to this host"
    if _mount_options.uses_unreserved_port(options):
        denied += ", or only for reserved ports: noresvport needs insecure in the export"
    hints = (
        ("access denied by server", denied),
        ("Operation not permitted", denied),
        ("No such file or directory", "the server has no such path, or does not export it"),
        ("Connection refused", "no NFS server listens there"),
        ("Protocol not supported", "the server does not serve this NFS version"),
        ("mount system call failed", "most likely the server did not answer"),
    )
    for fragment, hint in hints:
        if fragment in words:
            return f"{words} ({hint})"
    return words or f"mount of {source} failed with exit status {finished.returncode}"
