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


def test_what_is_measured_in_quarantine_is_what_lies_on_this_file_system(world: World, way: str) -> None:
    """A limit to what is purged counts neither what is mounted there, nor what a link leads to."""
    assert way
    world.present()
    volume = world.volume()
    (volume / "large").write_bytes(b"x" * 300_000)
    (volume / "away").symlink_to(world.disk)
    world.quarantined(volume)
    [told] = world.info(quarantined_size=True)["quarantined"]
    [entry] = list(world.trash.iterdir())
    inner = entry / "data/sub"
    mount("-t", "tmpfs", "tmpfs", inner)
    (inner / "larger").write_bytes(b"x" * 5_000_000)
    result = world.info(quarantined_size=True)
    [again] = result["quarantined"]
    assert 300_000 < again["size"] <= told["size"] < 400_000
    assert not again["size_complete"], "what cannot be looked at may be of any size"
    entry.rename(world.trash / "aside")
    (world.trash / entry.name).symlink_to("aside")
    assert not world.info(quarantined_size=True)["complete"]


def test_links_and_files_are_named_where_a_directory_would_be_looked_for(world: World) -> None:
    """A volume behind a link is not missing."""
    (world.share / "team").mkdir()
    (world.share / "team/linked").symlink_to(world.share / "neighbour")
    (world.share / "file").write_text("x")
    os.mkfifo(world.share / "pipe")
    (share,) = world.info(parents=[str(world.share / "team")])["shares"]
    assert sorted(share["other_paths"]) == [f"{world.share}/{name}" for name in ("file", "pipe", "team/linked")]
    assert share["other_paths_complete"]


def test_an_empty_volume_goes_and_nobody_wonders_afterwards(world: World) -> None:
    world.present()
    empty = world.share / "empty"
    empty.mkdir()
    step = world.of_volume(empty, scope="content", objects={"volume": {"metadata": {"uid": "0e2c-4711"}}})
    assert world.run("intended", step).problem == world.run("quarantined", step).problem == ""
    (empty / "new").write_text("of the next tenant")
    outcome = world.run("closed", step)
    assert (outcome.warnings, outcome.recovered) == ([], [])
    [entry] = [one for one in world.info()["quarantined"] if one["volume"]["uid"] == "0e2c-4711"]
    purge = {"share": str(world.share), "entry": entry["entry"]}
    purge["precondition"] = {key: entry[key] for key in ("device", "inode")}
    assert world.run("purged", purge, allow_purge_now=True).problem == ""
    assert [path.name for path in empty.iterdir()] == ["new"]
