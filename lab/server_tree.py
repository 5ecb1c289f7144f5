# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of an NFS server of a Debian suite as a folder to chroot into: no machine, and native speed.

exportfs needs no nfsd: it reads the exports files and writes its table in a few milliseconds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import cache
from lab.command import require, run
from lab.progress import step
from lab.settings import hash_of_files

PACKAGES = ("dash", "dbus-daemon", "firewalld", "iptables", "nfs-kernel-server", "nftables", "ufw")
# Unpacked, not installed: nothing of it is to be started.
ARGV = ["mmdebstrap", "--variant=extract", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
ARGV += [f"--include={','.join(PACKAGES)}", "--format=tar"]


def server_tree(suite: str) -> Path:
    """Folder with the programs of one suite. Shared: whoever changes files in it works on a copy."""

    def build(out: Path) -> None:
        require("mmdebstrap")
        with step(f"unpack the NFS server of {suite} (20 s)", log := out / "build.log"):
            run([*ARGV, suite, out / "tree.tar"], log=log)
            (out / "tree").mkdir()
            # Owned by whoever asks: tests may run in a user namespace.
            run(["tar", "-C", out / "tree", "--no-same-owner", "--exclude=./dev/*", "-xf", out / "tree.tar"], log=log)
        (out / "tree.tar").unlink()
        for folder in ("etc", "proc", "run", "srv", "tmp", "var/lib/nfs"):
            (out / "tree" / folder).mkdir(parents=True, exist_ok=True)
        _finish(out / "tree")
        (out / "tree/etc/nsswitch.conf").write_text("hosts: files\npasswd: files\ngroup: files\n")
        (out / "tree/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (out / "tree/etc/group").write_text("root:x:0:\n")

    return (
        cache.entry("server-tree", {"suite": suite, "argv": ARGV, "code": hash_of_files(Path(__file__))}, build)
        / "tree"
    )


def _finish(tree: Path) -> None:
    """What the scripts of the packages for firewalls would do."""
    for name in ("iptables", "ip6tables"):
        for action in ("", "-save", "-restore"):
            (tree / f"usr/sbin/{name}{action}").symlink_to("xtables-nft-multi")
    rules = tree / "usr/share/ufw"
    for file in [rules / "ufw.conf", *rules.glob("*.init"), *(rules / "iptables").glob("*.rules")]:
        shutil.copy(file, tree / "etc/ufw" / file.name)
