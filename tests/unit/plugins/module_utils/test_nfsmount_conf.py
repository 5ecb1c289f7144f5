# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _nfsmount_conf
from ansible_collections.clusterkit.storage.plugins.module_utils._nfsmount_conf import Default, MountDefaults
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
        ("V4.1=True", ["vers=3"], []),
        ("Defaultvers=4", [], []),
        ("Sloppy=True", [], []),
        ('Sec="krb5:sys"', [], ["sec=krb5:sys"]),
        ("Lookupcache=", [], []),
    ],
)
def test_settings_become_options_as_mount_nfs_makes_them(setting: str, options: list[str], result: list[str]) -> None:
    assert added(f"[NFSMount_Global_Options]\n{setting}\n", *options) == result


def test_later_files_override_earlier_ones_in_the_order_of_mount_nfs() -> None:
    paths = [
        "/usr/etc/nfsmount.conf",
        "/usr/etc/nfsmount.conf.d/a.conf",
        "/etc/nfsmount.conf",
        # A number that begins with zero counts like what stands behind a decimal point.
        "/etc/nfsmount.conf.d/010.conf",
        "/etc/nfsmount.conf.d/09.conf",
        "/etc/nfsmount.conf.d/9.conf",
        "/etc/nfsmount.conf.d/10.conf",
        "/etc/nfsmount.conf.d/\u00b21.conf",
        "/etc/nfsmount.conf.d/\u00b210.conf",
    ]
    assert _nfsmount_conf.in_order({path: path for path in sorted(paths)}) == paths


OPTION = st.sampled_from(["soft", "softerr", "hard", "bg", "fg", "nosharecache", "noresvport", "timeo=50", "vers=4.1"])


@given(st.lists(OPTION, unique=True, max_size=5))
def test_the_drop_in_means_the_options_it_was_made_of(options: list[str]) -> None:
    expected = [each for each in options if each != "fg" or "bg" not in options[: options.index(each)]]
    expected = [each for each in expected if each != "bg" or "fg" not in options[: options.index(each)]]
    assert added(_nfsmount_conf.render([Default(tuple(options))])) == expected


def test_the_drop_in_is_written_in_the_words_of_nfsmount_conf() -> None:
    options = ("bg", "soft", "nosharecache", "timeo=50", "context=A=b")
    assert _nfsmount_conf.render([Default(options), Default(("fg",), server="nfs1")]) == (
        "# Written by clusterkit.storage: options of NFS mounts, see nfsmount.conf(5).\n\n"
        "[ NFSMount_Global_Options ]\n"
        "Background=True\nSoft=True\nSharecache=False\nTimeo=50\nContext=A=b\n\n"
        '[ Server "nfs1" ]\nForeground=True\n'
    )


MAIN = "# mine\n[ NFSMount_Global_Options ]\nTimeo=100\n"
SOFT = [Default(("soft", "timeo=50"))]


def test_defaults_of_a_server_and_of_a_mount_point_are_for_those_only() -> None:
    defaults = [Default(("softerr",)), Default(("timeo=50",), server="nfs1"), Default(("ro",), path="/data")]
    text = _nfsmount_conf.render(defaults)
    conf = MountDefaults([text])
    assert conf.added_to([], "nfs1:/a", "/data") == ["ro", "timeo=50", "softerr"]
    assert conf.added_to([], "nfs1:/a", "/x") == ["timeo=50", "softerr"]
    assert conf.added_to([], "nfs1:/a:b", "/x") == ["timeo=50", "softerr"]
    assert conf.added_to([], "nfs2:/a", "/x") == ["softerr"]
    assert '[ Server "nfs1" ]\nTimeo=50\n' in text


def test_everything_wrong_with_the_defaults_is_said() -> None:
    _defaults, problems = _nfsmount_conf.read_defaults(
        [
            {"options": ["sotf"]},
            {"options": ["soft"], "server": "nfs1", "path": "/data"},
            {"options": []},
            {"options": ["soft"], "server": 'a"b'},
            {"options": ["soft"], "path": "data"},
            {"options": ["soft"], "path": "/a b"},
        ]
    )
    assert problems == [
        'mount_defaults[0].options: "sotf" is not an option of nfs(5) or mount(8); did you mean "soft"?',
        "mount_defaults[1].server, path: give one of them, or none for all mounts",
        "mount_defaults[2].options: are needed",
        "mount_defaults[2].options: are for the same mounts as those of mount_defaults[0]",
        'mount_defaults[3].server: "a"b" cannot be written to nfsmount.conf',
        'mount_defaults[4].path: "data" is not an absolute path',
        'mount_defaults[5].path: "/a b" cannot be written to nfsmount.conf',
    ]


def test_a_version_that_does_not_read_the_folder_gets_a_block_of_the_main_file() -> None:
    new = _nfsmount_conf.changes({_nfsmount_conf.CONF: MAIN}, SOFT, reads_folder=False)
    assert list(new) == [_nfsmount_conf.CONF]
    text = new[_nfsmount_conf.CONF]
    assert text is not None and text.endswith(MAIN), "the rest stays byte for byte"
    # The first setting wins in nfs-utils 1.3.
    assert text.index("Timeo=50") < text.index("Timeo=100")
    assert MountDefaults(_nfsmount_conf.in_order({_nfsmount_conf.CONF: text})).added_to([], SOURCE, PATH) == [
        *("timeo=50", "soft")
    ]
    assert _nfsmount_conf.changes({_nfsmount_conf.CONF: text}, SOFT, reads_folder=False) == {}
    assert _nfsmount_conf.changes({_nfsmount_conf.CONF: text}, [], reads_folder=False) == {_nfsmount_conf.CONF: MAIN}
    assert _nfsmount_conf.changes({}, SOFT, reads_folder=False)[_nfsmount_conf.CONF] is not None


def test_after_an_upgrade_the_block_becomes_a_file_of_its_own() -> None:
    old = _nfsmount_conf.changes({_nfsmount_conf.CONF: MAIN}, SOFT, reads_folder=False)
    conf = {path: text for path, text in old.items() if text is not None}
    assert _nfsmount_conf.has_block(conf[_nfsmount_conf.CONF])
    new = _nfsmount_conf.changes(conf, SOFT, reads_folder=True)
    assert new == {_nfsmount_conf.DROP_IN: _nfsmount_conf.render(SOFT), _nfsmount_conf.CONF: MAIN}


def test_nothing_wanted_and_nothing_there_changes_nothing() -> None:
    assert _nfsmount_conf.changes({}, [], reads_folder=True) == {}
    assert _nfsmount_conf.changes({_nfsmount_conf.CONF: MAIN}, [], reads_folder=False) == {}
    assert not _nfsmount_conf.has_block(MAIN)
    assert not _nfsmount_conf.has_block(None)


@given(st.text(st.sampled_from("# BEGINclusterkt.storage:\n[]=x "), max_size=60))
def test_a_main_file_is_the_same_after_the_block_has_come_and_gone(rest: str) -> None:
    conf = {_nfsmount_conf.CONF: rest}
    with_it = _nfsmount_conf.changes(conf, SOFT, reads_folder=False)[_nfsmount_conf.CONF]
    assert with_it is not None
    again = _nfsmount_conf.changes({_nfsmount_conf.CONF: with_it}, [], reads_folder=False)
    assert again == {_nfsmount_conf.CONF: rest}


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("#Timeo=5", []),
        (";Timeo=5", []),
        ("Timeo", []),
        ("Context=A=b", ["context=A=b"]),
        ("Xprtsec=tls", ["xprtsec=tls"]),
        ("Sec='krb5'", ["sec=krb5"]),
        ("Context=X'aX", ["context=X'aX"]),
        ("Foreground=False", ["bg"]),
        ("Foreground=True", ["fg"]),
        ("Wsize=8k", ["wsize=8192"]),
        ("Wsize=3xk", ["wsize=3xk"]),
        ("Noac=True", ["noac"]),
    ],
)
def test_lines_are_read_as_mount_nfs_reads_them(line: str, result: list[str]) -> None:
    assert added(f"[NFSMount_Global_Options]\n{line}\n") == result
    assert added(f"{line}\n") == [], "what stands in no section counts for nothing"


def test_a_setting_and_its_opposite_are_the_same_name() -> None:
    assert added("[NFSMount_Global_Options]\nNoac=True\n", "ac") == []
    assert added("[NFSMount_Global_Options]\nAc=True\n", "noac") == []
    assert added("[NFSMount_Global_Options]\nNoac=True\n", "acl") == ["noac"]


def test_what_is_right_is_read_and_servers_are_compared_without_regard_to_case() -> None:
    given: list[dict[str, Any]] = [{"options": ["soft"]}, {"options": ["timeo=50"], "server": "NFS1"}]
    defaults, problems = _nfsmount_conf.read_defaults(given)
    assert problems == []
    assert defaults == [Default(("soft",)), Default(("timeo=50",), server="NFS1")]
    _defaults, problems = _nfsmount_conf.read_defaults([*given, {"options": ["ro"], "server": "nfs1"}])
    assert problems == ["mount_defaults[2].options: are for the same mounts as those of mount_defaults[1]"]


def test_the_files_of_mount_nfs_are_read_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    confs = [tmp_path / "usr.conf", tmp_path / "etc.conf"]
    monkeypatch.setattr(_nfsmount_conf, "_FILES", tuple(map(str, confs)))
    confs[1].write_text("main")
    for conf in confs:
        Path(f"{conf}.d").mkdir()
        for name in ("a.conf", ".b.conf", "c.CONF", "d.conf.orig"):
            Path(f"{conf}.d", name).write_text(name)
    assert _nfsmount_conf.read_files() == {
        str(confs[1]): "main",
        f"{confs[0]}.d/a.conf": "a.conf",
        f"{confs[1]}.d/a.conf": "a.conf",
    }


def test_a_block_of_ours_is_taken_out_of_its_file_and_read_after_it() -> None:
    new = _nfsmount_conf.changes({_nfsmount_conf.CONF: MAIN}, SOFT, reads_folder=False)[_nfsmount_conf.CONF]
    assert new is not None
    rest, block = _nfsmount_conf.in_order({_nfsmount_conf.CONF: new})
    assert (rest, block) == (MAIN, new.removesuffix(MAIN))
