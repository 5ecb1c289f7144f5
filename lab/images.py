# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks: the Debian machine image, and the read-only disk with Kubernetes programs and container images."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import binaries, cache, containers
from lab.command import require, run
from lab.progress import step
from lab.settings import Options, hash_of_files

# Every machine gets these. No NFS package: installing it is the product's work.
PACKAGES = """
    busybox-static ca-certificates conntrack containernetworking-plugins dbus e2fsprogs ethtool iproute2 iptables
    iputils-ping kmod linux-image-cloud-amd64 openssh-server procps python3 python3-apt rsync runc socat systemd
    systemd-resolved systemd-sysv udev xfsprogs
""".split()  # noqa: SIM905 (a table of words reads better than one line of quotes)
# Downloaded into the image's apt cache, not installed: what the roles will ask for.
CACHED = ("nfs-common", "nfs-kernel-server", "quota", "restic")

ZIPIMPORT_CACHE = Path(__file__).parent / "zipimport_cache.py"

# $1 is the root folder, $OUT where the results go.
CUSTOMIZE = r"""
set -eu
# One kernel-module package would cost minutes in emulation; nothing here needs another initrd.
sed -i 's/^update_initramfs=.*/update_initramfs=no/' "$1/etc/initramfs-tools/update-initramfs.conf"
echo force-unsafe-io > "$1/etc/dpkg/dpkg.cfg.d/lab"
printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"
chroot "$1" apt-get clean
# Installing systemd-resolved may have made resolv.conf a link to what only a running one writes (Debian 12 does).
mv "$1/etc/resolv.conf" "$1/etc/resolv.conf.image"; cp -L /etc/resolv.conf "$1/etc/resolv.conf"
chroot "$1" apt-get install --yes --no-install-recommends --download-only $CACHED
mv "$1/etc/resolv.conf.image" "$1/etc/resolv.conf"
# Only what is installed or lies in the cache stays in the lists: of all that Debian has, emulation would take 5 to 15 s
# to read, at each call of apt.
{ chroot "$1" dpkg-query -W -f '${Package}\n'; ls "$1/var/cache/apt/archives" | sed -n 's/_.*\.deb$//p'; } > "$OUT/kept"
for list in "$1"/var/lib/apt/lists/*_Packages; do
  awk 'NR == FNR { kept[$1]; next } $2 in kept' "$OUT/kept" RS= ORS='\n\n' "$list" > "$OUT/list"
  cat "$OUT/list" > "$list"
done
rm "$OUT/kept" "$OUT/list"
chroot "$1" apt-cache gencaches
rm "$1/usr/sbin/policy-rc.d"
chroot "$1" passwd -d root
chroot "$1" systemctl enable systemd-networkd systemd-resolved ssh
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer systemd-networkd-wait-online.service getty@tty1.service serial-getty@ttyS0.service \
  modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
# Each runs at each reload of systemd, of which the installation of a package has several; nothing here needs these.
mkdir -p "$1/etc/systemd/system-generators"
for generator in "$1"/usr/lib/systemd/system-generators/*; do
  case ${generator##*/} in
    systemd-fstab-generator | systemd-sysv-generator) ;;
    *) ln -s /dev/null "$1/etc/systemd/system-generators/${generator##*/}" ;;
  esac
done
mkdir -p "$1/root/.ssh"; cp "$OUT/id_ed25519.pub" "$1/root/.ssh/authorized_keys"; chmod 700 "$1/root/.ssh"
# Without PAM a login starts no session of systemd, which would take as long again.
printf 'MaxStartups 100\nMaxSessions 100\nUseDNS no\nUsePAM no\n' > "$1/etc/ssh/sshd_config.d/lab.conf"
cp "$OUT/zipimport_cache.py" "$1/usr/lib/python3/dist-packages/"
echo 'import zipimport_cache' > "$1/usr/lib/python3/dist-packages/zipimport_cache.pth"
printf '[Match]\nName=eth0\n[Network]\nDHCP=yes\n' > "$1/etc/systemd/network/10-user.network"
: > "$1/etc/machine-id"
cp "$1"/boot/vmlinuz-* "$OUT/vmlinuz"; cp "$1/bin/busybox" "$OUT/busybox"; chmod a+r "$OUT/vmlinuz" "$OUT/busybox"
# An initrd that knows where the root disk is; Debian's looks for it with udev, which takes 5 s in emulation.
mkdir -p "$1/initrd/dev" "$1/initrd/root"; cp "$1/bin/busybox" "$1/initrd/"
{
  echo '#!/busybox sh'
  echo '/busybox mount -t devtmpfs dev /dev'
  for module in virtio_pci virtio_blk ext4; do
    chroot "$1" modprobe --set-version "$(ls "$1/lib/modules")" --show-depends "$module"
  done | awk '$1 == "insmod" && !($2 in seen) { seen[$2]; print $2 }' | while read -r file; do
    name=${file##*/}; name=${name%.xz}
    case $file in *.xz) xz --decompress --stdout "$1$file" ;; *) cat "$1$file" ;; esac > "$1/initrd/$name"
    echo "/busybox insmod /$name"
  done
  echo 'until [ -b /dev/vda ]; do /busybox sleep 0.1; done'
  echo '/busybox mount -t ext4 /dev/vda /root && /busybox mount --move /dev /root/dev'
  echo 'exec /busybox switch_root /root /sbin/init'
} > "$1/initrd/init"
chmod +x "$1/initrd/init"
chroot "$1" sh -c 'cd /initrd && find . | cpio --quiet -o -H newc' > "$OUT/initrd"
rm -r "$1/initrd"
# The programs of the recycler's image with every library that they load.
for program in dash find ls; do
  for file in "/usr/bin/$program" $(chroot "$1" ldd "/usr/bin/$program" | grep -o '/[^ ]*'); do
    mkdir -p "$OUT/recycler/${file%/*}"; cp -L "$1$file" "$OUT/recycler$file"
  done
done
rm -f "$1"/boot/initrd.img-* "$1"/boot/vmlinuz-*
# Through a bind mount that does not show the /proc and /sys which mmdebstrap has mounted below.
mkdir "$OUT/root"; mount --bind "$1" "$OUT/root"
mke2fs -q -t ext4 -d "$OUT/root" "$OUT/root.img" 12G
umount "$OUT/root"; rmdir "$OUT/root"
"""


def machine(suite: str) -> Path:
    """Folder with disk.qcow2, vmlinuz, initrd, busybox, recycler (a tree) and the ssh key of one Debian suite."""

    def build(out: Path) -> None:
        require("mmdebstrap", "mke2fs", "qemu-img", "ssh-keygen")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", out / "id_ed25519"])
        log = out / "build.log"
        hook = out / "customize.sh"
        hook.write_text(CUSTOMIZE)
        shutil.copy(ZIPIMPORT_CACHE, out)
        # As an ordinary user mmdebstrap works in a user namespace, whose root must be able to write here.
        out.chmod(0o777)
        argv = ["mmdebstrap", "--format=null", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        argv += ["--skip=cleanup/apt/lists,cleanup/apt/cache", f'--customize-hook=sh {hook} "$1"', suite, "/dev/null"]
        with step(f"build the Debian machine image {suite} (1 to 3 min)", log):
            run(argv, log=log, env={"OUT": str(out), "CACHED": " ".join(CACHED), "DEBIAN_FRONTEND": "noninteractive"})
            run(["qemu-img", "convert", "-O", "qcow2", out / "root.img", out / "disk.qcow2"])
        (out / "root.img").unlink()
        out.chmod(0o755)

    inputs: dict[str, object] = {"suite": suite, "packages": PACKAGES, "cached": CACHED, "customize": CUSTOMIZE}
    inputs["zipimport_cache"] = hash_of_files(ZIPIMPORT_CACHE)
    return cache.entry("machine", inputs, build)


def payload(options: Options) -> Path:
    """Folder with payload.img: an ext4 file system that each node mounts read-only at /opt/lab."""
    kubernetes, containerd = binaries.kubernetes(options.kubernetes), binaries.containerd()
    image = machine(options.debian)
    provisioner = binaries.provisioner() if options.images == "build" else None

    def build(out: Path) -> None:
        tree = out / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "images").mkdir()
        for folder, names in ((kubernetes, binaries.NODE), (containerd, binaries.CONTAINERD)):
            for name in names:
                shutil.copy(folder / name, tree / "bin" / name)
        if provisioner:
            containers.write_all(tree / "images", image, provisioner / "provisioner")
        size = sum(p.stat().st_size for p in tree.rglob("*")) // 2**20 + 64
        run(["mke2fs", "-q", "-t", "ext4", "-L", "payload", "-d", tree, out / "payload.img", f"{size}M"])
        shutil.rmtree(tree)

    inputs: dict[str, object] = {
        "kubernetes": kubernetes.name,
        "containerd": containerd.name,
        "machine": image.name,
        "provisioner": provisioner.name if provisioner else "pulled",
        "containers": hash_of_files(Path(containers.__file__)),
    }
    return cache.entry("payload", inputs, build)
