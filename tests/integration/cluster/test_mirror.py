# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook mirror with two real registries on the loopback, one of them with a password."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.registry import registry

from .cluster import BIN, environment

# Many runs of playbooks: minutes.
pytestmark = pytest.mark.long

USER, PASSWORD = "mirror", "not-for-logs"
HTPASSWD = "mirror:$2b$05$t7zCfCAsLHFEcXbv3lxBfuFrMH36eWh6VkMptsgkIaf.f2.QAnuZ2\n"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = ["amd64", "arm64"]
MIRROR = "clusterkit.storage.mirror"


def write_layout(folder: Path, word: str) -> None:
    """An OCI image of two architectures, which differ in one file."""

    def blob(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        file = folder / "blobs/sha256" / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    manifests = []
    for architecture in ARCHITECTURES:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = len(word + architecture)
            tar.addfile(member, io.BytesIO((word + architecture).encode()))
        layer = blob(buffer.getvalue(), "application/vnd.oci.image.layer.v1.tar")
        settings = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        config = blob(json.dumps(settings).encode(), "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        platform = {"architecture": architecture, "os": "linux"}
        manifests.append(blob(json.dumps(manifest).encode(), MANIFEST, platform=platform))
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    top = blob(json.dumps(index).encode(), INDEX, annotations={"org.opencontainers.image.ref.name": "all"})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))


def push(folder: Path, word: str, image: str) -> None:
    write_layout(folder, word)
    argv = ["skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{folder}:all", f"docker://{image}"]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with registry(tmp_path / "source") as source, registry(tmp_path / "target", htpasswd=HTPASSWD) as target:
        for number, name in enumerate(("team/provisioner:v1", "busybox:1.36", "more:v2")):
            push(tmp_path / f"image-{number}", name, f"{source}/{name}")
        yield source, target


def play(*options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / "ansible-playbook"), MIRROR, "-vvv", "-e", json.dumps(variables), *options]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def test_images_are_copied_once_proven_and_no_password_is_told(registries: tuple[str, str], tmp_path: Path) -> None:
    source, target = registries
    (tmp_path / "secret.yml").write_text(yaml.safe_dump({"mirror_username": USER, "mirror_password": PASSWORD}))
    given: dict[str, Any] = {
        "k8s_storage_image_registry": f"{target}/kept",
        "k8s_storage_provisioners": [{"server": "192.0.2.1", "path": "/nfs", "image": f"{source}/team/provisioner:v1"}],
        "verify_image": f"{source}/busybox:1.36",
        "mirror_images": [f"{source}/more:v2"],
        "mirror_tls_verify": False,
        "mirror_source_tls_verify": False,
    }
    secret = ("-e", f"@{tmp_path / 'secret.yml'}")
    without = play(**given)
    assert without.returncode
    assert "unauthorized" in without.stdout.lower()
    predicted = play("--check", *secret, **given)
    assert "changed=1" in predicted.stdout, predicted.stdout[-2000:]
    first = play(*secret, **given)
    assert first.returncode == 0, first.stdout[-3000:]
    assert "changed=1" in first.stdout
    for name in ("team/provisioner:v1", "busybox:1.36", "more:v2"):
        assert f"{target}/kept/{name}: copied" in first.stdout
    second = play(*secret, **given)
    assert "changed=0" in second.stdout
    for run in (predicted, first, second):
        assert PASSWORD not in run.stdout + run.stderr
    # All architectures, from the copy alone.
    inspect = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    index = json.loads(subprocess.run([*inspect, f"docker://{target}/kept/more:v2"], check=True,
                                      capture_output=True).stdout)  # fmt: skip
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ARCHITECTURES
    # A tag that has moved is left alone, unless it is to be refreshed. Its copy is damaged then: the proof says so.
    push(tmp_path / "moved", "moved", f"{source}/more:v2")
    assert "changed=0" in play(*secret, **given).stdout
    refreshed = play(*secret, **given, mirror_refresh=True)
    assert f"{target}/kept/more:v2: copied" in refreshed.stdout
    for data in (tmp_path / "target/data").rglob("_layers"):
        for link in data.rglob("link"):
            link.unlink()
    damaged = play(*secret, **given)
    assert damaged.returncode
    assert "cannot be pulled from the registry" in damaged.stdout


def test_an_image_that_is_nowhere_is_named_and_the_others_are_copied(registries: tuple[str, str]) -> None:
    source, target = registries
    given = {
        "k8s_storage_image_registry": target,
        "verify_image": f"{source}/busybox:1.36",
        "mirror_images": [f"{source}/missing:v1"],
        "mirror_username": USER,
        "mirror_password": PASSWORD,
        "mirror_tls_verify": False,
        "mirror_source_tls_verify": False,
    }
    run = play(**given)
    assert run.returncode
    assert f"1 of 2 images are not in the registry: {source}/missing:v1" in run.stdout
    assert f'"target": "{target}/busybox:1.36"' in run.stdout


def test_without_a_registry_nothing_is_done() -> None:
    assert "Which registry is meant?" in play(mirror_images=["busybox"]).stdout
