# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's promises on real kernels: what ansible.posix.mount 2.2.2 was seen to get wrong, and dead servers.

Each test has an export and a mount point of its own; the lab is brought back when all are through.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lifecycle import Lab
from lab.machine import Guest

from .conftest import INVENTORY, ROOT, play

SERVER = "192.168.77.11"
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]
# How long a module may take to start and to end on an emulated machine.
STARTING = 30


@dataclass
class Client:
    """A node whose mounts are brought to what a test wants, and its server."""

    node: Guest
    server: Guest
    folder: Path
    path: str
    exports: list[str] = field(default_factory=list)

    def apply(self, *mounts: dict[str, Any], check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run nfs_mounts once; return its result."""
        result = self.run("nfs_mounts", {"mounts": list(mounts), **arguments}, check=check)
        assert len(result.get("mounts", [])) in (0, len(mounts)), result
        return result

    def info(self, **arguments: Any) -> dict[str, Any]:
        return self.run("nfs_mounts_info", arguments)

    def run(self, module: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        playbook, results = self.write(module, arguments)
        done = play(playbook, *(["--check"] if check else []), "--diff")
        assert results.exists(), done.output[-3000:]
        found: dict[str, Any] = json.loads(results.read_text())
        return found

    def write(self, module: str, arguments: dict[str, Any]) -> tuple[Path, Path]:
        results = self.folder / "result.json"
        results.unlink(missing_ok=True)
        tasks = [
            {
                "name": "Do",
                f"clusterkit.storage.{module}": arguments,
                "register": "result",
                "ignore_errors": True,  # the test judges
            },
            {
                "name": "Keep the result",
                "ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(results), "mode": "0600"},
                "delegate_to": "localhost",
                "check_mode": False,
            },
        ]
        playbook = self.folder / "play.yml"
        name = self.node.machine.name
        playbook.write_text(yaml.safe_dump([{"name": "P", "hosts": name, "gather_facts": False, "tasks": tasks}]))
        return playbook, results

    def item(self, name: str = "a", options: str = "", **more: Any) -> dict[str, Any]:
        return {"path": self.path, "src": f"{SERVER}:{self.exports[NAMES.index(name)]}", "options": options, **more}

    def mount(self, name: str, options: str = "rw", path: str = "") -> None:
        """Mount as a person would by hand."""
        path = path or self.path
        export = self.exports[NAMES.index(name)]
        self.node.ssh(f"mkdir -p {path} && mount -t nfs -o {options} {SERVER}:{export} {path}")

    def at(self, name: str) -> str:
        """Another mount point of this test."""
        return f"{self.path}-{name}" if name else self.path

    def live_at(self, name: str) -> list[str]:
        """What is mounted at a mount point, the lowest first."""
        return self.node.ssh(
            f"awk '$5 == \"{self.at(name)}\"' /proc/self/mountinfo | sed 's/.* - //' | cut -d' ' -f2"
        ).split()

    def live_options_at(self, name: str) -> set[str]:
        lines = self.node.ssh(f"awk '$5 == \"{self.at(name)}\"' /proc/self/mountinfo | tail -1").split()
        return {*lines[5].split(","), *lines[-1].split(",")}

    def fstab_at(self, name: str) -> list[str]:
        return self.node.ssh(f"grep ' {self.at(name)} ' /etc/fstab; true").splitlines()

    @property
    def live(self) -> list[str]:
        return self.live_at("")

    @property
    def live_options(self) -> set[str]:
        return self.live_options_at("")

    @property
    def fstab(self) -> list[str]:
        return self.fstab_at("")

    def export(self, name: str) -> str:
        return f"{SERVER}:{self.exports[NAMES.index(name)]}"


@pytest.fixture
def client(restored_at_the_end: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A mount point of this test's own, and eight exports."""
    name = request.node.name.partition("[")[0].removeprefix("test_")[:40]
    made = Client(restored_at_the_end.guest("node1"), restored_at_the_end.guest("server1"), tmp_path, f"/mnt/{name}")
    made.exports = [f"/nfs/{name}/{each}" for each in NAMES]
    lines = "".join(f"{each} 192.168.77.0/24(rw,no_root_squash,no_subtree_check)\\n" for each in made.exports)
    made.server.ssh(
        f"mkdir -p {' '.join(made.exports)} && printf '{lines}' > /etc/exports.d/{name}.exports && exportfs -ra"
    )
    yield made
    made.node.ssh(
        "systemctl stop 'mnt-*.automount';"
        f"awk '{{print $5}}' /proc/self/mountinfo | grep '^{made.path}' | tac | xargs -r -n 1 umount -l;"
        f"sed -i '\\: {made.path}:d' /etc/fstab; systemctl daemon-reload"
    )
    made.server.ssh(f"rm -f /etc/exports.d/{name}.exports; exportfs -ra")


@pytest.fixture
def frozen(client: Client) -> Iterator[Callable[[], None]]:
    """Freeze the server when asked to; it goes on afterwards in any case."""
    yield client.server.freeze
    client.server.thaw()
    client.server.set_clock()


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


# Dead servers ---------------------------------------------------------------------------------------


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
        looks = [json.loads(client.node.ssh("python3 /opt/look/look.py 5"))]
        mine = [mount for mount in looks[0]["mounts"] if mount["path"].startswith(client.path)]
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
