# SPDX-License-Identifier: GPL-3.0-or-later
"""Where `.clusterkit` is: out of sight of clients if that is possible."""

from __future__ import annotations

import os

from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, mount


def test_mount_point_that_is_not_exported(world: World) -> None:
    world.present()
    assert (world.disk / OWN).is_dir() and not (world.share / OWN).exists()
    about = world.info()["shares"][0]
    assert (about["base"], about["key"]) == (str(world.disk), "k8s")


def test_mount_point_that_is_exported(world: World) -> None:
    for table in (f"{world.disk}\t*(rw)\n", f"{world.folder}\t*(ro,crossmnt)\n"):
        world.table.write_text(table)
        world.present()
        assert (world.share / OWN).is_dir() and not (world.disk / OWN).exists()


def test_nobody_knows_what_is_exported(world: World) -> None:
    world.table.unlink()
    world.present()
    assert (world.share / OWN).is_dir()


def test_folder_stays_where_it_is(world: World) -> None:
    """Exports come and go; what is in quarantine must be found again."""
    world.present()
    step = world.quarantined(world.volume())
    world.table.write_text(f"{world.disk}\t*(rw)\n")
    assert world.run("restored", step).problem == ""
    assert not (world.share / OWN).exists()


def test_disk_that_is_mounted_elsewhere(world: World) -> None:
    """Files that live for years name no mount point."""
    world.present()
    volume = world.volume()
    step = world.quarantined(volume)
    new = world.folder / "new"
    new.mkdir()
    mount("--move", world.disk, new)
    world.disk, world.share = new, new / "k8s"
    assert world.run("restored", {**step, "share": str(world.share)}).problem == ""
    assert (world.share / "volume/file").exists()


def test_share_that_is_a_disk_of_its_own(world: World) -> None:
    inner = world.share / "own-disk"
    inner.mkdir()
    mount("-t", "tmpfs", "tmpfs", inner)
    (inner / "lost+found").mkdir()
    (inner / "data").mkdir()
    world.share = inner
    world.table.write_text(f"{inner}\t*(rw)\n")
    world.present()
    step = world.of_volume(inner, scope="content", objects={"volume": {"metadata": {"uid": "0e2c-4711"}}})
    assert world.run("intended", step).problem == world.run("quarantined", step).problem == ""
    assert sorted(os.listdir(inner)) == [OWN, "lost+found"]
