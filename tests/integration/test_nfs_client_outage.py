# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's promises while servers are dead; "there" is ansible.posix.mount 2.2.2, as it was seen to behave.

Each test has an export and a mount point of its own; the lab is brought back for whoever needs it next.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.machine import Guest

from .conftest import INVENTORY, ROOT, play
from .nfs_client import Client

# How long a module may take to start and to end on an emulated machine.
STARTING = 30


@pytest.fixture
def frozen(client: Client) -> Iterator[Callable[[], None]]:
    """Freeze the server when asked to; it goes on afterwards in any case."""
    yield client.server.freeze
    client.server.thaw()
    client.server.set_clock()


@pytest.mark.long
def test_hang_on_a_frozen_server(client: Client, frozen: Callable[[], None]) -> None:
    """There: 120 s and more for what is mounted already, for an unmount, and for a new mount."""
    client.apply(client.item("a"), {**client.item("b"), "path": f"{client.path}-soft", "options": "soft"})
    frozen()
    time.sleep(1)
    timeout = 15

    def timed(*mounts: dict[str, Any]) -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        result = client.apply(*mounts, timeout=timeout)
        return result, time.monotonic() - began

    result, seconds = timed(client.item("a"), {**client.item("b"), "path": f"{client.path}-soft", "options": "soft"})
    assert not result["changed"] and not result["failed"]
    assert "does not answer" in result["mounts"][0]["notes"][0]
    assert seconds < timeout + 1 + STARTING
    result, seconds = timed({**client.item("c"), "path": f"{client.path}-new"})
    assert "no answer" in result["msg"] and seconds < timeout + 1 + STARTING
    result, seconds = timed({**client.item("b", state="unmounted"), "path": f"{client.path}-soft"})
    assert not result["failed"] and result["changed"] and seconds < timeout + 1 + STARTING
    result, seconds = timed(client.item("a", state="unmounted"))
    assert not result["failed"] and result["changed"] and seconds < timeout + 1 + STARTING
    assert client.live == []


@pytest.mark.long
def test_killed_play_does_nothing_after_the_thaw(client: Client, frozen: Callable[[], None]) -> None:
    """There: an abandoned module unmounted its path about a minute after its play had been given up."""
    client.apply(client.item("a"))
    client.node.ssh(f"cd {client.path} && touch x")
    frozen()
    before = client.fstab
    # To mount from a frozen server waits; the play is killed while it does. What is mounted already is not in the list:
    # its server would be asked for a sign of life first, and then nothing waits.
    wanted = {"mounts": [client.item("b", path=f"{client.path}-new")], "timeout": 300}
    playbook, results = client.write("nfs_mounts", wanted)
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "lab/ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
    }
    argv = [str(ROOT / ".work/venv/bin/ansible-playbook"), str(playbook), "-i", str(INVENTORY)]
    running = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # With pipelining the module's command line says only python3: it is found as the ancestor of its mount.nfs.
    find = (
        "p=$(pgrep -o -f '[m]ount.nfs.*-new') || exit 0;"
        "until grep -q python /proc/$p/comm; do p=$(ps -o ppid= -p $p | tr -d ' '); done; echo $p"
    )
    deadline = time.monotonic() + 120
    while not (module := client.node.ssh(find).strip()):
        assert running.poll() is None, "the play ended before it was killed"
        assert time.monotonic() < deadline
    os.killpg(running.pid, signal.SIGTERM)  # as timeout(1) does
    running.wait(timeout=60)
    assert not results.exists()
    deadline = time.monotonic() + 20
    while "lives" in client.node.ssh(f"[ ! -d /proc/{module} ] || echo lives"):
        assert time.monotonic() < deadline, "the module outlives its play"
        time.sleep(1)
    client.server.thaw()
    time.sleep(20)
    assert client.fstab == before and client.live == [client.export("a")]
    assert client.node.ssh(f"grep -c ' {client.path}-new ' /etc/fstab; true").strip() == "0"
    assert client.node.ssh(f"grep -c ' {client.path}-new ' /proc/self/mountinfo; true").strip() == "0"


LOOK = """
import json, resource, sys, time
sys.path.insert(0, "/opt/look")
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts_info
began = time.monotonic()
found = _mounts_info.look(float(sys.argv[1]), "/var/lib/kubelet")
seconds = time.monotonic() - began
print(json.dumps({"seconds": seconds, **found}))
"""


def module_utils() -> bytes:
    """The code of the modules, as a tar file for a machine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in sorted((ROOT / "plugins/module_utils").glob("*.py")):
            tar.add(file, f"opt/look/ansible_collections/clusterkit/storage/plugins/module_utils/{file.name}")
        script = tarfile.TarInfo("opt/look/look.py")
        script.size = len(LOOK)
        tar.addfile(script, io.BytesIO(LOOK.encode()))
    return buffer.getvalue()


def checking(node: Guest) -> int:
    """How many processes hold the lock file of the checks open."""
    return int(node.ssh("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c clusterkit-mount-checks.lock; true"))


@pytest.mark.long
def test_fifty_dead_mounts_and_never_more_than_one_child_each(client: Client, frozen: Callable[[], None]) -> None:
    client.node.ssh("tar -C / -xf -", stdin=module_utils())
    client.node.ssh(
        f"for n in $(seq 50); do mkdir -p {client.path}/$n; "
        f"mount -t nfs -o nosharecache {client.export('a')} {client.path}/$n || exit; done"
    )
    try:
        # In emulation 50 children may need more than the 5 s below to begin.
        found = json.loads(client.node.ssh("python3 /opt/look/look.py 30"))
        mine = [mount for mount in found["mounts"] if mount["path"].startswith(client.path)]
        assert [mount["health"] for mount in mine] == ["ok"] * 50
        assert len({mount["major_minor"] for mount in mine}) == 50, "each has a superblock of its own"
        frozen()
        for _run in range(3):
            found = json.loads(client.node.ssh("python3 /opt/look/look.py 5"))
            assert found["seconds"] <= 5 + 1, found["seconds"]
            mine = [mount for mount in found["mounts"] if mount["path"].startswith(client.path)]
            assert [mount["health"] for mount in mine] == ["unreachable"] * 50
            assert all("does not answer either" in mount["detail"] for mount in mine)
            assert [server["answers"] for server in found["servers"]] == [False]
            assert checking(client.node) <= 50 + len(found["mounts"]) - len(mine)
        began = time.monotonic()
        result = client.info(timeout=5)
        assert time.monotonic() - began < 5 + 1 + STARTING
        assert {mount["health"] for mount in result["mounts"]} == {"unreachable"}
        client.server.thaw()
        time.sleep(10)
        found = json.loads(client.node.ssh("python3 /opt/look/look.py 30"))
        assert {mount["health"] for mount in found["mounts"]} == {"ok"}
        assert checking(client.node) == 0
    finally:
        client.server.thaw()
        client.node.ssh(f"umount {client.path}/*")


@pytest.mark.long
def test_hung_mount_of_a_server_that_answers_is_told_apart(client: Client) -> None:
    """nfsd answers the NULL call by itself; for everything else it waits for rpc.mountd, which stands still here."""
    client.apply(client.item("a"))
    client.server.ssh("systemctl kill -s STOP nfs-mountd && exportfs -f")
    try:
        found = client.info(timeout=4)
        seen = {mount["path"]: mount for mount in found["mounts"]}[client.path]
        assert seen["health"] == "hung", seen
        assert "though its server answers" in seen["detail"]
        assert [server["answers"] for server in found["servers"]] == [True]
        result = client.apply(client.item("a"), timeout=8)
        assert not result["failed"] and not result["changed"]
        assert result["mounts"][0]["notes"] == ["gave no answer within 4 s, though its server answers"]
    finally:
        client.server.ssh("systemctl kill -s CONT nfs-mountd")
    time.sleep(5)
    assert {mount["health"] for mount in client.info(timeout=30)["mounts"]} == {"ok"}


@pytest.mark.long
def test_abort_frees_a_writer_and_spares_others(client: Client, frozen: Callable[[], None]) -> None:
    # Their own superblock, apart from the other mounts of the node.
    both = [client.item("a", "rsize=65536"), {**client.item("b", "rsize=65536"), "path": f"{client.path}-other"}]
    client.apply(*both)
    seen = {mount["path"]: mount for mount in client.info()["mounts"]}
    mine, other = seen[client.path], seen[f"{client.path}-other"]
    assert mine["major_minor"] == other["major_minor"] and other["path"] in mine["shares_superblock_with"]
    frozen()
    gone = {"path": client.path, "state": "unmounted", "unmount": "abort"}
    identity = {"mount_id": mine["mount_id"], "major_minor": mine["major_minor"]}
    result = client.apply({**gone, **identity}, timeout=15)
    assert "share its superblock" in result["msg"] and not result["changed"]
    result = client.apply({**gone, "unmount": "lazy", "mount_id": 1, "major_minor": "0:1"}, timeout=15)
    assert not result["changed"], "not the mount that was looked at"
    result = client.apply({**gone, **identity, "unmount": "lazy"}, timeout=15)
    assert result["changed"] and client.live == []
    result = client.apply({**gone, "path": other["path"]}, timeout=15)
    assert result["changed"] and not result["failed"], "nobody shares it any more"


@pytest.mark.long
def test_a_play_limited_to_the_nodes_ends_while_the_server_is_frozen(frozen: Callable[[], None]) -> None:
    """site goes on to try the exports from the nodes: that fails, names the server, and ends in time."""
    frozen()
    began = time.monotonic()
    run = play(
        "clusterkit.storage.site",
        *("--limit", "nfs_clients:localhost", "-enfs_client_mount_timeout=60"),
        timeout=600,
    )
    seconds = time.monotonic() - began
    assert seconds < 240, seconds
    # Whether its address is still known decides which of them it is.
    assert run.status != 0 and re.search("no answer from the server within|No route to host", run.words), run.output
    assert run.recap("node1")["changed"] == 0
