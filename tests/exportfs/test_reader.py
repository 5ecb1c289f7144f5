# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of exports(5) against the real exportfs, on generated files.

EXPORTS_COUNT (2,000; long tier 10,000) is the number of files, EXPORTS_SEED (1) the start of the generator.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_options
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect

from .chroot import Server
from .generated import DIRECTORIES, FOLDER, Answer, Generator, compare, read_answer


def export_all(texts: list[str]) -> list[Answer]:
    """Have exportfs read one file after the other; runs in the chroot."""
    answers = []
    table = Path("/var/lib/nfs/etab")
    for text in texts:
        Path("/etc/exports").write_bytes(text.encode())
        table.write_bytes(b"")
        finished = subprocess.run(
            ["/usr/sbin/exportfs", "-ra"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        answers.append(read_answer(finished.stderr, table.read_bytes()))
    return answers


def test_every_file_means_what_exportfs_makes_of_it(server: Server, request: pytest.FixtureRequest) -> None:
    def real_path(path: str) -> str:
        try:
            there = server.path(path).resolve(strict=True).relative_to(server.root.resolve())
        except OSError:
            return path
        return "/" + there.as_posix().removeprefix(".")

    for name in DIRECTORIES:
        server.path(f"{FOLDER}/{name}").mkdir(parents=True)
    server.path(f"{FOLDER}/link").symlink_to("a")
    server.path(f"{FOLDER}/file").touch()
    count = int(os.environ.get("EXPORTS_COUNT") or (10000 if request.config.getoption("--long") else 2000))
    version = server.run("/usr/sbin/rpc.mountd", "-v").stdout.split()[-1]
    # Without nfsd exportfs assumes an old kernel.
    dialect = Dialect(tuple(int(part) for part in version.split(".")), _export_options.FLAVOR_FLAGS_OLD)
    generator = Generator(int(os.environ.get("EXPORTS_SEED", "1")), dialect)
    texts = [generator.file() for _ in range(count)]
    compared, clean = compare(zip(texts, server.call(export_all, texts), strict=True), dialect, real_path)
    assert compared > count / 2
    assert clean > compared / 20
