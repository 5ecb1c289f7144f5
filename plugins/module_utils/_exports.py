# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exports(5): read a file as exportfs does, and write one.

The reader has the habits of nfs-utils, traps included, because foreign files must be judged by what they do,
not by what their authors meant. Rules that only concern exports of ours are in _export_list.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ansible_collections.clusterkit.storage.plugins.module_utils._export_clients import client_kind, network_problem
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import (
    NEWEST,
    Dialect,
    Meaning,
    Options,
    read_options,
)

# Limits of nfs-utils, in bytes: NFS_MAXPATHLEN, and the buffer for one client with its options.
MAX_PATH = 1024
MAX_CLIENT = 511


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
        defaults: Options | None = None
        named = False
        bare = ""  # a client without options, right before this one
        while True:
            text.skip(" \t")
            line = text.line
            word = text.token(MAX_CLIENT)
            if word is not None and word.startswith("-"):
                defaults = defaults or Options(self.dialect)
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

    def _read(self, inner: str, defaults: Options | None) -> tuple[Meaning, str | None]:
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
