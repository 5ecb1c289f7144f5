# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's promises on real kernels: what ansible.posix.mount 2.2.2 was seen to get wrong, systemd, and the rest.

Each test has an export and a mount point of its own; the lab is brought back for whoever needs it next.
"""

from __future__ import annotations

from typing import Any

import pytest

from .nfs_client import SERVER, Client

# What ansible.posix.mount was seen to get wrong -----------------------------------------------------


def test_what_others_mounted_is_put_right(client: Client) -> None:
    """There, of all four: "ok" or "changed", and each stays as it is until the next boot."""

    def wanted(source: str) -> list[dict[str, Any]]:
        items = {
            "source": client.item("a"),
            "options": client.item("b", "rw,hard,rsize=8192"),
            "over": client.item("c"),
            "another": client.item(source),
        }
        return [{**one, "path": client.at(name)} for name, one in items.items()]

    assert client.apply(*wanted("d"))["changed"]
    client.node.ssh(f"umount {client.at('source')} {client.at('options')}")
    client.mount("e", path=client.at("source"))
    client.mount("b", "rw,soft,timeo=50", path=client.at("options"))
    client.node.ssh(f"mount -t tmpfs over {client.at('over')}")

    result = client.apply(*wanted("f"))
    source, _options, _over, _another = result["mounts"]
    assert source["actions"] == [f"unmount {client.export('e')}", f"mount {client.export('a')}"]
    assert client.live_at("source") == [client.export("a")]
    assert {"hard", "rsize=8192", "timeo=600"} <= client.live_options_at("options")
    assert client.live_at("another") == [client.export("f")]
    assert client.fstab_at("another") == [f"{client.export('f')} {client.at('another')} nfs defaults 0 0"]
    # The one that cannot be put right is named, and the others are all the same.
    assert [one["failed"] for one in result["mounts"]] == [False, False, True, False]
    assert result["failed"] and "over (tmpfs) is mounted at" in result["msg"]
    assert "hides what is below" in result["msg"]
    assert client.live_at("over") == [client.export("c"), "over"], "what is not NFS is never unmounted"

    client.node.ssh(f"umount {client.at('over')}")
    again = client.apply(*wanted("f"))
    assert not again["changed"] and not again["failed"], again


@pytest.mark.long
def test_absent_without_a_line_in_fstab(client: Client) -> None:
    """There: "ok", and it stays mounted."""
    client.mount("a")
    client.mount("a")
    result = client.apply(client.item("a", state="absent", remove_mount_point=True))
    assert not result["failed"] and result["changed"]
    assert client.live == []
    assert client.node.ssh(f"ls -d {client.path} 2>&1; true").startswith("ls: cannot access")


@pytest.mark.long
def test_fstab_line_removed_before_a_busy_unmount(client: Client) -> None:
    """There: the line goes, the unmount fails, and the next run is green with the mount still there."""
    client.apply(client.item("a"))
    client.node.ssh(
        f"cd {client.path} && (exec -a holder sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > /run/holder)"
    )
    before = client.fstab
    for _run in (1, 2):
        result = client.apply(client.item("a", state="absent"))
        assert result["failed"] and not result["changed"]
        pid = client.node.ssh("cat /run/holder").strip()
        assert f"it is busy: held by process {pid} (sleep)" in result["msg"]
        assert client.live == [client.export("a")] and client.fstab == before
    client.node.ssh("kill $(cat /run/holder); sleep 0.5")
    assert not client.apply(client.item("a", state="absent"))["failed"]
    assert client.live == [] and client.fstab == []


@pytest.mark.long
def test_busy_mount_changed_by_remount_and_otherwise_named(client: Client) -> None:
    client.apply(client.item("a"))
    client.node.ssh(f"cd {client.path} && (sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > /run/holder)")
    result = client.apply(client.item("a", "ro"))
    assert not result["failed"] and "ro" in client.live_options, "generic flags need no gap"
    result = client.apply(client.item("a", "ro,soft"))
    assert "hard instead of soft" in result["msg"] and "(sleep)" in result["msg"]
    assert client.fstab == [f"{client.export('a')} {client.path} nfs ro 0 0"]
    result = client.apply(client.item("b", unmount="lazy"))
    assert not result["failed"] and client.live == [client.export("b")], "the holder keeps the old one"
    client.node.ssh("kill $(cat /run/holder)")


@pytest.mark.long
def test_stale_handle_with_a_misleading_message(client: Client) -> None:
    """There: "Error making dir ...: File exists" for ever."""
    export = client.exports[0]
    client.apply(client.item("a"))
    client.server.ssh(f"rmdir {export} && mkdir {export} && exportfs -f")
    seen = {mount["path"]: mount for mount in client.info()["mounts"]}[client.path]
    assert (seen["health"], seen["stacked"]) == ("stale", False), seen
    assert "Stale file handle" in seen["detail"] and seen["latency"] is not None
    result = client.apply(client.item("a"))
    assert not result["failed"], result
    assert f"{client.export('a')} was mounted with a stale file handle" in result["mounts"][0]["notes"]
    client.node.ssh(f"touch {client.path}/written")
    assert client.server.ssh(f"ls {export}").split() == ["written"]
    assert not client.apply(client.item("a"))["changed"]


@pytest.mark.long
def test_withdrawn_export_is_named(client: Client) -> None:
    client.apply(client.item("a"))
    client.server.ssh(f"exportfs -u 192.168.77.0/24:{client.exports[0]} && exportfs -f")
    result = client.apply(client.item("a"))
    assert "access denied" in result["msg"] or "does not export it" in result["msg"], result["msg"]
    assert "stays mounted, with a stale file handle" in result["msg"]
    client.server.ssh("exportfs -ra")
    assert not client.apply(client.item("a"))["failed"]


# systemd, and the rest ------------------------------------------------------------------------------


@pytest.mark.long
def test_automount_is_armed_used_changed_and_taken_away(client: Client) -> None:
    auto = client.item("a", automount=True, automount_idle_timeout=600)
    result = client.apply(auto)
    assert not result["failed"], result
    assert client.live == ["systemd-1"]
    assert not client.apply(auto)["changed"], "an armed trigger is as wanted, and is not set off"
    assert client.live == ["systemd-1"]
    client.node.ssh(f"touch {client.path}/x")
    assert client.live == ["systemd-1", client.export("a")]
    (trigger,) = [each for each in client.info()["automounts"] if each["path"] == client.path]
    assert (trigger["idle_timeout"], trigger["mounted"]) == (600, [client.export("a")])
    assert not client.apply(auto)["changed"]
    changed = client.apply({**auto, "options": "soft", "automount_idle_timeout": 300})
    assert not changed["failed"] and client.live == ["systemd-1"], changed
    client.node.ssh(f"ls {client.path}")
    assert "soft" in client.live_options
    plain = client.apply(client.item("a"))
    assert not plain["failed"] and client.live == [client.export("a")], plain
    back = client.apply(auto)
    assert not back["failed"] and client.live == ["systemd-1"], back
    gone = client.apply(client.item("a", state="absent", remove_mount_point=True))
    assert not gone["failed"] and client.live == [] and client.fstab == [], gone


@pytest.mark.long
def test_soft_by_default_of_the_host_of_a_server_and_of_a_mount_point(client: Client) -> None:
    defaults = [{"options": ["timeo=70"], "path": client.path}, {"options": ["softerr"], "server": SERVER}]
    result = client.apply(client.item("a"), mount_defaults=defaults)
    assert not result["failed"] and result["mount_defaults_changed"], result
    assert {"softerr", "timeo=70"} <= client.live_options, "as nfs-utils reads it"
    assert not client.apply(client.item("a"), mount_defaults=defaults)["changed"]
    result = client.apply(client.item("a"), mount_defaults=[])
    assert not result["failed"] and {"hard", "timeo=600"} <= client.live_options
    assert client.node.ssh("ls /etc/nfsmount.conf.d 2>/dev/null; true").split() == []


@pytest.mark.long
def test_same_server_under_another_name_is_reported_and_not_remounted(client: Client) -> None:
    client.node.ssh(f"grep -q nfs-alias /etc/hosts || echo {SERVER} nfs-alias >> /etc/hosts")
    client.apply(client.item("a"))
    number = client.node.ssh(f"awk '$5 == \"{client.path}\" {{print $1}}' /proc/self/mountinfo")
    result = client.apply({**client.item("a"), "src": f"nfs-alias:{client.exports[0]}"})
    assert "under another name" in result["mounts"][0]["notes"][0]
    assert client.node.ssh(f"awk '$5 == \"{client.path}\" {{print $1}}' /proc/self/mountinfo") == number
