# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that nobody needs go into quarantine, come back, and go for good; a server with clients, kubelets and pods.

Each test begins with what the one before it has left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.lifecycle import Lab
from tests.integration.conftest import play, run
from tests.integration.objects import KEPT, VOLUMES, Objects

CLEANUP = "clusterkit.storage.cleanup"
SERVER = "192.168.77.11"
OWN, TRASH = ".clusterkit", ".clusterkit/trash"
ORPHAN, ARCHIVE, FOREIGN = (f"k8s/dpv/{name}" for name in ("nobody", "archived-gone", "keep-mine"))
RELEASED = ("old", "back", "held", "nfs-pvc003")  # the last one has an export of its own
GIVEN = {"cleanup_released_for": "0s", "cleanup_max_changes": "100%", "cleanup_exclude": "keep-*,nfs-spv003"}
# The provisioner's pod mounts the whole share on its node.
OTHERS = {"cleanup_orphans": "true", "cleanup_archives": "true", "cleanup_allow_mounted_above": "true"}
WRITE = """
mkdir /mnt/deep
head -c 300000 /dev/urandom > /mnt/deep/data
cd /mnt
sha256sum deep/data > sums
ln -s sums link
sync
"""
# Made three days ago by the server's clock, since an orphan must be a day old, and times of change cannot be set.
MAKE_OLD = f"""
now=$(date +%s)
date -s "@$((now - 3 * 86400))" > /dev/null
for name in {ORPHAN} {ARCHIVE} {FOREIGN}; do
  mkdir -p /nfs/$name/deep && head -c 1000 /dev/urandom > /nfs/$name/deep/data
done
date -s "@$now" > /dev/null
"""
# Path, a tab, and all that must stay; not the content of what grows.
LOOK = r"""
cd /nfs
find . -printf '%P\t%y %m %U %G %i %l\n'
find . -type f ! -name lines -exec sha256sum {} + | sed -E 's,^([0-9a-f]+)  \./(.*),\2\t\1,'
"""
Tree = dict[str, str]


class World:
    """The volumes by their claims: names, and directories below /nfs."""

    def __init__(self, folder: Path) -> None:
        lab = Lab()
        self.folder = folder
        self.server, self.node = lab.guest("server1"), lab.guest("node1")
        self.cluster = Objects(lab)
        self.volumes: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.original: Tree = {}  # before the first clean-up

    def know(self, *claims: str) -> None:
        for name in claims:
            self.volumes[name] = self.cluster.volume_of(name)
            source = self.cluster.request("GET", f"{VOLUMES}/{self.volumes[name]}")["spec"]["nfs"]
            self.places[name] = source["path"].removeprefix("/nfs/")

    def release(self, *claims: str) -> None:
        self.cluster.delete_claims(*claims)
        wanted = [self.volumes[name] for name in claims]
        self.cluster.wait("all are released", lambda: {self.cluster.phase(one) for one in wanted} == {"Released"})

    def make(self) -> None:
        """One claim lives on with its pod, on the other node: mounts there keep nothing open of those given back."""
        claims = ("live", *RELEASED)
        for name in claims:
            if name != "nfs-pvc003":
                self.cluster.claim(name, KEPT)
        self.know(*claims)
        grow = "n=0; while :; do n=$((n + 1)); echo $n >> /mnt/lines; sleep 1; done"
        self.cluster.start("live", "live", grow, nodeName="node2")
        for name in RELEASED:
            self.cluster.start(f"write-{name}", name, WRITE, nodeName="node1")
        self.cluster.finished(*(f"write-{name}" for name in RELEASED))
        self.release(*RELEASED)
        # Kubelets may unmount when the pods are already gone from the API.
        self.cluster.wait("nothing of them is open", lambda: not self.open_in(*RELEASED))
        self.server.ssh(MAKE_OLD)
        self.server.set_clock()
        self.goes_on()

    def goes_on(self) -> None:
        """Wait until the pod that lives on has written more."""
        count = f"cat /nfs/{self.places['live']}/lines 2>/dev/null | wc -l"
        before = int(self.server.ssh(count))
        self.cluster.wait("the pod writes", lambda: int(self.server.ssh(count)) > before, 300)
        assert self.cluster.request("GET", f"{self.cluster.pods}/live")["status"]["phase"] == "Running"

    def open_in(self, *claims: str) -> list[str]:
        """Inodes in the directories of these volumes that nfsd has a state for."""
        paths = " ".join(f"/nfs/{self.places[name]}" for name in claims)
        states = "cat /proc/fs/nfsd/clients/*/states"
        pattern = r"""s/.*superblock: "[0-9a-f]+:[0-9a-f]+:([0-9]+)".*/\1/p"""
        script = f"find {paths} -printf '%i\\n' | sort > /tmp/inodes; {states} | sed -nE '{pattern}' | sort -u"
        return self.server.ssh(f"{script} | comm -12 - /tmp/inodes").split()

    def hold(self) -> None:
        """A process of node1 keeps a file open in a volume that is Released."""
        source = f"{SERVER}:/nfs/{self.places['held']}"
        self.node.ssh(
            f"mkdir -p /mnt/held; mount -t nfs -o nfsvers=4.1 {source} /mnt/held && "
            "systemd-run --unit=holder sh -c 'exec sleep infinity >> /mnt/held/open'"
        )
        self.cluster.wait("it is open", lambda: self.open_in("held"), 60)

    def let_go(self) -> None:
        self.node.ssh("systemctl stop holder; umount /mnt/held")
        self.cluster.wait("it is closed", lambda: not self.open_in("held"))

    def tree(self) -> Tree:
        """All below /nfs by path: kind, mode, owner, inode, target and checksum."""
        found: Tree = {}
        for line in self.server.ssh(LOOK).splitlines():
            path, _tab, told = line.partition("\t")
            found[path] = f"{found.get(path, '')} {told}"
        return found

    def objects(self) -> dict[str, Any]:
        return {one["metadata"]["name"]: one for one in self.cluster.request("GET", VOLUMES)["items"]}

    def quarantined(self) -> dict[str, dict[str, Any]]:
        """Manifests by the directory below /nfs that they are about; of one that a power cut left empty, nothing."""
        each = "if [ -s $file ]; then tr -d '\\n' < $file; echo; fi"
        text = self.server.ssh(f"for file in /nfs/{TRASH}/*/manifest.json; do {each}; done")
        manifests = [json.loads(line) for line in text.splitlines()]
        return {one["directory"].removeprefix("/nfs/"): one for one in manifests}

    def away(self, original: Tree, *places: str) -> set[str]:
        """Which of these directories are in quarantine. Each is, whole and with a manifest, or is in its place."""
        now, manifests = self.tree(), self.quarantined()
        found = set()
        for place in places:
            data = f"{TRASH}/{manifests[place]['entry']}/data" if place in manifests else ""
            tops = [top for top in (place, data) if top and top in now]
            assert len(tops) == 1, f"{place} is in {tops}"
            assert below(now, tops[0]) == below(original, place)
            if tops[0] == data:
                found.add(place)
        assert outside(now, *places) == outside(original, *places)
        return found

    def cut_power(self, moment: Callable[[], object]) -> None:
        """Cut the power of the server at this moment of a clean-up; it comes back when the run has given up."""
        boot = self.server.ssh("cat /proc/sys/kernel/random/boot_id")
        arguments = [f"-e{key}={value}" for key, value in GIVEN.items()]
        arguments += ["-ecleanup_confirm=true", f"-ecleanup_plan_dest={self.folder}/plan.json"]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(play, CLEANUP, *arguments)
            moment()
            assert not running.done(), running.result().output[-3000:]
            self.server.reset()
            self.server.freeze()
            try:
                ended = running.result()
            finally:
                self.server.thaw()
        assert ended.status != 0, ended.output[-3000:]
        self.server.wait_new_boot(boot)
        self.server.set_clock()
        # Until all clients have told what they have open.
        self.server.ssh("until grep -qs Y /proc/fs/nfsd/v4_end_grace; do sleep 1; done")


def below(tree: Tree, top: str) -> Tree:
    return {path[len(top) :]: told for path, told in tree.items() if f"{path}/".startswith(f"{top}/")}


def outside(tree: Tree, *tops: str) -> Tree:
    """All but these, and the folder of the collection."""
    tops = (*(f"{top}/" for top in tops), f"{OWN}/")
    return {path: told for path, told in tree.items() if not f"{path}/".startswith(tops)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("plans"))
    made.make()
    return made


def test_every_directory_is_told_apart_and_a_plan_changes_nothing(world: World) -> None:
    before, volumes, report = world.tree(), world.objects(), world.folder / "report.jsonl"
    shown = run("cleanup", world.folder, cleanup_report=report, **GIVEN, **OTHERS)
    assert "Nothing was done" in shown.words
    assert (world.tree(), world.objects()) == (before, volumes)
    told = {one["path"].removeprefix("/nfs/"): one["class"] for one in map(json.loads, report.read_text().splitlines())}
    assert told == {
        **{world.places[name]: "released" for name in ("old", "back", "held")},
        **dict.fromkeys((world.places["live"], "k8s/spv_001", "k8s/spv_002"), "bound"),
        **dict.fromkeys((world.places["nfs-pvc003"], FOREIGN), "foreign"),
        "k8s/spv_003/deep": "shared",
        ORPHAN: "orphan",
        ARCHIVE: "archived",
    }


def test_what_was_planned_goes_and_what_a_client_has_open_stays(world: World) -> None:
    world.hold()
    world.original, volumes = world.tree(), world.objects()
    done = play(CLEANUP, f"-ecleanup_plan_file={world.folder}/plan.json")
    assert done.status != 0, "one of them could not be moved"
    why = rf"{world.volumes['held']} \(refused\): inode \d+ in it is open by 192\.168\.77\.21"
    assert re.search(why, done.words), done.output[-3000:]
    left = world.objects()
    assert set(volumes) - set(left) == {world.volumes[name] for name in ("old", "back")}
    assert left == {name: one for name, one in volumes.items() if name in left}
    gone = {world.places["old"], world.places["back"], ORPHAN, ARCHIVE}
    assert world.away(world.original, *gone) == gone
    manifests = world.quarantined()
    assert set(manifests) == gone
    for name in ("old", "back"):
        kept = manifests[world.places[name]]["objects"]["volume"]
        assert kept["spec"] == volumes[world.volumes[name]]["spec"]
    assert not world.server.ssh(f"ls /nfs/{OWN}/intents")
    world.goes_on()


def test_a_second_run_has_nothing_to_do(world: World) -> None:
    before, volumes = world.tree(), world.objects()
    exclude = f"{GIVEN['cleanup_exclude']},{world.volumes['held']}"
    given = {**GIVEN, **OTHERS, "cleanup_exclude": exclude}
    again = run("cleanup", world.folder, cleanup_confirm="true", **given)
    assert "0 to change" in again.words
    assert again.recap("server1")["changed"] == again.recap("localhost")["changed"] == 0
    assert (outside(world.tree()), world.objects()) == (outside(before), volumes)
    world.let_go()


def test_a_volume_comes_back_for_its_claim_and_a_pod_reads_what_was_in_it(world: World) -> None:
    place, volume = world.places["back"], world.volumes["back"]
    run("undelete", world.folder, undelete_names=volume, undelete_confirm="true")
    spec = world.objects()[volume]["spec"]
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    assert (spec["claimRef"]["name"], spec["claimRef"].get("uid")) == ("back", None)
    assert below(world.tree(), place) == below(world.original, place)
    world.cluster.claim("back", KEPT)
    assert world.cluster.volume_of("back") == volume
    world.cluster.start("read", "back", "cd /mnt; sha256sum -c sums; test -L link", nodeName="node1")
    world.cluster.finished("read")


def test_a_volume_that_is_opened_is_empty_for_the_next_one(world: World) -> None:
    place, volume = world.places["nfs-pvc003"], world.volumes["nfs-pvc003"]
    given = {"reclaim_names": volume, "reclaim_release": "open", "reclaim_content": "quarantine"}
    run("reclaim", world.folder, reclaim_confirm="true", **given)
    now, was = world.tree(), below(world.original, place)
    assert below(now, place) == {"": was.pop("")}, "the directory itself stays as it was"
    data = below(now, f"{TRASH}/{world.quarantined()[place]['entry']}/data")
    del data[""]
    assert data == was
    world.cluster.claim("next", "nfs", "1Gi")
    assert world.cluster.volume_of("next") == volume
    world.cluster.start("find", "next", 'test -z "$(ls -A /mnt)"; echo mine > /mnt/mine; sync', nodeName="node1")
    world.cluster.finished("find")


def test_nothing_goes_for_good_before_its_time_but_by_a_word(world: World) -> None:
    before, volumes, manifests = world.tree(), world.objects(), world.quarantined()
    assert set(manifests) == {world.places["old"], world.places["nfs-pvc003"], ORPHAN, ARCHIVE}
    early = run("purge", world.folder, purge_confirm="true")
    assert "0 to change" in early.words
    assert below(world.tree(), TRASH) == below(before, TRASH)
    run("purge", world.folder, purge_confirm="true", purge_allow_now="true", purge_names="*")
    assert set(below(world.tree(), TRASH)) == {""}
    assert (outside(world.tree()), world.objects()) == (outside(before), volumes)
    world.goes_on()


@pytest.mark.long
def test_power_of_the_server_is_cut_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Connections of their own, which notice that a machine is no longer there.
    monkeypatch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", str(world.folder / "cp"))
    alive = "-o ServerAliveInterval=10 -o ServerAliveCountMax=3"
    monkeypatch.setenv("ANSIBLE_SSH_ARGS", f"-o ControlMaster=auto -o ControlPersist=60s {alive}")
    cut = [f"cut-{number}" for number in range(4)]
    for name in cut:
        world.cluster.claim(name, KEPT)
    world.know(*cut)
    for name in cut:
        world.server.ssh(f"cd /nfs/{world.places[name]}; mkdir deep; head -c 300000 /dev/urandom > deep/data; sync")
    world.release(*cut)
    names = {world.volumes[name] for name in (*cut, "held")}
    places = {world.places[name] for name in (*cut, "held")}
    original, volumes = world.tree(), world.objects()

    # The objects are gone, and their directories about to be moved.
    world.cut_power(lambda: world.cluster.wait("one is gone", lambda: names - world.cluster.names(VOLUMES), 600))
    assert not world.away(original, *places)
    intents = world.server.ssh(f"ls /nfs/{OWN}/intents")
    assert all(volumes[name]["metadata"]["uid"] in intents for name in names)
    # The run that finishes it begins to move.
    first = f'until [ "$(ls /nfs/{TRASH})" ]; do sleep 0.02; done'
    world.cut_power(lambda: world.server.ssh(first, timeout=600))
    world.away(original, *places)

    for _run in range(3):
        done = run("cleanup", world.folder, cleanup_confirm="true", **GIVEN)
        if "0 to change" in done.words:
            break
    else:
        pytest.fail(done.output[-3000:])
    assert world.away(original, *places) == places
    assert set(volumes) - set(world.objects()) == names
    assert not world.server.ssh(f"ls /nfs/{OWN}/intents")
    world.goes_on()
