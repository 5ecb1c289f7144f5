# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nfsmount.conf(5): the options that mount.nfs adds to every mount, server or mount point of a host.

They decide as much as the options of the mount itself, and for "soft" and "hard" even more: mount.nfs appends
them, and the last one wins. So `Soft=True` here makes soft mounts of those that ask for `hard`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options
from ansible_collections.clusterkit.storage.plugins.module_utils._files import read_text

CONF = "/etc/nfsmount.conf"
DROP_IN = "/etc/nfsmount.conf.d/clusterkit.conf"
# Older ones read the main file only.
READS_FOLDER = (2, 5, 3)
_FILES = ("/usr" + CONF, CONF)
_BEGIN = "# BEGIN clusterkit.storage: written by it, and replaced as a whole"
_END = "# END clusterkit.storage"
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}\n.*?^{re.escape(_END)}(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_GLOBAL = ("nfsmount_global_options", "")
_ALIASES = {"background": "bg", "foreground": "fg"}
_VERSION_KEYS = ("v3", "v4", "vers", "nfsvers", "minorversion")
_MULTIPLES = {"k": 1024, "m": 1024**2, "g": 1024**3}
_SECTION = re.compile(r'\[\s*(\w+)(?:\s+"([^"]*)")?\s*\]')

Section = tuple[str, str]


@dataclass(frozen=True)
class Default:
    """Options that all mounts get, or those of one server or of one mount point."""

    options: tuple[str, ...]
    server: str | None = None
    path: str | None = None

    @property
    def section(self) -> str:
        if self.path is not None:
            return f'[ MountPoint "{self.path}" ]'
        return f'[ Server "{self.server}" ]' if self.server is not None else "[ NFSMount_Global_Options ]"


def read_defaults(raw: Sequence[Mapping[str, Any]]) -> tuple[list[Default], list[str]]:
    """Return the wanted defaults and everything that is wrong with them, each problem with its place."""
    defaults: list[Default] = []
    problems: list[str] = []
    first_at: dict[str, int] = {}
    for index, entry in enumerate(raw):
        default = Default(tuple(_mount_options.parse(entry.get("options"))), entry.get("server"), entry.get("path"))
        found = [f"options: {problem}" for problem in _mount_options.problems(default.options)]
        if not default.options:
            found.append("options: are needed")
        if default.server is not None and default.path is not None:
            found.append("server, path: give one of them, or none for all mounts")
        for name, value in (("server", default.server), ("path", default.path)):
            if value is not None and (not value or re.search(r'["\]\s]', value)):
                found.append(f'{name}: "{value}" cannot be written to nfsmount.conf')
        if default.path is not None and not default.path.startswith("/"):
            found.append(f'path: "{default.path}" is not an absolute path')
        section = default.section.lower()
        if section in first_at:
            found.append(f"options: are for the same mounts as those of mount_defaults[{first_at[section]}]")
        first_at.setdefault(section, index)
        problems += [f"mount_defaults[{index}].{problem}" for problem in found]
        defaults.append(default)
    return defaults, problems


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
    # nfs-utils reads a folder in the order of versionsort(3), which asks this function of the C library.
    compare = ctypes.CDLL(None).strverscmp

    def order(one: str, other: str) -> int:
        return _place(one) - _place(other) or int(compare(os.fsencode(one), os.fsencode(other)))

    texts = []
    for path in sorted(contents, key=functools.cmp_to_key(order)):
        texts.append(_BLOCK.sub("", contents[path]))
        # Versions that need it let the first one win within a file, and it stands at the beginning.
        texts += _BLOCK.findall(contents[path])
    return texts


def _place(path: str) -> int:
    main = next(conf for conf in reversed(_FILES) if path.startswith(conf))
    return 2 * _FILES.index(main) + (path != main)


def has_block(content: str | None) -> bool:
    """Tell whether a main file has settings of ours in it."""
    return content is not None and _BLOCK.search(content) is not None


def changes(contents: Mapping[str, str], defaults: Sequence[Default], *, reads_folder: bool) -> dict[str, str | None]:
    """Return the files that have to change so that these defaults hold, with their new content (None: no file).

    They stand in a file of their own or, where mount.nfs does not read the folder of it, in a block of the main file.
    """
    main = contents.get(CONF)
    wanted: dict[str, str | None] = {DROP_IN: None, CONF: None if main is None else _BLOCK.sub("", main)}
    if defaults and reads_folder:
        wanted[DROP_IN] = render(defaults)
    elif defaults:
        # nfs-utils 1.3 takes the first of two settings in a file, and ignores a last line without an end.
        wanted[CONF] = f"{_BEGIN}\n{_sections(defaults)}{_END}\n" + (wanted[CONF] or "")
    return {path: text for path, text in wanted.items() if text != contents.get(path)}


def render(defaults: Sequence[Default]) -> str:
    """Return the content of the file of ours."""
    return "# Written by clusterkit.storage: options of NFS mounts, see nfsmount.conf(5).\n\n" + _sections(defaults)


def _sections(defaults: Sequence[Default]) -> str:
    return "\n".join(
        "\n".join([default.section, *(_setting(option) for option in default.options)]) + "\n" for default in defaults
    )


def _setting(option: str) -> str:
    name, equals, value = option.partition("=")
    if equals:
        return f"{name.capitalize()}={value}"
    if option in ("bg", "fg"):
        return "Background=True" if option == "bg" else "Foreground=True"
    if option.startswith("no"):
        return f"{option[2:].capitalize()}=False"
    return f"{option.capitalize()}=True"
