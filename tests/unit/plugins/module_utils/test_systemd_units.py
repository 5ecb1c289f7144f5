# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _systemd_units
from ansible_collections.clusterkit.storage.tests.properties import examples
from hypothesis import given
from hypothesis import strategies as st

PART = st.text(st.sampled_from("ab-_.:\\\\ \t#@ä漢"), min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..")
)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/data/k8s/yml", "data-k8s-yml.automount"),
        ("/", "-.automount"),
        ("/a-b/.c", "a\\x2db-.c.automount"),
        ("/.hidden", "\\x2ehidden.automount"),
        ("/with blank", "with\\x20blank.automount"),
        ("/ü", "\\xc3\\xbc.automount"),
    ],
)
def test_units_are_named_as_systemd_names_them(path: str, unit: str) -> None:
    assert _systemd_units.unit_of(path, "automount") == unit


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd-escape is not installed")
@examples(40)
@given(st.lists(PART, max_size=3).map(lambda parts: "/" + "/".join(parts)))
def test_the_names_are_those_of_systemd_escape(path: str) -> None:
    argv = ["systemd-escape", "--path", "--suffix=mount", "--", path]
    said = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    )
    assert _systemd_units.unit_of(path, "mount") == said.stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("600", 600),
        ("0", 0),
        ("infinity", 0),
        ("10min", 600),
        ("1h", 3600),
        ("30 s", 30),
        ("1min 30s", None),
        ("x", None),
    ],
)
def test_simple_time_spans_are_understood(text: str, seconds: int | None) -> None:
    assert _systemd_units.seconds(text) == seconds
