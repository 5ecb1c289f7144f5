# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring one exports file and the effective table of a server in line with a list.

exportfs has no dry run and its exit status misleads both ways, so: everything is checked before, and afterwards
the table alone is the judge. What is not effective is rolled back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_clients,
    _export_host,
    _export_list,
    _export_mounts,
    _export_options,
    _export_order,
    _export_table,
    _exports,
    _files,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_command import Exportfs
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._export_list import Export
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._export_table import ForeignFile, Key, Plan, Rules
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._host_module import HostError, reading, refused


@dataclass(frozen=True)
class Request:
    exports: Sequence[Mapping[str, Any]]
    file: str
    allow_world: bool = False
    allow_takeover: bool = False
    default_mountpoint: bool = True
    timeout: float = 30.0
    check_mode: bool = False


@dataclass
class Outcome:
    changed: bool = False
    exports: list[dict[str, Any]] = field(default_factory=list)
    withdrawn: list[dict[str, str]] = field(default_factory=list)
    foreign: list[dict[str, Any]] = field(default_factory=list)
    file_changed: bool = False
    table_changed: bool = False
    order_changed: bool = False
    file_systems: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


def file_problem(file: str, places: Places) -> str | None:
    """Return why exportfs would not read a file, None when it would."""
    if file == places.exports:
        return None
    folder, name = os.path.split(file)
    if folder == places.folder and name.endswith(".exports") and not name.startswith(".") and name != ".exports":
        return None
    return f'file: "{file}" is not read by exportfs; use {places.exports} or {places.folder}/NAME.exports'


def ensure_exports(request: Request, places: Places) -> Outcome:
    """Do what the request says. Raises HostError."""
    problem = file_problem(request.file, places)
    if problem is not None:
        raise refused([problem])
    with contextlib.ExitStack() as stack:
        if not request.check_mode:
            try:
                # Each run judges the table that it made.
                stack.enter_context(_files.locked(places.lock, request.timeout))
            except TimeoutError as error:
                raise refused(["another run changes the exports of this machine"]) from error
        with reading():
            run = _Run(request, places)
        return run.do()


class _Run:
    def __init__(self, request: Request, places: Places) -> None:
        self.request = request
        self.places = places
        self.outcome = Outcome()
        self.exportfs = Exportfs(places.path, request.timeout)
        self.exportfs.warnings = self.outcome.warnings
        folder, name = os.path.split(request.file)
        # Holds the file's old content while a change is under way: a run that was killed in between leaves
        # exports in the table that no file has any more, and this says that they were ours.
        self.previous = f"{folder}/.{name}.clusterkit-previous"
        self.old = _files.read_text(request.file)
        self.past = [text for text in (self.old, _files.read_text(self.previous)) if text is not None]

    def do(self) -> Outcome:
        request, outcome = self.request, self.outcome
        foreign_texts = _export_host.exports_files(self.places)
        foreign_texts.pop(request.file, None)
        dialect = self._dialect([str(request.exports), *foreign_texts.values()])
        exports, problems = _export_list.read_list(request.exports, allow_world=request.allow_world, dialect=dialect)
        problems += self._directory_problems(exports)
        problems += self._takeover_problems()
        if not self.exportfs.is_installed:
            missing = "exportfs is not installed here (package nfs-kernel-server or nfs-utils)"
            if not request.check_mode:
                problems.append(missing)
            else:
                outcome.warnings.append(f"{missing}: this is a prediction")

        foreign = [_export_table.read_foreign(path, text, dialect) for path, text in foreign_texts.items()]
        for file in foreign:
            outcome.warnings += file.warnings()
        past = [entry for text in self.past if self._owned(text) for entry in _exports.parse(text, dialect).entries]
        self.dialect = dialect
        entries = self._read_table()
        self.rules, unresolved = self._rules(exports, foreign, past, entries)
        problems += unresolved
        problems += _export_table.clashes(exports, foreign, self.rules)
        mounts = _export_host.mounts_of(self.places, (self.rules.real_paths[each.path] for each in exports))
        if request.default_mountpoint:
            exports = _export_mounts.guarded(exports, self.rules.real_paths, mounts, dialect)
        others = [entry for file in foreign for entry in file.read.effective]
        outcome.warnings += _export_list.warnings(exports)
        problems += _export_mounts.problems(exports, others, past, self.rules.real_paths, mounts)
        if problems:
            raise refused(problems, outcome.warnings)

        wanted = {
            self.rules.key(export.path, client.host): client.meaning for export in exports for client in export.clients
        }
        plan = _export_table.make_plan(
            wanted,
            [self.rules.key(entry.path, entry.host) for entry in past],
            self.rules.table(entry for file in foreign for entry in file.read.effective),
            self.rules.table(entries),
        )
        problems = self._world_by_others(plan)
        if problems:
            raise refused(problems, outcome.warnings)
        new = self._new_content(exports)
        outcome.file_changed = new is not None and new != self.old
        outcome.table_changed = not plan.table_is_right
        outcome.changed = outcome.file_changed or outcome.table_changed
        self._warn_of_others(plan)
        if outcome.changed and not request.check_mode:
            table = self._change(plan, new if outcome.file_changed else None)
        else:
            table = plan.after
        if not request.check_mode:
            _remove_quietly(self.previous)
        outcome.file_systems = _export_host.file_systems(
            mounts, [self.rules.real_paths[export.path] for export in exports]
        )
        if new is not None:
            paths = [self.rules.real_paths[export.path] for export in exports]
            self._order(_export_mounts.drop_in(_export_mounts.mount_points(paths, mounts)))
        self._report(plan, exports, table, new)
        return outcome

    # --- what is there -----------------------------------------------------------------------------------

    def _dialect(self, texts: Iterable[str]) -> Dialect:
        """Ask the server for its version, but only when an option is in use for which it matters."""
        flags = _export_host.flavor_flags(self.places)
        if not any(name in text for text in texts for name in _export_options.SINCE):
            return Dialect(flavor_flags=flags)
        return Dialect(
            _export_host.nfs_utils_version(self.places.path, self.request.timeout) or _export_options.NEWEST.version,
            flags,
        )

    def _read_table(self) -> list[Entry]:
        """Return the effective table."""
        text = _files.read_text(self.places.table)
        return _exports.parse(text or "", self.dialect).effective

    def _owned(self, text: str) -> bool:
        return _export_list.is_ours(text) or self.request.allow_takeover

    def _takeover_problems(self) -> list[str]:
        if not self.request.exports or self.old is None or self._owned(self.old):
            return []
        count = len(_exports.parse(self.old).entries)
        if not count:
            return []
        return [
            f"file: {self.request.file} was not written by this module and holds {count} exports; "
            "move them elsewhere, or say allow_takeover: true to have the file replaced"
        ]

    def _directory_problems(self, exports: Sequence[Export]) -> list[str]:
        problems = []
        missing = []
        for export in exports:
            try:
                if not Path(export.path).is_dir():
                    os.stat(export.path)  # noqa: PTH116 - for the error that is_dir swallows
                    problems.append(f"{export.label}.path: {export.path} is not a directory")
            except FileNotFoundError:
                missing.append(export.path)
                problems.append(f"{export.label}.path: {export.path} does not exist")
            except (OSError, ValueError) as error:
                problems.append(f"{export.label}.path: {export.path}: {error}")
        if missing and self.request.check_mode:
            # Whoever calls this module after the one that makes directories gets a prediction from both.
            self.outcome.warnings.append(f"these directories do not exist yet: {', '.join(sorted(set(missing)))}")
            return [problem for problem in problems if not problem.endswith(" does not exist")]
        return problems

    def _rules(
        self, exports: Sequence[Export], foreign: Sequence[ForeignFile], past: Sequence[Entry], table: Sequence[Entry]
    ) -> tuple[Rules, list[str]]:
        """Resolve names and links as exportfs will; return what of the list cannot be resolved."""
        others = [*past, *table, *(entry for file in foreign for entry in file.read.effective)]
        asked = {client.host: client.label for export in exports for client in export.clients}
        names = _export_table.host_names([*asked, *(entry.host for entry in others)])
        addresses, failed = _export_host.resolve(names, self.request.timeout)
        problems = [
            f'{label}.host: "{host}" cannot be resolved here: {failed[host.lower()]}'
            for host, label in asked.items()
            if host.lower() in failed
            and _export_list.host_problem(host, allow_world=True) is None  # otherwise it has been named already
        ]
        paths = {export.path for export in exports} | {entry.path for entry in others}
        real = {path: os.path.realpath(path) for path in paths if "\0" not in path}
        return Rules(_export_table.Clients(addresses), real), problems

    # --- what to do --------------------------------------------------------------------------------------

    def _new_content(self, exports: Sequence[Export]) -> str | None:
        """Return what the file shall hold, None when it is not ours to touch."""
        if not exports and (self.old is None or not self._owned(self.old)):
            return None
        return _export_list.content(exports)

    def _world_by_others(self, plan: Plan) -> list[str]:
        """Return foreign exports to everybody that are not in force yet, and would be by this run."""
        if self.request.allow_world or plan.table_is_right:
            return []
        return [
            f"{key} stands in a file that is not ours and is not effective yet; re-exporting would let in everybody: "
            "correct that file first, or say allow_world: true"
            for key in plan.pending
            if key not in plan.before and _export_clients.matches_everybody(key.client)
        ]

    def _warn_of_others(self, plan: Plan) -> None:
        for key in plan.uninvited:
            self.outcome.warnings.append(f"{key} is exported, but neither listed nor in any file: it is withdrawn")
        for key in plan.by_hand:
            self.outcome.warnings.append(f"{key} is exported, but in no file: it is left alone")
        if plan.pending and not plan.table_is_right:
            self.outcome.warnings += [
                f"{key} stands in a file that is not ours and was not effective as written: re-exporting makes it so"
                for key in plan.pending
            ]

    def _change(self, plan: Plan, content: str | None) -> dict[Key, Meaning]:
        """Write, re-export, look; take it back when it did not work. Return the table."""
        if content is not None:
            self._write(content)
        if plan.table_is_right:
            return plan.before
        failures = self._re_export(plan, plan.leftover)
        table = self.rules.table(self._read_table())
        failures += plan.failures(table)
        if not failures:
            return table

        if content is not None:
            if self.old is None:
                _files.remove_file(self.request.file)
            else:
                _files.replace_file(self.request.file, self.old)
        more = self._re_export(plan, [key for key in table if key not in plan.before])
        left = self.rules.table(self._read_table())
        _remove_quietly(self.previous)
        changed = left != plan.before
        what = "the old file is back" if content is not None else "the file was right and is untouched"
        if changed:
            different = {key for key in {*left, *plan.before} if left.get(key) != plan.before.get(key)}
            what += ", but not the old table: " + ", ".join(f"{key}" for key in sorted(different))
        raise HostError(
            f"the exports did not become effective as listed ({what}): " + "; ".join(failures),
            failures,
            changed=changed,
            warnings=[*self.outcome.warnings, *more],
        )

    def _write(self, content: str) -> None:
        try:
            Path(self.request.file).parent.mkdir(mode=0o755, exist_ok=True)
            if self.old is not None:
                _files.replace_file(self.previous, self.old, mode=0o600)
            _files.replace_file(self.request.file, content)
        except OSError as error:
            _remove_quietly(self.previous)
            raise refused([f"{self.request.file} cannot be written: {error}"], self.outcome.warnings) from error

    def _re_export(self, plan: Plan, withdraw: Sequence[Key]) -> list[str]:
        """Have the files read again; return what makes exports of ours useless."""
        paths = {key.path for key in plan.wanted}
        if not plan.by_hand:
            return self.exportfs.read_again(paths)
        # To make the table what the files say would withdraw what somebody exported by hand (a cluster manager does)
        # or what stands behind a mistake in a foreign file; so what has to go is named.
        failures = self.exportfs.add(paths)
        there = {self.rules.key(entry.path, entry.host): entry for entry in self._read_table()}
        return failures + self.exportfs.withdraw([there[key] for key in withdraw if key in there], paths)

    def _order(self, content: str | None) -> None:
        """Have systemd start the server after the mounts that exports lie on."""
        outcome = self.outcome
        try:
            order = _export_order.Order(self.request.file, content, self.places, self.request.timeout)
            if not order.changed:
                return
            outcome.order_changed = outcome.changed = True
            if order.file_changed:
                outcome.diff.append(_diff(order.path, order.old or "", content or ""))
            if not self.request.check_mode:
                order.apply()
        except _export_order.OrderError as error:
            raise self._not_ordered(str(error)) from error

    def _not_ordered(self, why: str) -> HostError:
        problem = f"the exports are effective, but nfs-server is not ordered after the mounts that they lie on: {why}"
        return HostError(problem, [problem], changed=self.outcome.changed, warnings=self.outcome.warnings)

    # --- what to tell ------------------------------------------------------------------------------------

    def _report(self, plan: Plan, exports: Sequence[Export], table: Mapping[Key, Meaning], new: str | None) -> None:
        outcome = self.outcome
        for export in exports:
            clients: list[dict[str, Any]] = []
            for client in export.clients:
                key = self.rules.key(export.path, client.host)
                options = table[key].options() if key in table else []
                clients.append({"host": client.host, "options": options, "changed": key in plan.wrong})
            changed = any(client["changed"] for client in clients)
            outcome.exports.append({"path": export.path, "clients": clients, "changed": changed})
        outcome.withdrawn = [
            {"path": key.path, "host": key.client}
            for key in sorted(plan.before)
            if key in plan.ours and key not in table
        ]
        outcome.foreign = [
            {"path": key.path, "host": key.client, "options": table[key].options()}
            for key in sorted(table)
            if key not in plan.ours
        ]
        if outcome.file_changed:
            outcome.diff.append(_diff(self.request.file, self.old or "", new or ""))
        if outcome.table_changed:
            outcome.diff.append(_diff("effective exports", _export_table.show(plan.before), _export_table.show(table)))


def _diff(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _remove_quietly(path: str) -> None:
    if os.path.lexists(path):
        _files.remove_file(path)
