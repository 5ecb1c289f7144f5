# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nfsmount.conf(5): the options that mount.nfs adds to every mount, server or mount point of a host.

They decide as much as the options of the mount itself, and for "soft" and "hard" even more: mount.nfs appends
them, and the last one wins. So `Soft=True` here makes soft mounts of those that ask for `hard`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils._files import read_text

CONF = "/etc/nfsmount.conf"
DROP_IN = "/etc/nfsmount.conf.d/clusterkit.conf"
_FILES = ("/usr" + CONF, CONF)
_GLOBAL = ("nfsmount_global_options", "")
_ALIASES = {"background": "bg", "foreground": "fg"}
_VERSION_KEYS = ("v3", "v4", "vers", "nfsvers", "minorversion")
_MULTIPLES = {"k": 1024, "m": 1024**2, "g": 1024**3}
_SECTION = re.compile(r'\[\s*(\w+)(?:\s+"([^"]*)")?\s*\]')

Section = tuple[str, str]


class MountDefaults:
    """The settings of all files together, by section."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sections: dict[Section, dict[str, str]] = {}
        for text in texts:
            self._read(text)

    def _read(self, text: str) -> None:
        current: dict[str, str] | None = None
        for line in text.split("\n"):
            stripped = line.strip()
            header = _SECTION.fullmatch(stripped)
            if header:
                # Names are compared without regard to case, mount points included.
                section = (header.group(1).lower(), (header.group(2) or "").lower())
                current = self._sections.setdefault(section, {})
            elif stripped and stripped[0] not in "#;" and "=" in stripped and current is not None:
                name, _equals, value = stripped.partition("=")
                current[name.strip().lower()] = value.strip().strip("\"'")

    def added_to(self, options: Sequence[str], source: str, path: str) -> list[str]:
        """Return the options that mount.nfs adds to the given ones, in its order (conf_get_mntopts of nfs-utils)."""
        result = list(options)
        server = source.partition(":")[0]
        for section in (("mountpoint", path.lower()), ("server", server.lower()), _GLOBAL):
            for name, value in self._sections.get(section, {}).items():
                option = _option(name, value)
                if option is not None and not _is_given(_ALIASES.get(name, name), result):
                    result.append(option)
        return result[len(options) :]


def _option(name: str, value: str) -> str | None:
    """Return the mount option of one setting; None where it only steers mount.nfs itself."""
    if name == "sloppy" or name.startswith("default") or not value:
        return None
    if name in _ALIASES:
        opposite = {"background": "fg", "foreground": "bg"}
        return _ALIASES[name] if value.lower() == "true" else opposite[name]
    if value.lower() == "true":
        return name
    if value.lower() == "false":
        return "no" + name
    if value[-1].lower() in _MULTIPLES and value[:-1].isdigit():
        return f"{name}={int(value[:-1]) * _MULTIPLES[value[-1].lower()]}"
    return f"{name}={value}"


def _is_given(name: str, options: Sequence[str]) -> bool:
    """Tell whether mount.nfs takes a setting for given already: it compares names, "no" before them aside."""
    names = {option.partition("=")[0] for option in options}
    if name in _VERSION_KEYS or name.startswith("v4."):
        return any(each in _VERSION_KEYS or each.startswith("v4.") for each in names)
    if name in ("bg", "fg") and names & {"bg", "fg"}:
        return True
    return name in names or "no" + name in names or (name.startswith("no") and name[2:] in names)


def read_files() -> dict[str, str]:
    """Return the content of each file that mount.nfs reads."""
    paths: list[Path] = []
    for conf in _FILES:
        paths += [Path(conf), *Path(f"{conf}.d").glob("[!.]*.conf")]
    contents = {str(path): read_text(str(path)) for path in paths}
    return {path: content for path, content in contents.items() if content is not None}


def in_order(contents: Mapping[str, str]) -> list[str]:
    """Return the contents of files in mount.nfs's order: what comes later overrides what came before."""
    return [contents[path] for path in sorted(contents, key=_rank)]


def _rank(path: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    # Within a folder like versionsort(3): numbers by their value.
    name = [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", Path(path).name)]
    return not path.startswith("/usr/"), path not in _FILES, name


def render(options: Sequence[str]) -> str:
    """Return the content of the drop-in that gives these options to all NFS mounts."""
    lines = ["# Written by clusterkit.storage: options of every NFS mount of this host, see nfsmount.conf(5).", ""]
    lines += ["[ NFSMount_Global_Options ]", *(_setting(option) for option in options)]
    return "\n".join(lines) + "\n"


def _setting(option: str) -> str:
    name, equals, value = option.partition("=")
    if equals:
        return f"{name.capitalize()}={value}"
    if option in ("bg", "fg"):
        return "Background=True" if option == "bg" else "Foreground=True"
    if option.startswith("no"):
        return f"{option[2:].capitalize()}=False"
    return f"{option.capitalize()}=True"
