# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's promises on a real server: ports of clients, generated exports files, clients that write meanwhile."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible
import pytest
import yaml

from lab.lifecycle import Lab
from lab.machine import Guest
from lab.settings import LabError

from ..exportfs import chroot, generated
from .conftest import ROOT, play

SERVER = "192.168.77.11"
NORESVPORT = "hard,timeo=60,retrans=2,noresvport,nfsvers=4.1"


def serve(folder: Path, *options: str) -> Any:
    """Run the role alone with one export, for a volume as the walk-through mounts it."""
    values = {
        "nfs_server_exports": [
            {"path": "/nfs/k8s/spv_003", "clients": [{"host": "192.168.77.0/24", "options": list(options)}]}
        ]
    }
    tasks = [
        {"name": "Serve", "ansible.builtin.include_role": {"name": "clusterkit.storage.nfs_server"}, "vars": values}
    ]
    playbook = folder / "serve.yml"
    playbook.write_text(yaml.safe_dump([{"name": "Serve", "hosts": "server1", "gather_facts": False, "tasks": tasks}]))
    return play(playbook)


def mount(node: Guest) -> str:
    """Mount and write, as kubelet would; return what the node says."""
    try:
        return node.ssh(
            f"mkdir -p /mnt/v && mount -t nfs -o {NORESVPORT},retry=0 {SERVER}:/nfs/k8s/spv_003 /mnt/v 2>&1"
            " && touch /mnt/v/written && echo written; umount /mnt/v 2>/dev/null; true"
        )
    except LabError as error:
        return str(error)


def test_noresvport_volume_fails_as_written_is_explained_and_works_when_repaired(
    tmp_path: Path, own_inventory: Callable[..., Path], look: Callable[[], Any], restored: Lab
) -> None:
    export = {"path": "/nfs/k8s/spv_003", "clients": [{"host": "192.168.77.0/24", "options": ["rw", "sync"]}]}
    before = look()
    run = play("clusterkit.storage.site", inventory=own_inventory(nfs_server_exports=[export]))
    assert run.status != 0
    for word in ('volume "nfs-spv003"', "is mounted with noresvport", "/nfs/k8s/spv_003 is secure", 'add "insecure"'):
        assert word in run.words, run.output[-3000:]
    assert look() == before

    node = restored.guest("node1")
    assert serve(tmp_path, "rw", "sync").status == 0
    assert "written" not in mount(node), "the server takes such a mount from a secure export"
    repaired = serve(tmp_path, "rw", "sync", "insecure")
    assert repaired.status == 0 and repaired.recap("server1")["changed"] == 1
    assert "written" in mount(node)


def settings(folder: Path, **values: Any) -> Any:
    """Run the role alone with the exports that are there, and these settings."""
    exports = [{"path": "/nfs/k8s/web", "clients": [{"host": "192.168.77.0/24", "options": ["rw"]}]}]
    variables = {"nfs_server_exports": exports, "nfs_server_allow_restart": True, **values}
    include = {
        "name": "Serve",
        "ansible.builtin.include_role": {"name": "clusterkit.storage.nfs_server"},
        "vars": variables,
    }
    playbook = folder / "settings.yml"
    playbook.write_text(yaml.safe_dump([{"name": "S", "hosts": "server1", "gather_facts": False, "tasks": [include]}]))
    return play(playbook)


@pytest.mark.long
def test_version_3_comes_back_with_fixed_ports(tmp_path: Path, restored: Lab) -> None:
    server, node = restored.guest("server1"), restored.guest("node1")
    assert settings(tmp_path, nfs_server_versions=["4.1", "4.2"]).status == 0
    assert "masked" in server.ssh("systemctl is-enabled rpcbind.socket; true")
    ports = {"mountd": 20048, "statd": 32765, "lockd": 32803}
    values: dict[str, Any] = {"nfs_server_versions": ["3", "4.1", "4.2"], "nfs_server_ports": ports}
    run = settings(tmp_path, **values)
    assert run.status == 0, run.output[-3000:]
    programs = {tuple(line.split()[i] for i in (4, 3)) for line in server.ssh("rpcinfo -p").splitlines()[1:]}
    assert {("mountd", "20048"), ("status", "32765"), ("nlockmgr", "32803"), ("nfs", "2049")} <= programs, programs
    assert not {pair for pair in programs if pair[0] == "mountd" and pair[1] != "20048"}
    said = node.ssh(
        f"mkdir -p /mnt/3 && mount -t nfs -o vers=3 {SERVER}:/nfs/k8s/web /mnt/3 && grep ' /mnt/3 ' /proc/mounts"
    )
    assert "vers=3" in said and "mountport=20048" in said
    assert settings(tmp_path, **values).recap("server1")["changed"] == 0
    node.ssh("umount /mnt/3")


ASK = r"""
printf '127.0.0.1 localhost\n10.1.0.1 alpha.example.com alpha\n10.1.0.2 beta\n' > /etc/hosts
printf 'hosts: files\npasswd: files\ngroup: files\n' > /etc/nsswitch.conf
rm -f /etc/exports.d/*
cd /tmp/generated
for file in *.exports; do
  cp "$file" /etc/exports
  exportfs -au
  exportfs -ra 2> "$file.err"
  cp /var/lib/nfs/etab "$file.etab"
done
rpc.mountd -v; cat /proc/fs/nfsd/export_features
"""


REAL_PATHS = """
import json, os, sys
print(json.dumps([os.path.realpath(path) if os.path.exists(path) else path for path in json.load(sys.stdin)]))
"""


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.long
def test_generated_files_mean_on_a_real_server_what_its_exportfs_makes_of_them(restored: Lab) -> None:
    """With nfsd running and the kernel's flags; the thousands run natively in tests/exportfs."""
    server = restored.guest("server1")
    folder = generated.FOLDER
    made = " ".join(f"'{folder}/{name}'" for name in generated.DIRECTORIES)
    version = server.ssh(f"mkdir -p /tmp/generated {made}; ln -s a {folder}/link; touch {folder}/file; rpc.mountd -v")
    dialect = generated.Dialect(tuple(int(part) for part in version.split()[-1].split(".")))
    generator = generated.Generator(7, dialect)
    texts = [generator.file() for _ in range(300)]
    files = {f"{number:03}.exports": text.encode() for number, text in enumerate(texts)}
    server.ssh("tar -C /tmp/generated -xf -", stdin=packed(files))
    said = server.ssh(ASK, timeout=900)
    assert "0x" in said
    done = subprocess.run(
        [*server.ssh_argv, "tar -C /tmp/generated -cf - ."], capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        streams = {member.name.removeprefix("./"): tar.extractfile(member) for member in tar if member.isfile()}
        content = {name: stream.read() for name, stream in streams.items() if stream}
    answers = [generated.read_answer(content[f"{name}.err"], content[f"{name}.etab"]) for name in sorted(files)]
    paths = sorted({entry.path for text in texts for entry in chroot._exports.parse(text, dialect).entries})
    # JSON escapes what is not UTF-8.
    real = json.loads(server.ssh(f"python3 -c '{REAL_PATHS}'", stdin=json.dumps(paths).encode()))
    known: dict[str, str] = dict(zip(paths, real, strict=True))
    compared, clean = generated.compare(zip(texts, answers, strict=True), dialect, known.__getitem__)
    assert compared > 150 and clean > 10


# Runs on the server: 25 changes of one export, by the module's code or as people do it, in the same rhythm.
CHANGE = """
import subprocess, sys, time
sys.path.insert(0, "/tmp/code")
from ansible_collections.clusterkit.storage.plugins.module_utils._export_server import Places, Request, ensure_exports
from ansible_collections.clusterkit.storage.plugins.module_utils import _exports
from pathlib import Path
file = Path("/etc/exports.d/clusterkit.exports")
others = "".join(line for line in file.read_text().splitlines(True) if "10.9.9.9" not in line)
table = [e for e in _exports.parse(Path("/var/lib/nfs/etab").read_text()).effective if e.host != "10.9.9.9"]
listed = [{"path": e.path, "clients": [{"host": e.host, "options": e.meaning.options()}]} for e in table]
for number in range(25):
    began, access = time.monotonic(), "ro" if number % 2 else "rw"
    if sys.argv[1] == "exportfs":
        file.write_text(others + f"/nfs/k8s/web 10.9.9.9({access},sync,no_subtree_check)\\n")
        subprocess.run(["exportfs", "-ra"], check=True)
    else:
        extra = {"path": "/nfs/k8s/web", "clients": [{"host": "10.9.9.9", "options": [access]}]}
        outcome = ensure_exports(Request(exports=[*listed, extra], file=str(file)), Places())
        assert outcome.changed
    time.sleep(max(0, 1.2 - (time.monotonic() - began)))
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: default}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: writer
      image: docker.io/library/busybox:1.36
      command:
        - sh
        - -ec
        - |
          n=0
          while :; do n=$((n+1)); read up _ < /proc/uptime; echo $n $up | dd conv=fsync 2> /dev/null >> /mnt/lines; done
      volumeMounts: [{name: v, mountPath: /mnt}]
  volumes:
    - {name: v, persistentVolumeClaim: {claimName: nfs-pvc003}}
"""


@pytest.mark.long
def test_pod_writes_while_exports_are_changed_100_times(
    restored: Lab, record_property: Callable[[str, object], None]
) -> None:
    server, plane = restored.guest("server1"), restored.control_plane
    code = io.BytesIO()
    with tarfile.open(fileobj=code, mode="w") as tar:
        core = Path(ansible.__path__[0])
        for folder, name in (
            (ROOT / "plugins/module_utils", "ansible_collections/clusterkit/storage/plugins/module_utils"),
            *((core / name, f"ansible/{name}") for name in ("__init__.py", "_vendor", "release.py", "module_utils")),
        ):
            tar.add(folder, name, filter=lambda m: None if "__pycache__" in m.name else m)
    server.ssh("mkdir -p /tmp/code && tar -C /tmp/code -xf -", stdin=code.getvalue())
    server.put({"/tmp/change.py": textwrap.dedent(CHANGE)}, "true")  # noqa: S108 - of the guest
    plane.request("POST", "/api/v1/namespaces/default/pods", yaml.safe_load(POD))

    def lines() -> list[tuple[int, float]]:
        found = [line.split() for line in server.ssh("cat /nfs/k8s/spv_003/lines 2>/dev/null; true").splitlines()]
        return [(int(number), float(up)) for number, up in found if up]

    deadline = time.monotonic() + 300
    while len(lines()) < 20:
        assert time.monotonic() < deadline, "the pod does not write"
        time.sleep(2)

    # In turns, so that what else this computer does meets both.
    longest = {"exportfs": 0.0, "module": 0.0}
    for what in list(longest) * 4:
        first = len(lines())
        server.ssh(f"python3 /tmp/change.py {what}", timeout=900)
        seen = lines()[first - 1 :]
        assert len(seen) > 20
        longest[what] = max(longest[what], *(after - before for (_, before), (_, after) in itertools.pairwise(seen)))
    written = lines()
    assert [number for number, _ in written] == list(range(1, len(written) + 1)), "a line is lost"
    pod = plane.request("GET", "/api/v1/namespaces/default/pods/writer")
    assert pod["status"]["phase"] == "Running", "the writer met an error"
    assert longest["module"] <= 1.5 * longest["exportfs"], longest
    record_property("longest gap in seconds", str(longest))
