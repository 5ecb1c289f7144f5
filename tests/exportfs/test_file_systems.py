# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports on disks, with real mounts in a mount namespace: a disk that is missing, one inside an export, one without
a number; and the order in which systemd starts things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils._directories import ensure_directories

from .chroot import DROP_IN, Refused, Server


def export(path: str, *options: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "clients": [{"host": "10.0.0.0/8", "options": list(options)}], **more}


@pytest.fixture
def disk(server: Server) -> Server:
    """A server with a disk of its own at /srv/disk, and its entry in fstab."""
    server.mounts = [("tmpfs", "/srv/disk")]
    server.write("/etc/fstab", "/dev/vdb /srv/disk xfs defaults,nofail 0 2\n/dev/vdc /srv/later xfs noauto 0 2\n")
    for name in ("/srv/root", "/srv/later"):
        server.path(name).mkdir()
    server.path("/usr/bin/systemctl").unlink(missing_ok=True)
    return server


def test_disk_is_guarded_and_comes_first(disk: Server) -> None:
    disk.install_systemctl()
    exports = [export("/srv/disk", "rw", "fsid=1"), export("/srv/root", "rw")]
    before = disk.ensure(*exports, check_mode=True)
    assert before.order_changed and not disk.path(DROP_IN).exists()
    assert disk.ensure(*exports).order_changed
    assert "/srv/disk 10.0.0.0/8(rw,fsid=1,mountpoint=/srv/disk,no_subtree_check)" in disk.state[0]
    assert "/srv/root 10.0.0.0/8(rw,no_subtree_check)" in disk.state[0]
    assert ",mountpoint=/srv/disk," in disk.state[1]
    assert disk.read(DROP_IN).splitlines()[2:] == ["[Unit]", "Wants=srv-disk.mount", "After=srv-disk.mount"]
    assert disk.read("/run/reloads") == "reload\n"
    assert not disk.ensure(*exports).changed

    # A killed run wrote the file, and systemd has not read it.
    disk.write("/run/loaded", "")
    assert disk.ensure(*exports).order_changed
    assert not disk.ensure(*exports).changed

    # nfs-utils' own generator makes an export require its mounts, unless it has mountpoint=.
    made = disk.call(_generated)
    assert "RequiresMountsFor=/srv/root" in made
    assert "/srv/disk" not in made

    assert disk.ensure().order_changed
    assert not disk.path(DROP_IN).exists()


def _generated() -> str:
    import subprocess

    folders = [Path(f"/tmp/{name}") for name in ("normal", "early", "late")]  # noqa: S108 - of the chroot
    for folder in folders:
        folder.mkdir(exist_ok=True)
    subprocess.run(["/usr/lib/systemd/system-generators/nfs-server-generator", *map(str, folders)], check=True)
    return "".join(path.read_text() for path in folders[0].rglob("*.conf"))


def test_facts_of_the_file_systems(disk: Server) -> None:
    disk.mounts = [("tmpfs", "/srv/disk", "size=8m")]
    outcome = disk.ensure(export("/srv/disk", "rw", "fsid=1"), export("/srv/root"))
    root, data = outcome.file_systems
    assert root["mount_point"] == "/" and root["size"] > root["available"] > 0
    assert data == {
        "mount_point": "/srv/disk",
        "type": "tmpfs",
        "source": "tmpfs",
        "size": 8 * 2**20,
        "available": 8 * 2**20,
        "quotas": [],
    }


def test_own_mountpoint_option_wins(disk: Server) -> None:
    disk.path("/srv/disk/data").mkdir(parents=True)
    disk.ensure(export("/srv/root", "rw", "mountpoint=/srv/disk"))
    assert "mountpoint=/srv/disk," in disk.state[0]
    disk.ensure(export("/srv/disk", "rw", "fsid=1"), default_mountpoint=False)
    assert "mountpoint" not in disk.state[0]


def test_missing_disk_is_not_served(disk: Server) -> None:
    disk.ensure(export("/srv/disk", "rw", "fsid=1"))
    before = disk.state
    disk.mounts = []
    with pytest.raises(Refused, match=r"/srv/disk lies on /srv/disk, which /etc/fstab has and which is not mounted"):
        disk.ensure(export("/srv/disk", "rw", "fsid=1"))
    # A disk that was mounted by hand, and stands in no fstab: the old export says where it was.
    disk.write("/etc/fstab", "")
    with pytest.raises(Refused, match="was exported from the file system at /srv/disk, and nothing is mounted there"):
        disk.ensure(export("/srv/disk", "rw", "fsid=1"))
    assert disk.state == before
    disk.ensure()
    assert disk.ensure(export("/srv/disk", "rw")).changed


def test_no_directory_is_made_where_a_disk_is_missing(disk: Server) -> None:
    wanted = [{"path": "/srv/disk/data"}, {"path": "/srv/root/data"}]
    disk.mounts = []
    outcome = disk.call(make_directories, wanted)
    assert outcome.refused and not disk.path("/srv/root/data").exists()
    assert outcome.problems == [
        "directories[0].path: /srv/disk/data lies on /srv/disk, which /etc/fstab has and which is not mounted; "
        "mount it first"
    ]
    disk.mounts = [("tmpfs", "/srv/disk")]
    assert disk.call(make_directories, wanted).changed


def make_directories(wanted: list[dict[str, Any]]) -> Any:
    return ensure_directories(wanted, check_mode=False)


def test_disk_that_is_not_mounted_at_boot_is_not_missed(disk: Server) -> None:
    assert disk.ensure(export("/srv/later", "rw")).changed


def test_mount_point_below_an_export(disk: Server) -> None:
    disk.mounts += [("tmpfs", "/srv/disk/inner")]
    with pytest.raises(Refused) as caught:
        disk.ensure(export("/srv", "rw"))
    assert caught.value.problems == [
        "exports[0].path: /srv/disk is a mount point below /srv: clients would see an empty directory there; export it "
        "too, or give crossmnt to every client of this export"
    ]
    with pytest.raises(Refused) as caught:
        disk.ensure(export("/srv", "rw"), export("/srv/disk", "rw", "fsid=1", "nohide"))
    assert [problem.partition(":")[2][:42] for problem in caught.value.problems] == [
        " /srv/disk/inner is a mount point below /s"
    ]
    assert disk.ensure(export("/srv", "rw", "crossmnt")).changed
    assert disk.ensure(export("/srv", "rw"), export("/srv/disk", "fsid=1", options=["crossmnt"])).changed
    # A foreign file may export it.
    disk.write("/etc/exports", "/srv/disk 10.0.0.0/8(rw,fsid=1,crossmnt,no_subtree_check)\n")
    assert disk.ensure(export("/srv", "rw")).changed


def test_file_system_without_a_number(disk: Server) -> None:
    with pytest.raises(Refused) as caught:
        disk.ensure(export("/srv/disk", "rw"), export("/srv/root"))
    assert caught.value.problems == [
        "exports[0].clients[0].options: /srv/disk lies on tmpfs, which cannot be exported without fsid=; give it a "
        "number that no other export has, such as fsid=1"
    ]
    assert disk.ensure(export("/srv/disk", "rw", options=["fsid=12345678-1234-1234-1234-123456789abc"])).changed


def test_pseudo_root_with_a_bind_mount(disk: Server) -> None:
    disk.path("/srv/nfs4/root").mkdir(parents=True)
    disk.mounts += [("bind", "/srv/nfs4/root", "/srv/root")]
    outcome = disk.ensure(
        export("/srv/nfs4", "ro", "fsid=0"), export("/srv/nfs4/root", "rw", "nohide"), export("/srv/later", "rw")
    )
    assert [warning for warning in outcome.warnings if "pseudo-root" in warning] == [
        "exports[2]: /srv/later does not lie below the pseudo-root /srv/nfs4 (fsid=0): clients of NFSv4 cannot see it; "
        "bind-mount it there, and export that"
    ]
    # mountd takes a bind mount of the same file system for an ordinary directory: guarded, it would not be served.
    assert "mountpoint" not in disk.state[0]
