# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of restic(1): secrets reach it by open descriptors, and what it complains about is put into words."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import Ended, follow, gentle, secret
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings

# Of 2022, in Debian 12. Older ones have neither compression nor a repository that newer ones make.
MINIMUM = (0, 14, 0)

# Exit statuses of restic 0.17 and newer, and what older ones say instead.
_CANNOT_OPEN = re.compile(
    r"Is there a repository at the following location|unable to open config file|repository does not exist"
)
# The same words also stand before what a store (rest-server, S3, a file system) says that is away or lets nobody in.
_AWAY = re.compile(r"\(40[13]\)|Access Denied|Access Key Id|request signature|permission denied|dial tcp|i/o timeout")
_WRONG_PASSWORD = re.compile(r"wrong password or no key found")
_LOCKED = re.compile(r"unable to create lock|already locked")


class Caller:
    """Calls restic for one repository."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version: tuple[int, ...] = ()

    def run(
        self,
        arguments: Sequence[str],
        line: Callable[[bytes], None],
        *,
        tick: Callable[[int], None] = lambda _pid: None,
        before: Sequence[str] = (),
        cwd: int | None = None,
        descriptors: Sequence[int] = (),
    ) -> Ended:
        """Password and repository, which may have one in it, are neither arguments nor in the environment."""
        settings = self.settings
        environment = {str(key): str(value) for key, value in settings.environment.items()}
        environment["RESTIC_PROGRESS_FPS"] = str(1 / settings.progress_interval)
        # Without a home, as below a service manager, restic would do without its cache.
        if not os.environ.get("HOME") and "RESTIC_CACHE_DIR" not in environment:
            environment["RESTIC_CACHE_DIR"] = "/var/cache/restic"
        with contextlib.ExitStack() as stack:
            passed = list(descriptors)
            number, environment["RESTIC_REPOSITORY_FILE"] = stack.enter_context(secret(settings.repository))
            passed.append(number)
            if settings.password is not None:
                number, environment["RESTIC_PASSWORD_FILE"] = stack.enter_context(secret(settings.password))
                passed.append(number)
            elif settings.password_file is not None:
                environment["RESTIC_PASSWORD_FILE"] = settings.password_file
            else:
                environment["RESTIC_PASSWORD_COMMAND"] = settings.password_command or ""
            options = [word for option in settings.backend_options for word in ("-o", option)]
            argv = [*gentle(settings.nice, settings.ionice), *before, "restic", *options, *arguments]

            def text(lines: bytes) -> None:
                for each in lines.removesuffix(b"\n").split(b"\n"):
                    line(each)

            try:
                return follow(argv, text=text, tick=tick, cwd=cwd, env=environment, descriptors=passed)
            except OSError as error:
                raise BackupError(f"{error.filename or 'restic'}: {error.strerror}") from error

    def ask(self, *arguments: str) -> bytes:
        """Return the output of a call that has to succeed. Raises BackupError."""
        lines: list[bytes] = []
        ended = self.run(arguments, lines.append)
        if ended.status:
            raise self.failure(ended)
        return b"\n".join(lines)

    def failure(self, ended: Ended) -> BackupError:
        where = _backup.without_credentials(self.settings.repository)
        if ended.status == 12 or _WRONG_PASSWORD.search(ended.errors):
            return BackupError(f"restic: wrong password for {where}")
        words = _backup.without_credentials(ended.words())
        if self.is_missing(ended):
            return BackupError(
                f"restic: there is no repository at {where}: is the disk mounted? "
                f"For the first backup say create: true ({words})"
            )
        if ended.status == 11 or _LOCKED.search(ended.errors):
            return BackupError(f"restic: {where} is locked by another run ({words})")
        if _CANNOT_OPEN.search(ended.errors):
            return BackupError(
                f"restic: {where} cannot be opened: is the server there, does it accept user and password? ({words})"
            )
        return BackupError(f"restic: {words}")

    def is_missing(self, ended: Ended) -> bool:
        """Whether there is no repository; a store that is away or refuses access may have one."""
        errors = ended.errors
        return ended.status == 10 or bool(_CANNOT_OPEN.search(errors) and not _AWAY.search(errors))

    def check_version(self) -> None:
        try:
            said = subprocess.run(  # pylint: disable=ansible-bad-function
                ["restic", "version"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise BackupError("restic is not installed on this host") from error
        found = re.search(r"restic (\d+)\.(\d+)\.(\d+)", said)
        self.version = tuple(map(int, found.groups())) if found else MINIMUM
        if self.version < MINIMUM:
            raise BackupError(
                f"{said.split(' compiled')[0]} is too old; expected {'.'.join(map(str, MINIMUM))} or newer"
            )

    def limits(self) -> list[str]:
        limit = self.settings.bandwidth_of_one
        return ["--limit-upload", str(limit), "--limit-download", str(limit)] if limit else []
