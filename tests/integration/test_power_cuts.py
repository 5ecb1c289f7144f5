# SPDX-License-Identifier: GPL-3.0-or-later
"""The server loses power while directories of volumes move: nothing is lost, and the next run finishes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lifecycle import Lab
from lab.machine import Guest, every

from .conftest import INVENTORY, ROOT, play

VOLUMES = 24
SHARE, OWN = "/nfs/k8s/dpv", "/nfs/.clusterkit"
MAKE = f"""
cd {SHARE}
for number in $(seq {VOLUMES}); do
  [ -e cut-$number ] && continue
  mkdir -p cut-$number/deep
  head -c 20000 /dev/urandom > cut-$number/deep/data
  echo $number > cut-$number/file
  ln -s file cut-$number/link
done
sync
"""
# Of each directory its name, where it lies, its identity, and a checksum of what is in it. What is being purged may
# have lost its name already. One process: in emulation each start of a program costs time.
LOOK = f"""
import glob, hashlib, json, os

def content(place):
    found = []
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                said = os.readlink(path)
            elif os.path.isdir(path):
                said = ""
            else:
                said = hashlib.sha256(open(path, "rb").read()).hexdigest()
            found.append([os.path.relpath(path, place), said])
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()

found = []
for place in glob.glob("{SHARE}/cut-*") + glob.glob("{OWN}/trash/*/data"):
    try:
        name = open(place + "/file").read().strip()
    except FileNotFoundError:
        if os.path.exists(os.path.join(os.path.dirname(place), "purging.json")):
            continue
        raise
    status = os.stat(place)
    found.append([name, place, dict(device=status.st_dev, inode=status.st_ino), content(place)])
print(json.dumps(found))
"""
TOLD = f"""
import glob, json, os

os.chdir("{OWN}")
found = sorted(glob.glob("intents/*.json") + glob.glob("trash/*/*.json"))
print(json.dumps(dict((path, json.load(open(path))) for path in found if os.path.getsize(path))))
"""
# All that must stay as it is.
AROUND = """
cd /nfs
find . -path ./.clusterkit -prune -o -path './k8s/dpv/cut-*' -prune -o -type f -exec sha256sum {} + | sort
"""
# Until so many lie in quarantine. Each loop is cheap, so that the run it waits for is not slowed down. What is written
# then and not flushed must be lost: otherwise the power was not cut.
WAIT = f"""
import os, time

def write(name):
    with open("/root/" + name, "w") as stream:
        stream.write(name)
        if name == "kept":
            stream.flush()
            os.fsync(stream.fileno())

def wait(reached):
    write("kept")
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if reached(len(os.listdir("{OWN}/trash"))):
            write("lost")
            print("yes")
            break
        time.sleep(0.01)
    else:
        print("no")

"""
# Connections of their own, which end with the run.
ALONE = "-o ControlMaster=no -o ControlPath=none"


class Server:
    """Directories of volumes on the server, and the run that moves them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.guest = lab.guest("server1")
        self.folder = folder
        uid = lab.control_plane.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
        self.common = {"shares": [SHARE], "cluster_uid": uid, "allow_unknown_open_state": True}

    def places(self) -> dict[str, tuple[str, dict[str, int], str]]:
        """By volume: its place, its identity and the checksum of its content. Nothing is in two places."""
        found: dict[str, tuple[str, dict[str, int], str]] = {}
        for number, place, identity, digest in json.loads(self.guest.ssh("python3 -", stdin=LOOK.encode())):
            assert number not in found, f"{number} is in {place} and in {found[number][0]}"
            found[number] = (place, identity, digest)
        return found

    def told(self) -> dict[str, Any]:
        """Intents and manifests by their paths."""
        told: dict[str, Any] = json.loads(self.guest.ssh("python3 -", stdin=TOLD.encode()))
        return told

    def tasks(self, state: str) -> list[dict[str, Any]]:
        places = self.places()
        if state in ("restored", "purged"):
            entries = [
                {
                    "id": number,
                    "share": SHARE,
                    "entry": place.split("/")[-2],
                    "precondition": identity,
                    **({"directory": f"{SHARE}/cut-{number}"} if state == "restored" else {}),
                }
                for number, (place, identity, _digest) in places.items()
                if place.startswith(OWN)
            ]
            return [self.task(state, entries, **({"allow_purge_now": True} if state == "purged" else {}))]
        steps = [
            {
                "id": number,
                "share": SHARE,
                "directory": place,
                "precondition": identity,
                "volume": (volume := {"name": f"pv-{number}", "uid": f"uid-{number}"}),
                "objects": {"volume": {"kind": "PersistentVolume", "metadata": volume}},
            }
            for number, (place, identity, _digest) in places.items()
            if place.startswith(SHARE)
        ]
        return [self.task("intended", steps), self.task("quarantined", steps)]

    def task(self, state: str, steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        given = {"state": state, "steps": steps, **self.common, **more}
        return {"name": state, "clusterkit.storage.volume_dirs": given}

    def playbook(self, state: str) -> Path:
        path = self.folder / f"{state}.yml"
        plays = [{"name": state, "hosts": "server1", "gather_facts": False, "tasks": self.tasks(state)}]
        path.write_text(yaml.safe_dump(plays))
        return path

    def cut(self, state: str, moment: str) -> None:
        """Cut the power while it runs, as soon as the moment has come on the server."""
        boot = self.guest.ssh("rm -f /root/lost; sync; cat /proc/sys/kernel/random/boot_id")
        argv = [str(ROOT / ".work/venv/bin/ansible-playbook"), str(self.playbook(state)), "-i", str(INVENTORY)]
        environment = {
            **os.environ,
            "ANSIBLE_SSH_ARGS": ALONE,
            "ANSIBLE_CONFIG": str(ROOT / "lab/ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
        }
        running = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            came = self.guest.ssh("python3 -", stdin=(WAIT + moment).encode(), timeout=660)
            self.guest.reset()
            assert came.strip() == "yes" and running.poll() is None, running.communicate(timeout=10)
        finally:
            for process in family(running.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            running.communicate()
        self.guest.wait_new_boot(boot)
        self.guest.set_clock()
        assert self.guest.ssh("cat /root/kept; cat /root/lost 2>/dev/null || true") == "kept"

    def finish(self, state: str) -> None:
        done = play(self.playbook(state), ANSIBLE_SSH_ARGS=ALONE)
        assert done.status == 0, done.output[-3000:]

    def check_nothing_is_lost(self, state: str, before: dict[str, tuple[str, dict[str, int], str]]) -> None:
        """Each is whole in its place, or in quarantine beside a manifest, or is being purged."""
        found, told = self.places(), self.told()
        texts = json.dumps(list(told.values()))
        for number, (was, _identity, digest) in before.items():
            place = found[number][0] if number in found else ""
            manifests = [path for path in told if place and f"/{place.split('/')[-2]}/" in path]
            if state == "purged" and (not place or any(path.endswith("/purging.json") for path in manifests)):
                continue
            assert place, f"{state}: {number} is lost, it was in {was}"
            assert found[number][2] == digest, f"{state}: {number} has another content in {place}"
            assert place.startswith(SHARE) or manifests, f"{state}: {place} has no manifest"
            if not (was.startswith(SHARE) and place.startswith(SHARE)):
                assert f'"uid-{number}"' in texts, f"{state}: the objects of {number} cannot be made again"


def family(process: int) -> list[int]:
    """A process and all that it has started: Ansible's workers have sessions of their own."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [process, *(each for child in found.stdout.split() for each in family(int(child)))]


def moment(state: str, count: int) -> str:
    """The last line of WAIT: so many are done."""
    return f"wait(lambda waiting: waiting {f'> {count}' if state == 'quarantined' else f'< {VOLUMES - count}'})"


@pytest.fixture
def server(used: Lab, tmp_path: Path) -> Iterator[Server]:
    made = Server(used, tmp_path)
    present = {"state": "present", "shares": [SHARE], "clusters": [made.common["cluster_uid"]]}
    path = tmp_path / "present.yml"
    tasks = [{"name": "The folder", "clusterkit.storage.volume_dirs": present}]
    path.write_text(yaml.safe_dump([{"name": "Note", "hosts": "server1", "gather_facts": False, "tasks": tasks}]))
    done = play(path, ANSIBLE_SSH_ARGS=ALONE)
    assert done.status == 0, done.output[-3000:]
    nodes = [guest for guest in used.guests if guest.machine.role == "node"]
    every(nodes, Guest.freeze)  # nothing is asked of them here, and idle ones take a quarter of a processor
    yield made
    every(nodes, Guest.thaw)


def test_power_is_cut_while_directories_move(server: Server, request: pytest.FixtureRequest) -> None:
    states = ["quarantined", "restored"]
    if request.config.getoption("--long"):
        states = ["quarantined", "restored", "quarantined", "purged"] * 2 + states
    chance = random.Random(7)  # noqa: S311 - not for secrets
    for state in states:
        if state == "quarantined":
            server.guest.ssh(MAKE)
        before, around = server.places(), server.guest.ssh(AROUND)
        server.cut(state, moment(state, chance.randrange(VOLUMES - 1)))
        server.check_nothing_is_lost(state, before)
        assert server.guest.ssh(AROUND) == around
        server.finish(state)
        after, told = server.places(), server.told()
        if state == "purged":
            assert after == {}
        else:
            where = {"quarantined": f"{OWN}/trash/", "restored": f"{SHARE}/cut-"}[state]
            assert all(place.startswith(where) for place, _identity, _digest in after.values())
            assert {number: one[2] for number, one in after.items()} == {n: one[2] for n, one in before.items()}
        assert [path.split("/")[-1] for path in told if path.startswith("trash/")] == (
            ["manifest.json"] * VOLUMES if state == "quarantined" else []
        )
        assert server.guest.ssh(AROUND) == around
