# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of exports(5): reading them as exportfs does, and what they come to with every default spelled out."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, replace

from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean

# word of exports(5): the flag it touches, and whether it sets or clears it
FLAG_OPTIONS = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "async": ("async", True),
    "sync": ("async", False),
    "wdelay": ("wdelay", True),
    "no_wdelay": ("wdelay", False),
    "nohide": ("nohide", True),
    "hide": ("nohide", False),
    "crossmnt": ("crossmnt", True),
    "nocrossmnt": ("crossmnt", False),
    "insecure": ("insecure", True),
    "secure": ("insecure", False),
    "root_squash": ("root_squash", True),
    "no_root_squash": ("root_squash", False),
    "all_squash": ("all_squash", True),
    "no_all_squash": ("all_squash", False),
    "no_subtree_check": ("no_subtree_check", True),
    "subtree_check": ("no_subtree_check", False),
    "insecure_locks": ("insecure_locks", True),
    "no_auth_nlm": ("insecure_locks", True),
    "secure_locks": ("insecure_locks", False),
    "auth_nlm": ("insecure_locks", False),
    "no_acl": ("no_acl", True),
    "acl": ("no_acl", False),
    "nordirplus": ("nordirplus", True),
    "security_label": ("security_label", True),
    "sign_fh": ("sign_fh", True),
    "pnfs": ("pnfs", True),
    "no_pnfs": ("pnfs", False),
}
DEFAULT_FLAGS = frozenset({"ro", "wdelay", "root_squash", "no_subtree_check"})
# What may differ between security flavors. Kernels before 4.17 do not have `insecure` in this set: there
# /proc/fs/nfsd/export_features leaves it out, and exportfs judges by that file.
FLAVOR_FLAGS = frozenset({"ro", "insecure", "root_squash", "all_squash"})
FLAVOR_FLAGS_OLD = FLAVOR_FLAGS - {"insecure"}

VALUE_OPTIONS = frozenset(
    {"anonuid", "anongid", "fsid", "mountpoint", "mp", "refer", "replicas", "sec", "xprtsec", "reexport"}
)
# Not in the manual any more, still understood by exportfs; their list syntax is broken there.
OBSOLETE_OPTIONS = frozenset({"squash_uids", "squash_gids"})
KNOWN_OPTIONS = frozenset(FLAG_OPTIONS) | frozenset(
    name if name in ("mountpoint", "mp") else f"{name}=" for name in VALUE_OPTIONS
)

# Synonyms on the wire: the flavors are numbers there.
FLAVORS = {
    "krb5": "krb5",
    "krb5i": "krb5i",
    "krb5p": "krb5p",
    "sys": "sys",
    "unix": "sys",
    "null": "none",
    "none": "none",
}
TRANSPORTS = frozenset({"none", "tls", "mtls"})
REEXPORT_METHODS = ("none", "auto-fsidnum", "predefined-fsidnum")

# Options that a server may be too old for: the first nfs-utils that knows them.
SINCE = {"xprtsec": (2, 6, 3), "reexport": (2, 6, 3), "sign_fh": (2, 9, 1)}


@dataclass(frozen=True)
class Dialect:
    """What differs between servers."""

    version: tuple[int, ...] = (99,)  # of nfs-utils
    flavor_flags: frozenset[str] = FLAVOR_FLAGS


NEWEST = Dialect()


@dataclass(frozen=True)
class Flavor:
    """Access by one security flavor; `flags` is a part of FLAVOR_FLAGS."""

    name: str
    flags: frozenset[str]


@dataclass(frozen=True)
class Meaning:
    """What the options of an entry come to, defaults included. Equal meanings are equal for a client."""

    flags: frozenset[str] = DEFAULT_FLAGS - FLAVOR_FLAGS
    flavors: tuple[Flavor, ...] = (Flavor("sys", DEFAULT_FLAGS & FLAVOR_FLAGS),)
    anonuid: int = 65534
    anongid: int = 65534
    fsid: int | None = None
    uuid: str | None = None
    mountpoint: str | None = None  # "": the path itself must be a mount point
    locations: tuple[str, str] | None = None  # ("refer" or "replicas", the list as written)
    transports: frozenset[str] = TRANSPORTS
    reexport: str = "none"
    squash: tuple[str, ...] = ()  # obsolete options, verbatim

    def options(self) -> list[str]:
        """Return all options, defaults spelled out, in the order of etab, as a client specification may carry them."""
        access = _access_words(self.flavors[0].flags)
        words = [
            access[0],
            "async" if "async" in self.flags else "sync",
            "wdelay" if "wdelay" in self.flags else "no_wdelay",
            "nohide" if "nohide" in self.flags else "hide",
            "crossmnt" if "crossmnt" in self.flags else "nocrossmnt",
            *access[1:],
            "no_subtree_check" if "no_subtree_check" in self.flags else "subtree_check",
            "insecure_locks" if "insecure_locks" in self.flags else "secure_locks",
            "no_acl" if "no_acl" in self.flags else "acl",
            "pnfs" if "pnfs" in self.flags else "no_pnfs",
        ]
        words += [word for word in ("nordirplus", "security_label", "sign_fh") if word in self.flags]
        if self.fsid is not None:
            words.append(f"fsid={self.fsid}")
        if self.uuid is not None:
            words.append(f"fsid={self.uuid}")
        if self.reexport != "none":
            words.append(f"reexport={self.reexport}")
        if self.mountpoint is not None:
            words.append(f"mountpoint={self.mountpoint}" if self.mountpoint else "mountpoint")
        if self.locations is not None:
            words.append("=".join(self.locations))
        words += self.squash
        words += [f"anonuid={self.anonuid}", f"anongid={self.anongid}"]
        if len({flavor.flags for flavor in self.flavors}) == 1:
            words.append("sec=" + ":".join(flavor.name for flavor in self.flavors))
        else:
            for flavor in self.flavors:
                words += [f"sec={flavor.name}", *_access_words(flavor.flags)]
        if self.transports != TRANSPORTS:
            words.append("xprtsec=" + ":".join(sorted(self.transports)))
        return words


def _access_words(flags: frozenset[str]) -> list[str]:
    return [
        "ro" if "ro" in flags else "rw",
        "insecure" if "insecure" in flags else "secure",
        "root_squash" if "root_squash" in flags else "no_root_squash",
        "all_squash" if "all_squash" in flags else "no_all_squash",
    ]


def differences(wanted: Meaning, found: Meaning) -> list[str]:
    """Return what is found otherwise than wanted, in words of exports(5); empty when nothing is."""
    if wanted == found:
        return []
    here, there = wanted.options(), found.options()
    missing = [word for word in here if word not in there]
    extra = [word for word in there if word not in here]
    if not missing and not extra:  # the same words, tied to other flavors or in another order of preference
        missing, extra = [",".join(here)], [",".join(there)]
    return [f"{word} wanted" for word in missing] + [f"{word} found" for word in extra]


@dataclass
class Options:
    """exportfs's state while it reads options. Flags are kept for the export and for each flavor."""

    dialect: Dialect = NEWEST
    flags: set[str] = field(default_factory=lambda: set(DEFAULT_FLAGS))
    flavors: list[tuple[str, set[str]]] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    values: Meaning = field(default_factory=Meaning)
    numbered: bool = False  # has a numeric fsid; exportfs overwrites the number when it reads a uuid
    number: int = 0

    def copy(self) -> Options:
        return replace(
            self,
            flags=set(self.flags),
            flavors=[(name, set(flags)) for name, flags in self.flavors],
            transports=list(self.transports),
        )

    def read(self, text: str) -> str | None:
        """Read a comma-separated list; return what is wrong with it, None when nothing is."""
        active: list[set[str]] = []  # the flags of the flavors of the last sec=
        rest = text.lstrip(" \t")
        reexported = False
        while rest:
            word, _separator, rest = rest.partition(",")
            name, equals, value_text = word.partition("=")
            since = SINCE.get(name)
            if since is not None and since > self.dialect.version:
                here = ".".join(map(str, self.dialect.version))
                return f'"{word}" needs nfs-utils {".".join(map(str, since))}; this is {here}'
            if word in FLAG_OPTIONS:
                flag, value = FLAG_OPTIONS[word]
                for flags in [self.flags, *active]:
                    flags.add(flag) if value else flags.discard(flag)
                rest = rest.lstrip(" \t")
                continue
            problem = None
            if name == "sec" and equals:
                problem, active = self._add_flavors(value_text)
            elif name == "reexport" and equals:
                problem = "only one reexport= is allowed" if reexported else self._set_value(name, value_text)
                reexported = True
            elif name == "fsid" and reexported:
                problem = "fsid= has to stand before reexport="
            elif equals or word in ("mountpoint", "mp"):
                problem = self._set_value(name, value_text)
            else:
                problem = unknown_option(word)
            if problem is not None:
                return problem
            rest = rest.lstrip(" \t")
        return None

    def _add_flavors(self, text: str) -> tuple[str | None, list[set[str]]]:
        active = []
        for name in text.split(":"):
            if name not in FLAVORS:
                return f'"{name}" is not a security flavor of sec={did_you_mean(name, FLAVORS)}', []
            known = [flags for flavor, flags in self.flavors if flavor == FLAVORS[name]]
            if not known:
                known = [set(self.flags)]
                self.flavors.append((FLAVORS[name], known[0]))
            active += known
        return None, active

    def _set_value(self, name: str, text: str) -> str | None:
        values = self.values
        if name in ("anonuid", "anongid"):
            number = to_long(text)
            if number is None:
                return f'{name}="{text}" is not a number'
            number &= 0xFFFFFFFF
            if name == "anonuid":
                self.values = replace(values, anonuid=number)
            else:
                self.values = replace(values, anongid=number)
        elif name == "fsid":
            return self._set_fsid(text)
        elif name in ("mountpoint", "mp"):
            self.values = replace(values, mountpoint=text)
        elif name in ("refer", "replicas"):
            self.values = replace(values, locations=(name, text))
        elif name == "xprtsec":
            for transport in text.split(":"):
                if transport not in TRANSPORTS:
                    return f'"{transport}" is not a policy of xprtsec={did_you_mean(transport, TRANSPORTS)}'
                self.transports.append(transport)
        elif name == "reexport":
            if text not in REEXPORT_METHODS:
                return f'"{text}" is not a method of reexport={did_you_mean(text, REEXPORT_METHODS)}'
            self.values = replace(values, reexport=text)
            self.numbered = self.numbered or self.number != 0
        elif name in OBSOLETE_OPTIONS:
            if not re.fullmatch("[0-9]+(-[0-9]+)?", text):
                return f'{name}="{text}" is not a number or a range of numbers'
            self.values = replace(values, squash=(*values.squash, f"{name}={text}"))
        else:
            return unknown_option(f"{name}={text}")
        return None

    def _set_fsid(self, text: str) -> str | None:
        if text == "root":
            self.numbered, self.number = True, 0
            return None
        number, end = _strtoul(text)
        self.number = number & 0xFFFFFFFF  # exportfs stores it even when the value turns out to be a uuid
        if text and end == len(text):
            self.numbered = True
        elif is_uuid(text):
            self.values = replace(self.values, uuid=text)
        else:
            return f'fsid="{text}" is neither a number, nor "root", nor a UUID of 32 hexadecimal digits'
        return None

    def meaning(self) -> Meaning:
        flavor_flags = self.dialect.flavor_flags
        by_flavor = self.flavors or [("sys", self.flags)]
        common = self.flags & (FLAVOR_FLAGS - flavor_flags)
        number = self.number
        if self.values.uuid is not None:
            # etab lists the number before the UUID, and mountd stumbles over that when it reads etab.
            number = _strtoul(self.values.uuid)[0] & 0xFFFFFFFF
        return replace(
            self.values,
            flags=frozenset(self.flags - FLAVOR_FLAGS),
            flavors=tuple(Flavor(name, frozenset((flags & flavor_flags) | common)) for name, flags in by_flavor),
            transports=frozenset(self.transports) or TRANSPORTS,
            fsid=number if self.numbered else None,
        )


def unknown_option(word: str) -> str:
    """Return the words for an option that exports(5) does not have."""
    name, equals, _value = word.partition("=")
    if not word:
        return "there is an empty option: two commas, or a comma at the start"
    if name in KNOWN_OPTIONS and equals:
        return f'"{word}": {name} takes no value'
    if f"{word}=" in KNOWN_OPTIONS:
        return f'"{word}" needs a value: {word}=...'
    return f'"{word}" is not an option of exports(5)' + did_you_mean(name + equals if equals else word, KNOWN_OPTIONS)


def is_uuid(text: str) -> bool:
    """Tell whether nfs-utils takes this for a UUID: 32 hexadecimal digits, whatever stands between them."""
    return sum(character in "0123456789abcdefABCDEF" for character in text) == 32


@functools.lru_cache(maxsize=1024)  # most exports of a list carry the same options
def read_options(text: str, dialect: Dialect = NEWEST) -> tuple[Meaning, str | None]:
    """Return what a comma-separated list of options means, and what is wrong with it (None: nothing)."""
    options = Options(dialect)
    problem = options.read(text)
    return options.meaning(), problem


def to_long(text: str) -> int | None:
    """strtol(text, 10), None unless all of the text is a number."""
    if not re.fullmatch(r"[ \t\n\v\f\r]*[+-]?[0-9]+", text):
        return None
    return max(-(2**63), min(2**63 - 1, int(text)))


def _strtoul(text: str) -> tuple[int, int]:
    """strtoul(text, 0): the number, and where it ends (0: no number)."""
    match = re.match(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)", text)
    if match is None:
        return 0, 0
    sign, digits = match.groups()
    end = match.end()
    if digits[:2] in ("0x", "0X"):
        number = int(digits, 16)
    elif digits.startswith("0"):
        octal = digits[: len(digits) - len(digits.lstrip("01234567"))]
        end -= len(digits) - len(octal)
        number = int(octal, 8)
    else:
        number = int(digits)
    if number > 2**64 - 1:
        return 2**64 - 1, end
    return (-number if sign == "-" else number) % 2**64, end
