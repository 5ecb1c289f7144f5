# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quarantine directories of volumes, bring them back, remove them for good: the only code that does.

Every step is a few renames between moments at which everything is flushed, so that a run may be ended anywhere: what
was a volume's data is in its place, or in quarantine beside a manifest, or is being removed after its time. The
next run first brings what was left half done to its end, or takes it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _tree_removal
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    identity,
    look,
    open_below,
    parts_below,
    rename_to_free_name,
    sync,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import (
    DATA,
    MANIFEST,
    MANIFESTS,
    PURGING,
    RESTORING,
    Entry,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    RESTORED,
    Folder,
    Places,
    intent_name,
    names_in,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import first_below
from ansible_collections.clusterkit.storage.plugins.module_utils._times import days, seconds_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import Request, Step
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_quarantine import Quarantine
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_recovery import finish_return, recover
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs_result import (
    Outcome,
    Stop,
    across,
    not_planned,
    words,
)


def run(request: Request, places: Places) -> Outcome:
    """Do what the request says. Raises ValueError for what concerns all of it; nothing is changed then."""
    with contextlib.ExitStack() as stack:
        return _Run(request, places, stack).do()


class _Run(Quarantine):
    """A run of any state."""

    def do(self) -> Outcome:
        self._find_shares()
        if self.request.state == "present":
            self._present()
            return self.outcome
        for folder in self.folders.values():
            self._guard(folder, folder.open, create=False)
        try:
            if not self.request.check_mode:
                self._begin()
            self._read_surroundings()
            if not self.request.check_mode:
                self._recover()
            self._steps()
        finally:
            self._end()
        self._conclude()
        return self.outcome

    def _steps(self) -> None:
        actions: dict[str, Callable[[Sequence[Step]], None]] = {
            "intended": self._intend,
            "quarantined": self._quarantine,
            "restored": lambda steps: self._one_by_one(steps, self._restore),
            "purged": self._purge_all,
            "closed": lambda steps: self._one_by_one(steps, self._close_intent),
        }
        actions[self.request.state](self.request.steps)

    # --- restored --------------------------------------------------------------------------------------

    def _entry(self, step: Step) -> tuple[Entry, str, dict[str, Any]]:
        """Return the open entry of a step with its state and manifest. Raises Stop."""
        folder = self._folder(step)
        entry = folder.open_entry(step.entry or "")
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "is not in quarantine", step.entry)
        try:
            state = entry.read()
            if state is None:
                raise Stop("failed", f"{step.entry} has no manifest")
            name, manifest = state
            if manifest["share"] != self.shares[step.share].key:
                raise Stop("refused", f"{step.entry} was quarantined from the share {manifest['share']!r}")
            mine, its = self.request.cluster_uid, manifest.get("cluster_uid")
            if mine and its and mine != its:
                raise Stop("refused", f"{step.entry} belongs to the cluster {its}")
            data = entry.data()
            if data is not None and step.precondition != identity(data):
                raise Stop("stale", not_planned(step, data))
        except BaseException:
            entry.close()
            raise
        return entry, name, manifest

    def _restore(self, step: Step) -> None:
        try:
            entry, state, manifest = self._entry(step)
        except FileNotFoundError:
            if self._is_back(step):
                return
            raise
        with entry:
            data = entry.data()
            if state != MANIFEST or data is None:
                stage = MANIFESTS[state]
                raise Stop("refused", f"{step.entry} is {stage}, and cannot be brought back whole")
            if manifest["scope"] == "directory" and data.st_ino != manifest["inode"]:
                raise Stop("refused", f"what lies in {step.entry} is not what its manifest says")
            folder = self._folder(step)
            share = self.shares[step.share]
            below = self._target(step, manifest)
            if not below and manifest["scope"] == "directory":
                raise Stop("refused", f"{step.share} is the root of the share, and there already")
            target = f"{step.share}/{'/'.join(below)}" if below else step.share
            try:
                if manifest["scope"] == "content":
                    parent, name = open_below(folder.base, (*share.parts, *below)), ""
                else:
                    parent, name = open_below(folder.base, (*share.parts, *below[:-1])), below[-1]
            except FileNotFoundError as error:
                raise Stop("refused", f"{error.filename} is not there any more; make it first") from error
            try:
                if name and look(parent, name) is not None:
                    raise Stop("refused", f"{target} is there already")
                if not self.request.check_mode:
                    entry.set_state(MANIFEST, RESTORING)
                    self._bring_back(folder, entry, manifest, parent, name)
            finally:
                os.close(parent)
        self._tell(step, "changed")
        self._differ(f"{folder.base_path}/{OWN}/trash/{step.entry}", target)

    def _target(self, step: Step, manifest: Mapping[str, Any]) -> tuple[str, ...]:
        if step.directory:
            return self._path_below(step)
        return parts_below(step.share, f"{step.share}/{manifest['below']}" if manifest["below"] else step.share)

    def _is_back(self, step: Step) -> bool:
        """Tell of a step that was done before, and say so."""
        folder = self._folder(step)
        finished = {each["entry"] for each in self.outcome.recovered if each["base"] == folder.base_path}
        kept = {each.get("entry") for each in self._intents(folder) if each["kind"] == "Manifest"}
        there = step.entry in finished | kept
        if not there and step.directory:
            with contextlib.suppress(NotBeneath, OSError, Stop):
                parent, _name, _found, descriptor = self._find_directory(step)
                os.close(parent)
                os.close(descriptor)
                there = True
        if there:
            self._tell(step, "unchanged", "is in its place")
        return there

    def _bring_back(self, folder: Folder, entry: Entry, manifest: Mapping[str, Any], parent: int, name: str) -> None:
        problems: list[str] = []
        is_out = False
        try:
            if manifest["scope"] == "content":
                problems = _return_content(entry, parent)
            else:
                rename_to_free_name(entry.descriptor, DATA, parent, name)
            is_out = not problems
            self._flush({parent, entry.descriptor})
        except OSError as error:
            # When all of it is in its place, and only that could not be flushed, the next run finishes it.
            if not is_out:
                entry.set_state(RESTORING, MANIFEST)
            raise across(error) from error
        if problems:
            entry.set_state(RESTORING, MANIFEST)
            more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
            reason = f"{len(problems)} names stay in quarantine: {'; '.join(problems[:5])}{more}"
            raise Stop("failed", reason, changed=True)
        finish_return(folder, entry, manifest)

    # --- purged ----------------------------------------------------------------------------------------

    def _purge_all(self, steps: Sequence[Step]) -> None:
        self._one_by_one(steps, self._purge)
        asked = {(self.shares[step.share].base, step.entry) for step in steps}
        for base, folder in self.folders.items():
            for name in folder.entry_names() if folder.exists else ():
                if (base, name) in asked:
                    continue
                step = self._begun(base, folder, name)
                if step is not None:
                    self._one_by_one([step], self._purge)

    def _begun(self, base: str, folder: Folder, name: str) -> Step | None:
        """Return the step that goes on with a purge that an earlier run had begun."""
        with contextlib.suppress(FolderError, NotBeneath, OSError):
            entry = folder.open_entry(name)
            if entry is not None:
                with entry:
                    state, data = entry.read(), entry.data()
                if state is None or state[0] != PURGING:
                    return None
                for share in self.shares.values():
                    if share.base == base and share.key == state[1]["share"]:
                        number = len(self.outcome.items) + len(self.request.steps)
                        here = identity(data) if data is not None else None
                        reason = "had been begun by an earlier run"
                        return Step(number, "", share.path, None, state[1]["scope"], name, None, None, here, reason)
        return None

    def _purge(self, step: Step) -> None:
        try:
            entry, state, manifest = self._entry(step)
        except FileNotFoundError:
            self._tell(step, "unchanged", "is not in quarantine any more")
            return
        folder = self._folder(step)
        where = f"{folder.base_path}/{OWN}/trash/{step.entry}"
        with entry:
            data = entry.data()
            if state == RESTORING:
                raise Stop("refused", f"{step.entry} is on its way back")
            if state == MANIFEST:
                self._check_age(manifest)
                if data is None or not stat.S_ISDIR(data.st_mode):
                    raise Stop("refused", f"there is no directory in {step.entry}")
                if manifest["scope"] == "directory" and data.st_ino != manifest["inode"]:
                    raise Stop("refused", f"what lies in {step.entry} is not what its manifest says")
            below = first_below(self.mount_points, where)
            if below:
                raise Stop("refused", f"{below} is a mount point in it")
            removal = _tree_removal.Removal()
            if data is not None:
                descriptor = open_below(entry.descriptor, [DATA])
                try:
                    self._check_open_state(descriptor, folder)
                    if not self.request.check_mode:
                        if state == MANIFEST:
                            entry.set_state(MANIFEST, PURGING)
                        removal = _tree_removal.remove_content(descriptor, lambda: self._renew(folder, begun=True))
                finally:
                    os.close(descriptor)
            if removal.failures:
                shown = "; ".join(removal.problems[:5])
                reason = f"{removal.failures} of it cannot be removed: {shown}"
                self._tell(step, "failed", reason, changed=bool(removal.files or removal.directories))
                return
            if not self.request.check_mode:
                if data is not None:
                    os.rmdir(DATA, dir_fd=entry.descriptor)
                folder.remove_entry(entry)
                sync(folder.trash)
        self._tell(step, "changed")
        self._differ(where, "absent")

    def _check_age(self, manifest: Mapping[str, Any]) -> None:
        if self.request.allow_purge_now:
            return
        age = self.places.now() - seconds_of(manifest["quarantined_at"])
        then, now = manifest.get("controller_time"), self.request.controller_time
        if then is not None and now is not None:
            # Two clocks: it has to be old by both.
            age = min(age, now - then)
        if age < 0:
            raise Stop(
                "refused", f"it was quarantined at {manifest['quarantined_at']}, which is still to come: the clock of "
                "this server was, or is, wrong",
            )  # fmt: skip
        if age < self.request.retention:
            raise Stop(
                "refused",
                f"it is in quarantine for {days(age)}, and the retention is {days(self.request.retention)}",
            )

    # --- closed ----------------------------------------------------------------------------------------

    def _close_intent(self, step: Step) -> None:
        if step.volume is None:
            raise AssertionError("checked with the arguments")
        folder = self._folder(step)
        name = intent_name(step.volume)
        found = [each for each in (name, RESTORED + name) if folder.exists and look(folder.intents, each) is not None]
        if not found:
            self._tell(step, "unchanged", "there is no open intent")
            return
        if not self.request.check_mode:
            for each in found:
                os.unlink(each, dir_fd=folder.intents)
            sync(folder.intents)
        self._tell(step, "changed")
        self._differ(f"{step.item}: open intent", f"{step.item}: no intent")

    # --- what an earlier run left half done --------------------------------------------------------------

    def _recover(self) -> None:
        for _base, folder in sorted(self.folders.items()):
            if not folder.exists:
                continue
            for name in folder.entry_names():
                try:
                    action = recover(folder, name)
                except (FolderError, NotBeneath, OSError, KeyError) as error:
                    folder.warnings.append(f"{folder.base_path}/{OWN}/trash/{name}: {words(error)}")
                    continue
                if action:
                    self.outcome.recovered.append({"base": folder.base_path, "entry": name, "action": action})
                    self._journal.setdefault(folder.base_path, []).append(
                        {"entry": name, "result": "recovered", "action": action, "owner": self.owner.data()}
                    )
            self._write_journal(folder)


def _return_content(entry: Entry, target: int) -> list[str]:
    """Move the content back; return what has to stay, and why."""
    problems = []
    data = open_below(entry.descriptor, [DATA])
    try:
        for name in sorted(names_in(data)):
            try:
                rename_to_free_name(data, name, target, name)
            except FileExistsError:
                problems.append(f"{name!r} is there already")
            except OSError as error:
                problems.append(words(error))
        sync(data)
    finally:
        os.close(data)
    if not problems:
        os.rmdir(DATA, dir_fd=entry.descriptor)
    return problems
