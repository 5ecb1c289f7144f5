# SPDX-License-Identifier: GPL-3.0-or-later
"""What users download: only what runs."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath

from .conftest import ROOT

TOP = """
    CHANGELOG.md FILES.json LICENSE MANIFEST.json README.md changelogs docs inventory meta
    playbooks plugins roles site.yml
"""


def test_tarball_holds_only_what_runs() -> None:
    (tarball,) = (ROOT / ".work/dist").glob("*.tar.gz")
    with tarfile.open(tarball) as tar:
        names = [PurePosixPath(member.name) for member in tar]
    assert {name.parts[0] for name in names} <= set(TOP.split())
    assert not [name for name in names if name.suffix == ".pyc" or "__pycache__" in name.parts]
    assert PurePosixPath("playbooks/site.yml") in names
