# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _nfsmount_conf
from ansible_collections.clusterkit.storage.plugins.module_utils._nfsmount_conf import MountDefaults
from hypothesis import given
from hypothesis import strategies as st

SOURCE, PATH = "NFS1:/srv", "/Data"


def added(text: str, *options: str) -> list[str]:
    return MountDefaults([text]).added_to(options, SOURCE, PATH)


def test_soft_for_all_is_added_after_an_explicit_hard() -> None:
    # Seen with nfs-utils 2.8.3: `mount -o hard` becomes a soft mount. Who believes otherwise loses data.
    text = "[ NFSMount_Global_Options ]\nSoft=True\n"
    assert added(text, "hard") == ["soft"]
    assert added(text, "softerr") == ["soft"]
    assert added(text, "soft") == []


def test_sections_count_from_the_mount_point_to_the_host() -> None:
    text = """
# comment
[ NFSMount_Global_Options ]
Rsize=32k
Timeo=100
  Background=False
[ Server "nfs1" ]
Timeo = 200
[ MountPoint "/data" ]
timeo=300
; comment
[ MountPoint "/other" ]
wsize=8k
"""
    assert added(text) == ["timeo=300", "rsize=32768", "fg"]
    assert added(text, "timeo=7", "rsize=1024", "bg") == []


@pytest.mark.parametrize(
    ("setting", "options", "result"),
    [
        ("Sharecache=False", [], ["nosharecache"]),
        ("Sharecache=False", ["sharecache"], []),
        ("Nfsvers=4.1", ["v3"], []),
        ("Nfsvers=4.1", ["v4.0"], []),
        ("Defaultvers=4", [], []),
        ("Sloppy=True", [], []),
        ('Sec="krb5:sys"', [], ["sec=krb5:sys"]),
        ("Lookupcache=", [], []),
    ],
)
def test_settings_become_options_as_mount_nfs_makes_them(setting: str, options: list[str], result: list[str]) -> None:
    assert added(f"[NFSMount_Global_Options]\n{setting}\n", *options) == result


def test_later_files_override_earlier_ones_in_the_order_of_mount_nfs() -> None:
    section = "[ NFSMount_Global_Options ]\nTimeo="
    contents = {
        "/etc/nfsmount.conf.d/10.conf": section + "4",
        "/etc/nfsmount.conf": section + "2",
        "/usr/etc/nfsmount.conf.d/a.conf": section + "1",
        "/etc/nfsmount.conf.d/9.conf": section + "3",
        "/usr/etc/nfsmount.conf": section + "0",
    }
    assert [text[-1] for text in _nfsmount_conf.in_order(contents)] == ["0", "1", "2", "3", "4"]


OPTION = st.sampled_from(["soft", "softerr", "hard", "bg", "fg", "nosharecache", "noresvport", "timeo=50", "vers=4.1"])


@given(st.lists(OPTION, unique=True, max_size=5))
def test_the_drop_in_means_the_options_it_was_made_of(options: list[str]) -> None:
    expected = [each for each in options if each != "fg" or "bg" not in options[: options.index(each)]]
    expected = [each for each in expected if each != "bg" or "fg" not in options[: options.index(each)]]
    assert added(_nfsmount_conf.render(options)) == expected
