# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images made by hand: no registry is needed to run the lab."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

BUSYBOX = "docker.io/library/busybox:1.36"
PAUSE = "registry.k8s.io/pause:3.10"
# The name that the controller manager's recycler pod asks for, Kubernetes 1.35 and 1.37 alike.
RECYCLER = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6"
WEB = "docker.io/library/nginx:1.21.4"
PROVISIONER = "registry.k8s.io/sig-storage/nfs-subdir-external-provisioner:v4.0.2"

APPLETS = """
    [ ash awk basename cat chmod chown cmp cp cut date dd df dirname du echo env false find grep head hostname id
    kill ln ls md5sum mkdir mktemp mount mv nslookup od ps printf pwd readlink rm rmdir sed seq sh sha256sum sleep
    sort stat sync tail tar tee test touch tr true umount uname uniq usleep vi wc wget which whoami xargs
""".split()  # noqa: SIM905 (a table of words reads better than one line of quotes)


def _tar(files: dict[str, Path], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders = "bin dev etc mnt proc sys tmp usr usr/bin usr/share usr/share/nginx usr/share/nginx/html var"
        for name in folders.split():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name, source in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = source.stat().st_size, 0o755
            with source.open("rb") as stream:
                tar.addfile(member, stream)
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return buffer.getvalue()


def write_image(
    out: Path, references: list[str], entrypoint: list[str], files: dict[str, Path], links: dict[str, str]
) -> None:
    """Write a docker-archive of one layer, importable by containerd under all `references`."""
    layer = _tar(files, links)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": references, "Layers": [f"{digest}/layer.tar"]}]
    members = ((name, config), (f"{digest}/layer.tar", layer), ("manifest.json", json.dumps(manifest).encode()))
    with tarfile.open(out, "w") as tar:
        for path, data in members:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_all(folder: Path, machine: Path, provisioner: Path | None) -> None:
    """The images of the lab; without `provisioner`, the real one is to be pulled by the nodes.

    The recycler is Debian's own shell, find and ls, as in the real image: it runs `find -mindepth 1 -delete`, which
    Debian's busybox does not know, and busybox's shell would call its own find whatever stands in the PATH.
    """
    files = {"bin/busybox": machine / "busybox"}
    links = {f"bin/{applet}": "busybox" for applet in APPLETS}
    write_image(folder / "busybox.tar", [BUSYBOX], [], files, links)
    tree = machine / "recycler"
    debian = {str(path.relative_to(tree)): path for path in sorted(tree.rglob("*")) if path.is_file()}
    write_image(folder / "recycler.tar", [RECYCLER], [], debian, {"bin/sh": "/usr/bin/dash"})
    write_image(folder / "pause.tar", [PAUSE], ["/bin/busybox", "sleep", "2147483647"], files, {})
    web = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"]
    write_image(folder / "web.tar", [WEB], web, files, links)
    if provisioner:
        write_image(folder / "provisioner.tar", [PROVISIONER], ["/provisioner"], {"provisioner": provisioner}, {})
