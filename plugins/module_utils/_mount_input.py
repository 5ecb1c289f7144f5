# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of mounts that somebody wants on a host: read, and everything that is wrong with it. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab, _mount_options, _systemd_units
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import split_source

STATES = ("mounted", "present", "unmounted", "absent")
UNMOUNTS = ("normal", "lazy", "abort")
_AUTOMOUNT = "x-systemd.automount"
_IDLE_TIMEOUT = "x-systemd.idle-timeout="


@dataclass(frozen=True)
class Wanted:
    """One item of the input."""

    path: str
    state: str = "mounted"
    source: str = ""
    options: tuple[str, ...] = ()  # with those that make systemd mount it at the first access
    boot: bool = True
    owner: str | None = None
    group: str | None = None
    mode: int = 0o755
    unmount: str = "normal"
    remove_mount_point: bool = False
    # The mount that somebody has looked at before, and no other one, may be unmounted.
    mount_id: int | None = None
    major_minor: str | None = None

    @property
    def in_fstab(self) -> bool | None:
        """Whether fstab shall have a line of it; None: fstab is left alone."""
        if self.state == "unmounted":
            return None
        return self.boot and self.state != "absent"

    @property
    def entry(self) -> _fstab.Entry:
        return _fstab.Entry(self.source, self.path, "nfs", _fstab.normal_options(self.options))

    @property
    def automount(self) -> bool:
        """Whether systemd mounts it at the first access."""
        return _AUTOMOUNT in self.options

    @property
    def idle_timeout(self) -> int | None:
        """After how many seconds without use systemd unmounts it; 0: never; None: not known here."""
        for option in reversed(self.options):
            if option.startswith(_IDLE_TIMEOUT):
                return _systemd_units.seconds(option[len(_IDLE_TIMEOUT) :])
        return 0


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
    path = raw.get("path") or ""
    state, boot = raw.get("state") or "mounted", raw.get("boot") is not False
    source, problems = _source(raw)
    problems = _path_problems(path) + problems
    if (state in ("mounted", "present") or source) and not _parts_are_wrong(problems):
        problems += _source_problems(source)
    options = _mount_options.parse(raw.get("options"))
    problems += [f"options: {problem}" for problem in _mount_options.problems(options)]
    problems += _automount_problems(raw, options, boot=boot)
    options = _with_automount(raw, options)
    if state == "present" and not boot:
        problems.append('boot: false leaves nothing to do for state "present", which is a line in fstab only')
    if raw.get("remove_mount_point") and state != "absent":
        problems.append(f'remove_mount_point: only state "absent" removes it, not "{state}"')
    mount_id, major_minor = raw.get("mount_id"), raw.get("major_minor")
    if (mount_id is not None or major_minor is not None) and state not in ("unmounted", "absent"):
        problems.append(f'mount_id, major_minor: say what may be unmounted, so not for state "{state}"')
    if major_minor is not None and not re.fullmatch("[0-9]+:[0-9]+", major_minor):
        problems.append(f'major_minor: "{major_minor}" is not two numbers, such as "0:52"')
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
        unmount=raw.get("unmount") or "normal",
        remove_mount_point=bool(raw.get("remove_mount_point")),
        mount_id=mount_id,
        major_minor=major_minor,
    )
    return item, problems


def _parts_are_wrong(problems: Sequence[str]) -> bool:
    """Tell whether the source itself could not be put together."""
    return any(problem.startswith(("server:", "export:", "src, server")) for problem in problems)


def _source(raw: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the source, from `src` or from `server` and `export`."""
    source, server, export = (raw.get(name) or "" for name in ("src", "server", "export"))
    if not server and not export:
        return source, []
    if source:
        return source, ["src, server, export: give either src, or server and export"]
    if not server or not export:
        given, missing = ("server", "export") if server else ("export", "server")
        return "", [f"{missing}: is needed with {given}"]
    if not export.startswith("/"):
        return "", [f'export: "{export}" is not an absolute path']
    if server.startswith("[") or "/" in server:
        return "", [f'server: "{server}" is not a host name or address; brackets are not needed here']
    return (f"[{server}]:{export}" if ":" in server else f"{server}:{export}"), []


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
        return ["src: is needed (server:/exported/path), or server and export"]
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


def _automount_problems(raw: Mapping[str, Any], options: Sequence[str], *, boot: bool) -> list[str]:
    problems = []
    idle = _number(raw.get("automount_idle_timeout"))
    if (raw.get("automount") or _AUTOMOUNT in options) and not boot:
        problems.append("automount: needs boot: true, since systemd makes the trigger from fstab")
    if idle is not None and idle < 0:
        problems.append(f"automount_idle_timeout: {idle} is less than 0 seconds")
    if idle and not raw.get("automount"):
        problems.append("automount_idle_timeout: is for automount: true only")
    if idle and any(option.startswith(_IDLE_TIMEOUT) for option in options):
        problems.append(f"automount_idle_timeout: options already say {_IDLE_TIMEOUT.rstrip('=')}")
    return problems


def _number(value: Any) -> int | None:
    """Return a number that Ansible may not have converted yet."""
    return value if value is None or isinstance(value, int) else int(value) if str(value).isdigit() else -1


def _with_automount(raw: Mapping[str, Any], options: list[str]) -> list[str]:
    if not raw.get("automount"):
        return options
    added = [] if _AUTOMOUNT in options else [_AUTOMOUNT]
    if raw.get("automount_idle_timeout"):
        added.append(f"{_IDLE_TIMEOUT}{raw['automount_idle_timeout']}")
    return [*options, *added]
