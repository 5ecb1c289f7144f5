# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on the lab in the state that the bootstrap left: `make demo` or `molecule test` makes it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.lifecycle import Lab
from lab.machine import every
from tests.long_tier import pytest_addoption, pytest_collection_modifyitems, pytest_configure

if TYPE_CHECKING:
    from .nfs_client import Client

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

ROOT = Path(__file__).resolve().parents[2]

INVENTORY = ROOT / ".work" / "inventory"


@dataclass
class Play:
    """How a playbook run ended."""

    status: int
    output: str

    def recap(self, host: str) -> dict[str, int]:
        line = re.search(rf"^{re.escape(host)}\s+:(.*)$", self.output, re.MULTILINE)
        assert line, f"{host} is not in the recap:\n{self.output[-3000:]}"
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line[1])}

    @property
    def words(self) -> str:
        """The output with all white space made equal, since Ansible folds long messages."""
        return " ".join(self.output.split())


@dataclass
class Shared:
    """The lab that all tests share, and whether one has changed it since it was as the bootstrap left it."""

    lab: Lab
    changed: bool = False

    def as_bootstrapped(self) -> Lab:
        """Brought back only now, since what comes next may not need it; a restore costs about a minute."""
        if self.changed:
            with self.lab.lock():
                self.lab.restore("bootstrapped")
            self.changed = False
        return self.lab

    def to_be_changed(self) -> Lab:
        self.changed = True
        return self.lab


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    lab = Lab()
    assert lab.complete and all(g.process.pid for g in lab.guests), "no lab is up: `make demo` makes one"
    if not (lab.snapshots / "bootstrapped").exists():
        with lab.lock():
            lab.snapshot("bootstrapped")
    made = Shared(lab)
    yield made
    made.as_bootstrapped()


@pytest.fixture
def lab(shared: Shared) -> Lab:
    """The lab as the bootstrap left it, for a test that leaves it so."""
    return shared.as_bootstrapped()


@pytest.fixture
def restored(shared: Shared) -> Lab:
    """The lab as the bootstrap left it, for a test that changes it at will."""
    shared.as_bootstrapped()
    return shared.to_be_changed()


@pytest.fixture(scope="module")
def restored_for_all(shared: Shared) -> Lab:
    """The same for a whole file."""
    shared.as_bootstrapped()
    return shared.to_be_changed()


@pytest.fixture
def used(shared: Shared) -> Lab:
    """The lab as other tests left it, for a test whose directories, mounts and objects are its own."""
    return shared.to_be_changed()


def play(
    playbook: str | Path, *arguments: str, inventory: Path | None = INVENTORY, timeout: float = 900, **env: str
) -> Play:
    """Run a playbook against the lab, from the installed collection."""
    argv = [str(ROOT / ".work/venv/bin/ansible-playbook"), str(playbook), *arguments]
    if inventory:
        argv += ["-i", str(inventory)]
    variables = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "lab/ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
        "ANSIBLE_FORCE_COLOR": "0",  # molecule wants colours
        "ANSIBLE_NOCOLOR": "1",
        **env,
    }
    done = subprocess.run(
        argv, env=variables, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )
    return Play(done.returncode, done.stdout + done.stderr)


def run(playbook: str, folder: Path, **values: Any) -> Play:
    """Run a playbook of the life cycle at once; return it when it ended well."""
    variables = [f"-e{key}={value}" for key, value in values.items()]
    done = play(f"clusterkit.storage.{playbook}", *variables, f"-e{playbook}_plan_dest={folder}/plan.json")
    assert done.status == 0, done.output[-3000:]
    return done


LOOK = """
sha256sum /etc/exports /etc/exports.d/* /var/lib/nfs/etab /etc/fstab /etc/nfsmount.conf.d/* 2>/dev/null
dpkg-query -W | sha256sum
find /nfs -maxdepth 3 -printf '%p %m %u %g %i\n' 2>/dev/null | sort
awk '{print $5, $9, $10}' /proc/self/mountinfo | grep -vE ' (overlay|tmpfs|nsfs|proc|shm) ' | sort
"""


@dataclass
class State:
    """What a run could have changed: files, packages, directories and mounts of the machines; objects of the API."""

    machines: dict[str, list[str]]
    objects: dict[str, str]


@pytest.fixture(scope="session")
def look(shared: Shared) -> Any:
    lab = shared.lab

    def state() -> State:
        answers = every(lab.guests, lambda g: g.ssh(LOOK).splitlines())
        objects = {}
        for path in (
            "/api/v1/namespaces",
            "/api/v1/persistentvolumes",
            "/api/v1/persistentvolumeclaims",
            "/api/v1/serviceaccounts",
            "/apis/storage.k8s.io/v1/storageclasses",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/apis/rbac.authorization.k8s.io/v1/roles",
        ):
            for item in lab.control_plane.request("GET", path)["items"]:
                meta = item["metadata"]
                objects[f"{path} {meta.get('namespace', '')} {meta['name']}"] = meta["resourceVersion"]
        return State(dict(zip([g.machine.name for g in lab.guests], answers, strict=True)), objects)

    return state


@pytest.fixture
def own_inventory(tmp_path: Path) -> Any:
    """Make an inventory from the lab's: hosts changed by a function, variables of the groups replaced."""

    def write(change: Any = None, **values: Any) -> Path:
        hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
        if change:
            change(hosts)
        folder = tmp_path / "inventory"
        (folder / "group_vars").mkdir(parents=True)
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        for file in (INVENTORY / "group_vars").iterdir():
            content = yaml.safe_load(file.read_text())
            mine = {k: v for k, v in values.items() if k.startswith("nfs_server_") == (file.stem == "nfs_servers")}
            if file.stem in {"all", "nfs_servers"}:
                content |= mine
            (folder / "group_vars" / file.name).write_text(yaml.safe_dump(content))
        return folder

    return write


@pytest.fixture
def client(restored_for_all: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A mount point of this test's own, and eight exports."""
    from .nfs_client import NAMES, Client  # which takes play from here

    name = request.node.name.partition("[")[0].removeprefix("test_")[:40]
    made = Client(restored_for_all.guest("node1"), restored_for_all.guest("server1"), tmp_path, f"/mnt/{name}")
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
