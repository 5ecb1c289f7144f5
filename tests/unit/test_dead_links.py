# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of the documentation site finds links that lead nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/dead_links.py"


def check(folder: Path) -> tuple[int, str]:
    argv = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr.strip()


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/index.html").write_text('<h1 id="top">T</h1><a href="../a.html#here">x</a><a name="old"></a>')
    (tmp_path / "a.html").write_text('<p id="here"><a href="sub/">s</a> <a href="sub/#old">o</a> <a href="#here">h</a>')
    assert check(tmp_path) == (0, "")
    (tmp_path / "b.html").write_text(
        '<a href="a.html#gone">x</a><img src="no.png"><a href="https://example.com/x">y</a>'
    )
    assert check(tmp_path) == (
        1,
        "b.html: a.html#gone: no such place in that page\nb.html: no.png: no such file",
    )
