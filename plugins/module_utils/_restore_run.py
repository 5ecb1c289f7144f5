# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore generations into directories of volumes: beside them first, then verified, then put in place."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup,
    _mounts,
    _open_state,
    _restore_place,
    _restore_stage,
    _tree,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Generation
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import wait_for_lock
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_run import (
    Engine,
    Item,
    Outcome,
    ProgressLog,
    check_space,
    engine_of,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    OWN,
    NotBeneath,
    look,
    open_below,
    parts_below,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_entry import DATA
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import (
    TRASH,
    Folder,
    Places,
    names_in,
    uid_problem,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._restore_stage import (
    CONTENT,
    PATHS,
    PLACING,
    WHOLE,
    Stage,
    Target,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._share_base import exported_paths, find_share


def read_items(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return everything that is wrong with a list of restores, each problem with its place."""
    problems = []
    directories: dict[str, str] = {}
    for number, item in enumerate(items):
        label = f"volumes[{number}]"
        problems += _backup.identity_problems(label, item)
        directory = (item.get("server_dir") or "").rstrip("/")
        problems += _backup.directory_problems(label, directory)
        problems += _backup.paths_problems(label, item.get("paths") or [])
        share = item.get("share")
        if share and not f"{directory}/".startswith(f"{share.rstrip('/')}/"):
            problems.append(f"{label}.share: {directory} does not lie in {share}")
        uid = item.get("uid")
        if uid and uid_problem(uid):
            problems.append(f"{label}.uid: {uid_problem(uid)}")
        for other, where in directories.items():
            if f"{directory}/".startswith(f"{other}/") or f"{other}/".startswith(f"{directory}/"):
                problems.append(f"{label}.server_dir: {directory} and {other} ({where}) lie in one another")
        directories[directory] = label
    return problems


def restore(
    items: Sequence[Mapping[str, Any]], settings: Settings, places: Places, *, allow_open: bool, check_mode: bool
) -> Outcome:
    """Restore each item; one that fails does not stop the others. Raises BackupError."""
    engine = engine_of(settings)
    engine.prepare(create=False, check_mode=True)
    run = _Run(engine, settings, places, allow_open=allow_open, check_mode=check_mode)
    with contextlib.ExitStack() as stack:
        targets = [run.target(item, stack) for item in items]
        if not check_mode:
            run.recover([target for target in targets if isinstance(target, Target)])
        there = engine.generations()
        with ThreadPoolExecutor(max_workers=settings.parallel) as pool:
            outcome = Outcome(
                items=list(pool.map(lambda pair: run.one(pair[0], pair[1], there), zip(items, targets))),
                warnings=run.warnings,
            )
    for item in outcome.items:
        if item["failed"]:
            outcome.problems.append(f"{item['server_dir']}: {item['msg']}")
        elif item["changed"]:
            what = f"{item['server_dir']} {', '.join(item['paths'])}".rstrip()
            outcome.diff["before"] += f"{what}: as it is\n"
            outcome.diff["after"] += f"{what}: generation {item['generation']}, {item['files']} files\n"
    return outcome


class _Run:
    def __init__(
        self, engine: Engine, settings: Settings, places: Places, *, allow_open: bool, check_mode: bool
    ) -> None:
        self.engine = engine
        self.places = places
        self.allow_open = allow_open
        self.check_mode = check_mode
        self.log = ProgressLog(settings.progress_file, settings.progress_interval)
        self.mounts = _mounts.read()
        self.mount_points = {mount.path for mount in self.mounts.mounts}
        self.exported = exported_paths(places.table)
        self.warnings: list[str] = []
        self._placing = threading.Lock()

    # --- where to --------------------------------------------------------------------------------------

    def target(self, item: Mapping[str, Any], stack: contextlib.ExitStack) -> Target | BackupError:
        """Look at the place, and open our folder there. What is wrong with one item must not stop the others."""
        directory = item["server_dir"].rstrip("/")
        try:
            share = find_share(
                (item.get("share") or directory.rpartition("/")[0] or "/").rstrip("/") or "/",
                self.mounts,
                self.exported,
            )
            folder = Folder(share.base, self.places)
            stack.callback(folder.close)
            folder.open(create=not self.check_mode)
            parts = parts_below(share.base, directory)
            here = self.mounts.find(directory)
            if here.top is not None and parts and directory != share.base:
                raise BackupError(f"{directory} is a mount point; give it as the share, too")
            scope = self._scope(item, directory, share.path)
        except (NotBeneath, FolderError) as error:
            return BackupError(str(error))
        except OSError as error:
            return BackupError(f"{error.filename}: {error.strerror}")
        except BackupError as error:
            return error
        uid = item.get("uid")
        volume = {"name": item.get("target_name") or item["name"], "uid": uid} if uid else None
        keep = _restore_stage.kept_names(scope, mount_point=directory in self.mount_points)
        return Target(folder, share, directory, parts, scope, keep, volume)

    def _scope(self, item: Mapping[str, Any], directory: str, share: str) -> str:
        if item.get("paths"):
            return PATHS
        # nfsd serves the directory that it knows under a path, wherever that is renamed to.
        fixed = directory == share or directory in self.mount_points or directory in (self.exported or ())
        return CONTENT if fixed else WHOLE

    def recover(self, targets: Sequence[Target]) -> None:
        """Finish what killed runs were about to put in place."""
        seen: set[str] = set()
        for target in targets:
            if target.folder.base_path in seen:
                continue
            seen.add(target.folder.base_path)
            with _restore_stage.stages(target.folder, create=False) as above:
                for name in sorted(names_in(above)) if above >= 0 else ():
                    try:
                        self._recover_one(target, above, name)
                    except (BackupError, FolderError, NotBeneath, OSError) as error:
                        # It concerns one directory, and the others are not to wait for it.
                        self.warnings.append(f"what an earlier run was about to put in place stays: {name}: {error}")

    def _recover_one(self, near: Target, above: int, name: str) -> None:
        with _restore_stage.opened_stage(above, name, _wait, create=False) as (stage, _lock):
            state = stage.read()
            if state is None or state["state"] != PLACING:
                return
            directory = state["directory"]
            parts = parts_below(near.folder.base_path, directory)
            keep = _restore_stage.kept_names(state["scope"], mount_point=directory in self.mount_points)
            target = Target(near.folder, near.share, directory, parts, state["scope"], keep, state["target"])
            told = f"{directory}: an earlier run was ended while it put generation {state['generation']} in its place; "
            try:
                done = _restore_place.finish(target, stage)
            except NotBeneath as error:
                # Somebody put a link, or something else, in the way meanwhile.
                _restore_place.give_up(target, stage)
                self.warnings.append(
                    f"{told}that cannot be done any more ({error}), see {state['entry']} in quarantine"
                )
                return
            self.warnings.append(told + ("that is done now" if done else "nothing of it is in place"))

    # --- one item --------------------------------------------------------------------------------------

    def one(self, wanted: Mapping[str, Any], target: Target | BackupError, there: Sequence[Generation]) -> Item:
        began = time.monotonic()
        key = _backup.key_of(wanted.get("namespace") or "", wanted["name"])
        item: Item = {
            "name": wanted["name"],
            "namespace": wanted.get("namespace") or "",
            "server_dir": wanted["server_dir"].rstrip("/"),
            "paths": list(wanted.get("paths") or []),
            "generation": "",
            "quarantined": "",
            "files": 0,
            "bytes": 0,
            "changed": False,
            "msg": "",
        }
        try:
            if isinstance(target, BackupError):
                raise target
            generation = _backup.select(there, key, wanted.get("generation") or _backup.LATEST)
            item["generation"] = generation.generation
            self._do(generation, target, item)
            item["changed"] = True
        except (BackupError, FolderError, NotBeneath) as error:
            item["msg"] = str(error)
        except OSError as error:
            item["msg"] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        item["failed"] = bool(item["msg"])
        item["seconds"] = round(time.monotonic() - began, 3)
        if not self.check_mode:
            words = f"failed: {item['msg']}" if item["failed"] else f"generation {item['generation']} restored"
            self.log.write(
                f"{_backup.rfc3339(time.time())} {key}: {words} to {item['server_dir']}, {item['files']} files"
            )
        return item

    def _do(self, generation: Generation, target: Target, item: Item) -> None:
        if target.scope == PATHS or target.scope == CONTENT:
            os.close(open_below(target.folder.base, target.parts))
        item["bytes"], item["files"] = self.engine.needed(generation, item["paths"])
        if self.check_mode:
            self._check_open_state(target)
            check_space(target.folder.base_path, item["bytes"], item["files"])
            return
        with (
            _restore_stage.stages(target.folder, create=True) as above,
            _restore_stage.opened_stage(above, target.stage_name, _wait, create=True) as (stage, lock),
        ):
            state = _restore_stage.new_state(target, generation.key, generation.generation, item["paths"])
            # Before hours are spent on it, and again when it matters.
            self._check_open_state(target)
            self._fill(generation, target, stage, lock, state, item)
            # A folder of its own, for its lock: it ends with the placing, and not with the run.
            with self._placing, Folder(target.folder.base_path, self.places) as locked:
                locked.open(create=False)
                locked.lock()
                self._check_open_state(target)
                entry = _restore_place.place(target, stage, state)
        if entry:
            item["quarantined"] = f"{target.folder.base_path.rstrip('/')}/{OWN}/{TRASH}/{entry}"

    def _fill(
        self, generation: Generation, target: Target, stage: Stage, lock: int, state: Mapping[str, Any], item: Item
    ) -> None:
        """Restore into the stage, and verify."""
        old = stage.read()
        same = old is not None and all(old[name] == state[name] for name in ("generation", "paths", "volume", "scope"))
        if not same or not self.engine.resumes:
            stage.empty()
        stage.write(state)
        left = stage.data() is not None
        check_space(f"/proc/self/fd/{stage.descriptor}", *((0, 0) if left else (item["bytes"], item["files"])))
        with contextlib.suppress(FileExistsError):
            os.mkdir(DATA, 0o700, dir_fd=stage.descriptor)
        if target.scope != WHOLE:
            self._take_over_project(target, stage)
        try:
            self.engine.restore(generation, item["paths"], stage.descriptor, self.log.of(generation.key), (lock,))
            found = self.engine.compare(generation, item["paths"], f"/proc/self/fd/{stage.descriptor}")
        except BackupError as error:
            if "No space left" in str(error) or "quota" in str(error):
                stage.remove()
            raise
        if found.count:
            stage.remove()
            raise BackupError(
                f"generation {generation.generation} could not be restored as it was recorded, and the volume stays "
                f"as it is: {found.words()}"
            )

    @staticmethod
    def _take_over_project(target: Target, stage: Stage) -> None:
        live = open_below(target.folder.base, target.parts)
        try:
            data = open_below(stage.descriptor, [DATA])
            try:
                _restore_stage.take_over_project(live, data)
            finally:
                os.close(data)
        finally:
            os.close(live)

    def _check_open_state(self, target: Target) -> None:
        """Refuse a directory in which clients have files open: they would go on writing into what is quarantined."""
        if self.allow_open:
            return
        state = _open_state.read(self.places.nfsd)
        inodes = state.inodes(target.folder.device)
        if not inodes and not state.grace:
            return
        parent = open_below(target.folder.base, target.parts[:-1])
        try:
            if target.parts and look(parent, target.parts[-1]) is None:
                return
        finally:
            os.close(parent)
        if state.grace:
            raise BackupError(
                "the NFS server has just started, and its clients are telling it what they have open in "
                f"{target.directory}; run it again when its grace period is over, or say allow_open: true"
            )
        live = open_below(target.folder.base, target.parts)
        try:
            found = _tree.find_inode(live, inodes)
        finally:
            os.close(live)
        if found is not None:
            raise BackupError(
                f"inode {found} in {target.directory} is open by {', '.join(sorted(inodes[found]))}; stop the pods "
                "that use it, or say allow_open: true"
            )


def _wait(descriptor: int) -> None:
    wait_for_lock(descriptor, "another run restores to this directory")
