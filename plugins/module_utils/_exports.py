# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exports(5): read it as exportfs does, write it, and say what an entry means with every default spelled out.

The reader has the habits of nfs-utils, traps included, because foreign files must be judged by what they do,
not by what their authors meant. Rules that only concern exports of ours are in _export_list.py.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean

# Limits of nfs-utils, in bytes: NFS_MAXPATHLEN, and the buffer for one client with its options.
MAX_PATH = 1024
MAX_CLIENT = 511

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
class _Options:
    """exportfs's state while it reads options. Flags are kept for the export and for each flavor."""

    dialect: Dialect = NEWEST
    flags: set[str] = field(default_factory=lambda: set(DEFAULT_FLAGS))
    flavors: list[tuple[str, set[str]]] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    values: Meaning = field(default_factory=Meaning)
    numbered: bool = False  # has a numeric fsid; exportfs overwrites the number when it reads a uuid
    number: int = 0

    def copy(self) -> _Options:
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
            number = _to_long(text)
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
    options = _Options(dialect)
    problem = options.read(text)
    return options.meaning(), problem


def _to_long(text: str) -> int | None:
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


# --- clients ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8192)
def client_kind(host: str) -> str:
    """Return how exportfs takes a client: anonymous, gss, netgroup, wildcard, network or host."""
    if host in ("", "*"):
        return "anonymous"
    if host.startswith("gss/"):
        return "gss"
    if host.startswith("@"):
        return "netgroup"
    position = 0
    while position < len(host):
        character = host[position]
        if character in "*?[":
            return "wildcard"
        if character == "/":
            return "network"
        if character == "\\" and position + 1 < len(host):
            position += 1
        position += 1
    return "host"


def is_address(host: str) -> bool:
    """Tell whether a client of kind host is an address and not a name."""
    return _is_ipv4(host) or _is_ipv6(host)


def _is_ipv4(text: str) -> bool:
    return _pton(socket.AF_INET, text) is not None


def _is_ipv6(text: str) -> bool:
    return _pton(socket.AF_INET6, text.partition("%")[0]) is not None


def _pton(family: int, text: str) -> bytes | None:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError, UnicodeError):
        return None


@functools.lru_cache(maxsize=8192)
def network_problem(host: str) -> str | None:
    """Return why exportfs drops a client of kind network, None when it takes it."""
    address, _separator, mask = host.partition("/")
    if _is_ipv4(address):
        if "." in mask:
            return None if _is_ipv4(mask) else f'"{mask}" is not a netmask'
        longest = 32
    elif _is_ipv6(address):
        if ":" in mask:
            return None if _is_ipv6(mask) else f'"{mask}" is not a netmask'
        longest = 128
    else:
        return f'"{address}" is not an IP address'
    length = _to_long(mask) if mask else 0
    if length is None or not 0 <= length <= longest:
        return f'"{mask}" is not a prefix length from 0 to {longest}'
    return None


@functools.lru_cache(maxsize=8192)
def matches_everybody(host: str) -> bool:
    """Tell whether a client specification lets in the whole world."""
    kind = client_kind(host)
    if kind == "anonymous":
        return True
    if kind == "wildcard":
        return not host.strip("*?.")
    if kind == "network":
        mask = host.partition("/")[2]
        if "." in mask or ":" in mask:
            family = socket.AF_INET if "." in mask else socket.AF_INET6
            packed = _pton(family, mask)
            return packed is not None and not any(packed)
        return network_problem(host) is None and not (_to_long(mask) if mask else 0)
    return False


@functools.lru_cache(maxsize=8192)
def client_key(host: str) -> str:
    """Return the name by which exportfs knows a client, names not resolved: what is equal here is one client."""
    kind = client_kind(host)
    if kind == "anonymous":
        return "*"
    if kind == "host" and is_address(host):
        address, percent, scope = host.partition("%")
        return str(ipaddress.ip_address(address)) + percent + scope
    return host.lower()


# --- reading a file --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One path for one client."""

    path: str
    host: str
    meaning: Meaning
    line: int
    lost: bool = False  # has a mistake, or stands behind one: exportfs does not read that far


@dataclass(frozen=True)
class Problem:
    """Something that nfs-utils complains about, or that is a trap."""

    line: int
    text: str
    stops: bool = False  # exportfs reads no further in this file


@dataclass(frozen=True)
class ExportsFile:
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]

    @property
    def effective(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.lost]

    @property
    def lost(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.lost]


_ORDINARY = re.compile(r'[^ \t\n\v\f\r\0"\\]+')
_QUOTED = re.compile(r'[^"\\]+')
_ESCAPE = re.compile(r"\\[0-7]{3}")


class _TooLongError(Exception):
    pass


class _Text:
    """The character stream of nfs-utils: backslash-newline is a blank, a comment starts only where a token may."""

    def __init__(self, data: str) -> None:
        self.data = data
        self.position = 0
        self.line = 1

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.data)

    def skip(self, blanks: str) -> None:
        """Skip blanks, continuations and comments."""
        data = self.data
        while not self.at_end:
            character = data[self.position]
            if character == "#":
                end = data.find("\n", self.position)
                self.position = len(data) if end < 0 else end
                continue  # the newline is looked at like any other character
            if character == "\\" and data[self.position + 1 : self.position + 2] == "\n":
                self._continue_line()
            elif character in blanks or character == "\0":
                self.position += 1
                self.line += character == "\n"
            else:
                return

    def _continue_line(self) -> None:
        self.position += 2
        self.line += 1
        while not self.at_end and self.data[self.position] in " \t":
            self.position += 1

    def token(self, longest: int) -> str | None:
        """Read one token, None when there is none. Raises _TooLongError."""
        data = self.data
        parts: list[str] = []
        quoted = False
        while not self.at_end:
            match = (_QUOTED if quoted else _ORDINARY).match(data, self.position)
            if match is not None:
                parts.append(match.group())
                self.line += match.group().count("\n")
                self.position = match.end()
                continue
            character = data[self.position]
            if character == '"':
                quoted = not quoted
                self.position += 1
            elif character == "\\":
                if data[self.position + 1 : self.position + 2] == "\n":
                    self._continue_line()
                    if not quoted:
                        break
                    parts.append(" ")
                else:
                    parts.append("\\")
                    self.position += 1
            else:  # a character that ends the token; a newline stays for whoever asks next
                if character != "\n":
                    self.position += 1
                break
        text = _unescape("".join(parts), longest)
        return text.partition("\0")[0] if text else None  # a C string ends at its first NUL

    def next_line(self) -> None:
        end = self.data.find("\n", self.position)
        self.position = len(self.data) if end < 0 else end + 1
        self.line += end >= 0


def _unescape(text: str, longest: int) -> str:
    """Replace octal escapes as nfs-utils does: what an escape yields can be a part of the next one."""
    if "\\" not in text:
        if len(text) > longest:
            raise _TooLongError
        return text
    read: list[str] = []
    for character in text:
        if len(read) > longest:
            break
        read.append(character)
        if len(read) >= 4 and read[-4] == "\\" and _ESCAPE.fullmatch("".join(read[-4:])):
            code = int("".join(read[-3:]), 8)
            if code < 256:
                read[-4:] = [chr(code)]
    if len(read) > longest:
        raise _TooLongError
    return "".join(read)


def parse(text: str, dialect: Dialect = NEWEST) -> ExportsFile:
    """Read a file in the format of exports(5), or the effective table etab, which has the same format."""
    # One character a byte while reading: escapes and limits count bytes.
    return _Parser(text.encode("utf-8", "surrogateescape").decode("latin-1"), dialect).parse()


def _decode(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


class _Parser:
    def __init__(self, data: str, dialect: Dialect) -> None:
        self.text = _Text(data)
        self.dialect = dialect
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self.lost = False
        self.read_before: dict[str, tuple[Meaning, str | None]] = {}  # most entries carry the same options

    def parse(self) -> ExportsFile:
        while self._export():
            pass
        return ExportsFile(tuple(self.entries), tuple(self.problems))

    def _stop(self, line: int, text: str) -> None:
        """Note what ends exportfs's reading, and go on behind it to learn which entries are lost."""
        self.problems.append(Problem(line, _decode(text), stops=not self.lost))
        self.lost = True
        self.text.next_line()

    def _complain(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, _decode(text)))

    def _export(self) -> bool:
        """Read one path with its clients; False at the end of the file."""
        text = self.text
        text.skip(" \t\n")
        if text.at_end:
            return False
        line = text.line
        try:
            path = text.token(MAX_PATH)
        except _TooLongError:
            self._stop(line, f"the path is longer than {MAX_PATH} bytes")
            return True
        if path is None:
            self._stop(line, "a line starts with an empty word or a carriage return")
            return True
        if not path.startswith("/"):
            self._complain(line, f'"{path}" is not an absolute path')
        try:
            self._clients(path)
        except _TooLongError:
            self._stop(text.line, f"a client with its options is longer than {MAX_CLIENT} bytes")
        return True

    def _clients(self, path: str) -> None:
        text = self.text
        defaults: _Options | None = None
        named = False
        bare = ""  # a client without options, right before this one
        while True:
            text.skip(" \t")
            line = text.line
            word = text.token(MAX_CLIENT)
            if word is not None and word.startswith("-"):
                defaults = defaults or _Options(self.dialect)
                problem = defaults.read(word[1:])
                if problem is not None:
                    self._stop(line, problem)
                    return
                text.skip(" \t")
                line = text.line
                word = text.token(MAX_CLIENT)
            elif word is None and named:
                return
            host, bracket, rest = (word or "").partition("(")
            inner, closed, behind = rest.partition(")")
            if bracket and (not closed or behind):
                self._stop(line, f'bad option list "({rest}"')
                self._add(path, host or "*", Meaning(), line)
                return
            self._trap(line, path, word or "", bare, has_defaults=defaults is not None)
            if host.startswith("-"):
                # Its buffer keeps such a name, and a path without clients behind it takes that for default options.
                self._complain(line, f'client "{host}" of {path} starts with "-": exportfs can take it for options')
            meaning, problem = self._read(inner, defaults)
            if problem is not None:
                self._stop(line, problem)
            # Behind a mistake it is among the lost ones: so is the export with the mistake itself.
            self._add(path, host if host or not bracket else "*", meaning, line)
            if problem is not None:
                return
            named = True
            bare = host if not bracket else ""

    def _trap(self, line: int, path: str, word: str, bare: str, *, has_defaults: bool) -> None:
        """Complain of a client that is not what its author meant."""
        world = f"exports {path} to the whole world"
        if not word:
            self._complain(line, f"{path} names no client: {world}")
        elif word.startswith("(") and bare:
            if not has_defaults:
                self.problems.pop()  # that `bare` has no options is a part of this
            self._complain(
                line,
                f'space between "{bare}" and "{word}": {world} with "{word}", to "{bare}" with default options',
            )
        elif word.startswith("("):
            self._complain(line, f'no client before "{word}": {world}')
        elif "(" not in word and not has_defaults:
            self._complain(line, f'client "{word}" of {path} has no options; write "{word}(...)"')

    def _read(self, inner: str, defaults: _Options | None) -> tuple[Meaning, str | None]:
        if defaults is not None:
            options = defaults.copy()
            problem = options.read(inner)
            return _decoded(options.meaning()), problem
        if inner not in self.read_before:
            meaning, problem = read_options(inner, self.dialect)
            self.read_before[inner] = (_decoded(meaning), problem)
        return self.read_before[inner]

    def _add(self, path: str, host: str, meaning: Meaning, line: int) -> None:
        if client_kind(host) == "network":
            problem = network_problem(host)
            if problem is not None:
                self._complain(line, f'client "{host}" of {path} is dropped: {problem}')
                return
        self.entries.append(Entry(_decode(path), _decode(host), meaning, line, lost=self.lost))


def _decoded(meaning: Meaning) -> Meaning:
    """Turn the few values that may hold any byte from bytes into text."""
    locations = meaning.locations
    if meaning.mountpoint is None and meaning.uuid is None and locations is None:
        return meaning
    return replace(
        meaning,
        uuid=None if meaning.uuid is None else _decode(meaning.uuid),
        mountpoint=None if meaning.mountpoint is None else _decode(meaning.mountpoint),
        locations=None if locations is None else (locations[0], _decode(locations[1])),
    )


# --- writing ---------------------------------------------------------------------------------------------


def escape(word: str) -> str:
    """Write a path or a client specification as one token."""
    written: list[str] = []
    after_backslash = False
    for character in word:
        # Digits behind an escaped backslash would be read as one more escape.
        plain = character > " " and character not in '"\\#\x7f' and not (after_backslash and character in "01234567")
        after_backslash = character == "\\" or (after_backslash and character in "01234567")
        written.append(character if plain else f"\\{ord(character):03o}")
    return "".join(written)


def format_export(path: str, clients: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Write one path with its clients (host, options) as a line, without the newline."""
    words = [escape(path)]
    for host, options in clients:
        # "host" without brackets is complained about by exportfs; brackets say that defaults are meant.
        words.append(escape(f"{host or '*'}({','.join(options)})"))
    return " ".join(words)
