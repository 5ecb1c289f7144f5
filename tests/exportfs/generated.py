# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated exports files, and the comparison of the reader of exports(5) with what exportfs made of them."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable, Iterable

from ansible_collections.clusterkit.storage.plugins.module_utils import _export_clients, _export_options, _exports
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry

Key = tuple[str, str]

FOLDER = "/srv/differential"
DIRECTORIES = ("a", "b", "c", "d d", "e#e", 'f"f', "ü", "deep/er")
HOSTS = {"alpha": "10.1.0.1", "alpha.example.com": "10.1.0.1", "beta": "10.1.0.2"}
PATHS = [
    *(
        "a",
        "b",
        "c",
        '"d d"',
        r"d\040d",
        r"e\043e",
        "e#e",
        r"f\042f",
        "ü",
        r"\303\274",
        "deep/er",
        "deep//er",
        "deep/er/",
    ),
    *("link", "missing", "file", "./b", '"a"', r"\134"),
    *("x" * (_exports.MAX_PATH - len(FOLDER) - 1 + more) for more in (-1, 0, 1)),
]
CLIENTS = [
    *("*", "", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "10.0.0.0/255.0.255.0", "10.0.0.5", "10.0.0.0/33", "10.0.0.0/x"),
    *("10.0.0.0/", "10.0.0.0/+8", "10.300.0.0/16", "10.4/16", "2001:db8::/32", "2001:DB8::1", "2001:db8:0::1"),
    *("2001:db8::/129", "2001:db8::/ffff:ffff::", "@group", "@GROUP", "*.example.com", "host[0-9]", "al?ha"),
    *("alpha", "alpha.example.com", "beta", "nowhere", "gss/krb5", "10.1.0.1", "a/b", "a\\/b", "-x"),
]
OPTIONS = [
    *_export_options.FLAG_OPTIONS,
    *("anonuid=0", "anonuid=150", "anonuid=-2", "anonuid=4294967294", "anonuid=x", "anonuid=", "anonuid= 5"),
    *(
        "anongid=100",
        "anongid=99999999999999999999",
        "fsid=0",
        "fsid=root",
        "fsid=7",
        "fsid=0x10",
        "fsid=010",
        "fsid=08",
    ),
    *("fsid=-1", "fsid=12345678-1234-1234-1234-123456789abc", "fsid=12345678901234567890123456789012", "fsid=abc"),
    *("fsid=", "fsid", "mountpoint", "mp", "mp=/srv", "mountpoint=/srv/t", "mountpoint=", "refer=/a@h"),
    *(r"refer=/a\040b@h:/c@i+j", "replicas=/x@y", "sec=sys", "sec=krb5", "sec=krb5:krb5i:sys", "sec=unix"),
    *("sec=null:none", "sec=krb6", "sec=", "xprtsec=tls", "xprtsec=tls:mtls", "xprtsec=none", "xprtsec=tlx"),
    *("reexport=x", "rww", "", "ro ", " rw", "RW", "no_root_sqash", "rw=1"),
]
# What exportfs says about the machine, not about the file.
NOT_ABOUT_THE_FILE = re.compile(
    r"Failed to stat|is not a directory|duplicated export entries|\[IGNORED\]|^exportfs: \t|^\s*$|Failed to resolve"
    r"|No such file|Invalid argument|subtree_check|NOTE: this default"
)


class Generator:
    def __init__(self, seed: int, dialect: Dialect) -> None:
        self.random = random.Random(seed)  # noqa: S311 - not a secret
        self.good = [word for word in OPTIONS if word and _export_options.read_options(word, dialect)[1] is None]
        self.bad = 0.0

    def file(self) -> str:
        self.bad = self.random.choice([0, 0.02, 0.1, 0.3])
        lines = [self.line() for _number in range(self.random.choice([1, 2, 3, 6]))]
        return "\n".join(lines) + self.random.choice(["\n", "\n", ""])

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability

    def line(self) -> str:
        if self.happens(0.08):
            return self.random.choice(["# comment \\", "#", "", "   ", "\t# x"])
        path = self.random.choice(PATHS)
        line = f'"{FOLDER}/{path[1:]}' if path.startswith('"') else f"{FOLDER}/{path}"
        for _number in range(self.random.choice([0, 1, 1, 1, 2, 3] if self.bad else [1, 1, 2, 3])):
            if self.happens(0.12):
                line += self.blank() + "-" + self.options()
            line += self.blank() + self.client()
        if self.happens(self.bad / 3):
            line += self.blank() + "-" + self.options()
        if self.happens(0.1):
            line += self.random.choice([" # c", " #c(rw)", "\\\n", " ", "\r", " \r"])
        if self.happens(self.bad / 3):
            place = self.random.randrange(len(line) + 1)
            line = line[:place] + self.random.choice('"\\#() \t\n,-*\v') + line[place + self.random.randrange(2) :]
        return line

    def blank(self) -> str:
        return self.random.choice([" ", " ", "\t", "  ", " \\\n ", "\\\n"])

    def client(self) -> str:
        host, options = self.random.choice(CLIENTS), self.options()
        if not self.happens(self.bad * 4):
            return f"{host}({options})"
        return self.random.choice(
            [
                f"{host} ({options})",
                host,
                f"{host}({options}",
                f"{host}({options})x",
                f'"{host}({options})"',
                f"{host}({options})".replace("/", "\\057"),
            ]
        )

    def options(self) -> str:
        count = self.random.choice([0, 1, 1, 2, 3, 5, 9])
        return ",".join(self.random.choice(OPTIONS if self.happens(self.bad) else self.good) for _n in range(count))


def address(host: str) -> str | None:
    """Return the address of a name that exportfs resolves: numbers such as 5 are addresses, too."""
    if host in HOSTS:
        return HOSTS[host]
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if host and " " not in host else None
    except (OSError, UnicodeError):
        return None


def key(path: str, host: str) -> Key:
    if _export_clients.client_kind(host) == "host":
        return path, address(host) or _export_clients.client_key(host)
    return path, _export_clients.client_key(host) if host else ""  # exportfs keeps "" and "*" apart


def resolvable(entry: Entry) -> bool:
    named = _export_clients.client_kind(entry.host) == "host" and not _export_clients.is_address(entry.host)
    return not named or address(entry.host) is not None


def breaks_the_table(entry: Entry) -> bool:
    """exportfs writes these without escapes, and cannot read its own table then; or what it does is left to chance."""
    written = entry.host + (entry.meaning.mountpoint or "") + (entry.meaning.uuid or "")
    return bool(re.search(r"\s", written)) or entry.host.startswith("-")


def words_of_the_table(line: str) -> tuple[set[str], list[tuple[str, set[str]]]]:
    """Read a line of the table without the reader under test: its general options, and its flavors."""
    inner = line[line.rindex("\t") :].partition("(")[2][:-1]
    inner = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), inner)
    inner = re.sub(r"((?:anonuid|anongid|fsid)=)(-\d+)", lambda m: f"{m.group(1)}{int(m.group(2)) % 2**32}", inner)
    general, _separator, flavors = inner.partition(",xprtsec=")[0].partition(",sec=")
    read = []
    for group in flavors.split(",sec="):
        names, _separator, flags = group.partition(",")
        read += [(_export_options.FLAVORS[name], set(flags.split(","))) for name in names.split(":")]
    return set(general.split(",")) - ACCESS_WORDS, read


ACCESS_WORDS = {
    word for word, (flag, _value) in _export_options.FLAG_OPTIONS.items() if flag in _export_options.FLAVOR_FLAGS
}


CLEARED = {"ro": "rw", "insecure": "secure", "root_squash": "no_root_squash", "all_squash": "no_all_squash"}


def words_of_a_meaning(meaning: Meaning, dialect: Dialect) -> tuple[set[str], list[tuple[str, set[str]]]]:
    general = {word for word in meaning.options() if not word.startswith(("sec=", "xprtsec="))} - ACCESS_WORDS
    flavors = [
        (flavor.name, {flag if flag in flavor.flags else CLEARED[flag] for flag in dialect.flavor_flags})
        for flavor in meaning.flavors
    ]
    return general, flavors


Answer = tuple[list[str], list[str]]  # what exportfs complains of, and the lines of its table


def read_answer(stderr: bytes, table: bytes) -> Answer:
    # A complaint that quotes a name with a line break has several lines.
    complaints = re.split(r"\n(?=exportfs: |\s|$)", stderr.decode("utf-8", "replace"))
    lines = table.decode("utf-8", "surrogateescape").split("\n")
    return [line for line in complaints if not NOT_ABOUT_THE_FILE.search(line)], [line for line in lines if line]


def compare(files: Iterable[tuple[str, Answer]], dialect: Dialect, real_path: Callable[[str], str]) -> tuple[int, int]:
    """Compare every file; return how many were compared, and how many exportfs had no complaint about."""
    compared = clean = 0
    for text, (complaints, lines) in files:
        read = _exports.parse(text, dialect)
        if complaints:
            assert read.problems, (text, complaints)
        if any(breaks_the_table(entry) for entry in read.effective):
            continue
        compared += 1
        clean += not complaints
        expected: dict[Key, Meaning] = {}
        for entry in filter(resolvable, read.effective):
            expected.setdefault(key(real_path(entry.path), entry.host), entry.meaning)
        found = {}
        for line in lines:
            [entry] = _exports.parse(f"{line}\n", dialect).effective
            found[key(entry.path, "" if "\t(" in line else entry.host)] = (entry.meaning, line)
        assert set(expected) == set(found), text
        for one, meaning in expected.items():
            there, line = found[one]
            assert _export_options.differences(meaning, there) == [], (text, line)
            general, flavors = words_of_a_meaning(meaning, dialect)
            if meaning.uuid is not None:  # the number beside it is spoilt by exportfs, see _Options.meaning
                general = {word for word in general if not word.startswith("fsid=")}
            seen_general, seen_flavors = words_of_the_table(line)
            assert general <= seen_general, (text, line)
            assert seen_general - general <= {word for word in seen_general if word.startswith("fsid=")}, (text, line)
            assert flavors == seen_flavors, (text, line)
    return compared, clean
