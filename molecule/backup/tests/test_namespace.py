# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace with its data is lost and brought back, with both engines; its pods write and read over NFS.

One claim was provisioned and holds 5,000 odd files, the other one has a volume that was made by hand. The tests build
on one another in their order.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.lifecycle import Lab
from tests.backup.trees import difference
from tests.integration.conftest import ROOT, Play, play
from tests.integration.objects import IDLE, VOLUMES, Objects

NAMESPACES = "/api/v1/namespaces"
SPACE = "shop"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{SPACE}/deployments"
SERVER, SHARE = "192.168.77.11", "/nfs/k8s/dpv"
BY_HAND = f"{SHARE}/{SPACE}-by-hand"
REPOSITORIES = "/srv/backups"  # on the server's own disk
ENGINES = ["rsync", "restic"]
PASSWORD = "kept-from-everybody-41"  # noqa: S105 - of a repository that lives as long as the test


class Shop:
    """The namespace, and what is done to it."""

    def __init__(self, folder: Path) -> None:
        lab = Lab()
        self.folder = folder
        self.server = lab.guest("server1")
        self.cluster = Objects(lab, SPACE)
        self.volumes: dict[str, str] = {}  # of the claims
        self.before: dict[str, dict[bytes, Any]] = {}  # what an engine has to bring back
        self.made: dict[str, dict[str, Any]] = {}  # the first generation of the odd files

    # The namespace ---------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove what an earlier run has left."""
        request = self.cluster.request
        if SPACE in self.cluster.names(NAMESPACES):
            request("DELETE", f"{NAMESPACES}/{SPACE}")
        self.cluster.wait("the namespace is gone", lambda: SPACE not in self.cluster.names(NAMESPACES))
        found = request("GET", VOLUMES)["items"]
        mine = {one["metadata"]["name"] for one in found if one["spec"].get("claimRef", {}).get("namespace") == SPACE}
        for name in mine:
            request("DELETE", f"{VOLUMES}/{name}")
        self.cluster.wait("the volumes are gone", lambda: not mine & self.cluster.names(VOLUMES))
        self.server.ssh(f"rm -rf {REPOSITORIES} {SHARE}/{SPACE}-*")

    def open(self) -> None:
        """Two claims, a file of a pod in each, and the odd files."""
        request, modes = self.cluster.request, ["ReadWriteMany"]
        self.server.put({"/root/trees.py": (ROOT / "tests/backup/trees.py").read_text()}, f"mkdir -m 0777 {BY_HAND}")
        request("POST", NAMESPACES, {"metadata": {"name": SPACE}})
        self.cluster.claim("data", "managed-nfs-storage")
        volume = {
            "capacity": {"storage": "1Mi"},
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "by-hand",
            "mountOptions": ["hard", "nfsvers=4.1"],
            "nfs": {"server": SERVER, "path": BY_HAND},
            "claimRef": {"namespace": SPACE, "name": "static"},
        }
        request("POST", VOLUMES, {"metadata": {"name": "shop-by-hand"}, "spec": volume})
        self.cluster.claim("static", "by-hand")
        self.volumes = {claim: self.cluster.volume_of(claim) for claim in ("data", "static")}
        self.run_pods({claim: f"echo {claim} > /mnt/hello; sync" for claim in self.volumes})
        # Where such a link leads to, restic cannot keep.
        self.python(f"odd_tree(Path({self.odd!r}), 5000); Path({self.odd!r}, 'odd/dangling').unlink()")
        for engine in ENGINES:
            self.before[engine] = self.picture(engine)

    @property
    def odd(self) -> str:
        return f"{SHARE}/{SPACE}-data-{self.volumes['data']}"

    def run_pods(self, scripts: dict[str, str]) -> None:
        """A pod for each claim; all must succeed."""
        accounts = f"{NAMESPACES}/{SPACE}/serviceaccounts"
        self.cluster.wait("pods may come", lambda: "default" in self.cluster.names(accounts))
        for claim, script in scripts.items():
            self.cluster.start(f"with-{claim}", claim, script)
        self.cluster.finished(*(f"with-{claim}" for claim in scripts), seconds=600)

    def read(self) -> None:
        """Pods find in both claims what has to be there."""
        hashes = sorted(one[4] for one in self.before["rsync"].values() if isinstance(one[4], str))
        assert len(hashes) > 4500
        wanted = hashlib.sha256("".join(f"{one}\n" for one in hashes).encode()).hexdigest()
        # Names have line breaks in them, hashes have not.
        found = "find /mnt -type f -exec sha256sum {} + | cut -c1-64 | grep -Ex '[0-9a-f]{64}' | sort | sha256sum"
        self.run_pods({"data": f'[ "$({found})" = "{wanted}  -" ]', "static": "grep -qx static /mnt/hello"})

    def python(self, code: str) -> str:
        script = f"from pathlib import Path\nfrom trees import odd_tree, picture\n{code}\n"
        return self.server.ssh("PYTHONPATH=/root python3 -", stdin=script.encode(), timeout=600)

    def picture(self, engine: str) -> dict[bytes, Any]:
        """All that an engine keeps of the odd files: content, owners, modes, times, attributes, links."""
        kept = engine == "rsync"
        said = self.python(f"print(picture(Path({self.odd!r}), holes={kept}, sockets={kept}))")
        found: dict[bytes, Any] = ast.literal_eval(said)
        return found

    # Playbooks -------------------------------------------------------------------------------------

    def run(self, playbook: str, engine: str, **given: Any) -> Play:
        """The password stands in a file that only we can read, and must not come to light anywhere else."""
        variables = {
            "backup_engine": engine,
            "backup_repository": f"{REPOSITORIES}/{engine}",
            "restore_plan_dest": str(self.folder / "plan.json"),
            **({"backup_password": PASSWORD} if engine == "restic" else {}),
            **given,
        }
        file = self.folder / "variables.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(variables))
        done = play(f"clusterkit.storage.{playbook}", "-vvv", "-e", f"@{file}")
        assert PASSWORD not in done.output
        return done

    def good(self, playbook: str, engine: str, **given: Any) -> Play:
        done = self.run(playbook, engine, **given)
        assert done.status == 0, done.output[-6000:]
        return done

    def back_up(self, engine: str) -> dict[str, Any]:
        """Both claims; returned is what was done of the odd files."""
        told = self.folder / "told.jsonl"
        self.good("backup", engine, backup_namespaces=SPACE, backup_create=True, backup_result_dest=str(told))
        results = [json.loads(line)["result"] for line in told.read_text().splitlines()]
        by_claim: dict[str, dict[str, Any]] = {one["claim"]: one for one in results}
        assert set(by_claim) == set(self.volumes)
        return by_claim["data"]

    def lose(self) -> None:
        """The namespace is deleted and its volumes are cleaned up."""
        self.cluster.request("DELETE", f"{NAMESPACES}/{SPACE}")
        self.cluster.wait("the namespace is gone", lambda: SPACE not in self.cluster.names(NAMESPACES))
        names = set(self.volumes.values())
        self.cluster.wait("both are released", lambda: {self.cluster.phase(one) for one in names} == {"Released"})
        given = {
            "cleanup_names": sorted(names),
            "cleanup_released_for": "0s",
            "cleanup_max_changes": "100%",
            "cleanup_plan_dest": str(self.folder / "cleanup.json"),
            "cleanup_confirm": True,
        }
        done = play("clusterkit.storage.cleanup", "-e", json.dumps(given))
        assert done.status == 0, done.output[-6000:]
        assert not names & self.cluster.names(VOLUMES)
        assert self.server.ssh(f"find {SHARE} -maxdepth 1 -name '{SPACE}-*'") == ""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The namespace after its first backup with each engine."""
    made = Shop(tmp_path_factory.mktemp("shop"))
    made.clear()
    made.open()
    for engine in ENGINES:
        made.made[engine] = made.back_up(engine)
    yield made
    made.clear()


@pytest.mark.parametrize("engine", ENGINES)
def test_unchanged_data_is_not_copied_again(shop: Shop, engine: str) -> None:
    first, second = shop.made[engine], shop.back_up(engine)
    assert first["complete"] and first["files"] > 4800
    assert second["complete"] and second["generation"] != first["generation"]
    assert (second["files"], second["changed_files"]) == (first["files"], 0)
    if engine == "rsync":
        assert second["copied_bytes"] == 0
        one, two = (
            sorted(shop.server.ssh(f"find {made['path']}/data -type f -printf '%i\\n'").split())
            for made in (first, second)
        )
        assert len(one) > 4500 and one == two
    else:
        assert second["copied_bytes"] < second["bytes"] / 100, second


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_namespace_comes_back(shop: Shop, engine: str) -> None:
    shop.lose()
    shop.good("restore", engine, restore_namespaces=SPACE, restore_confirm=True)
    for claim, name in shop.volumes.items():
        assert shop.cluster.volume_of(claim) == name
        volume = shop.cluster.request("GET", f"{VOLUMES}/{name}")
        assert (volume["status"]["phase"], volume["spec"]["persistentVolumeReclaimPolicy"]) == ("Bound", "Retain")
    assert difference(shop.before[engine], shop.picture(engine)) == {}
    shop.read()


def test_a_claim_in_use_is_restored_only_by_a_run_that_stops_its_pods(shop: Shop) -> None:
    labels = {"app": "web"}
    # Without a grace period the API forgets a pod before its node has ended it.
    pod = {**shop.cluster.pod("data", IDLE), "terminationGracePeriodSeconds": 30}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    shop.cluster.request("POST", DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})

    def runs() -> bool:
        status = shop.cluster.request("GET", f"{DEPLOYMENTS}/web")["status"]
        return bool(status.get("readyReplicas") == status.get("replicas") == 2)

    shop.cluster.wait("both pods run", runs)
    shop.server.ssh(f"echo precious > {shop.odd}/since; rm -r {shop.odd}/odd")
    wanted = {"restore_claims": f"{SPACE}/data", "restore_confirm": True}
    refused = shop.run("restore", "restic", **wanted)
    assert refused.status and "mounts it; stop it, or let this run do it" in refused.words, refused.output[-6000:]
    assert shop.server.ssh(f"cat {shop.odd}/since") == "precious\n"
    done = shop.good("restore", "restic", **wanted, restore_scale=True)
    assert f"Deployment {SPACE}/web: started again with 2 replicas" in done.words
    shop.cluster.wait("both pods run again", runs)
    found = difference(shop.before["restic"], shop.picture("restic"))
    assert found == {}, found
    (told,) = map(json.loads, (shop.folder / "plan.json.result.jsonl").read_text().splitlines())
    # What has come since is kept.
    assert shop.server.ssh(f"cat {told['result']['quarantined']}/data/since") == "precious\n"


FLIP = """
import os
place = Path({place!r})
victim = next(one for one in sorted(place.glob("d*/e*/f*")) if not one.is_symlink() and one.stat().st_size == 9000)
was, content = victim.stat(), bytearray(victim.read_bytes())
content[4321] ^= 4
victim.write_bytes(content)
os.utime(victim, ns=(was.st_atime_ns, was.st_mtime_ns))
print(victim.relative_to(place))
"""


def test_one_flipped_bit_is_found(shop: Shop) -> None:
    whole = {"backup_verify_sample": 100}
    shop.good("backup_verify", "rsync", **whole)
    place = f"{REPOSITORIES}/rsync/{SPACE}/{shop.volumes['data']}/latest/data"
    victim = shop.python(FLIP.format(place=place)).strip()
    found = shop.run("backup_verify", "rsync", **whole)
    assert found.status and f"{victim}: has another content than was recorded" in found.words, found.output[-6000:]
