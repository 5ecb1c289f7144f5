# SPDX-License-Identifier: GPL-3.0-or-later
"""One machine: a QEMU process, its disks, its monitor, and ssh into it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, QMPClient, QMPError

from lab.command import require, run
from lab.process import Process
from lab.settings import LabError, Machine

BOOT_PATIENCE = 420.0  # seconds; booting three machines in emulation on two busy cores takes 60 to 120
MIGRATION_BANDWIDTH = 1 << 40  # bytes a second: as fast as the disk takes it


def accelerator() -> str:
    """kvm where the processor has the flag; /dev/kvm may exist and still hang the guest."""
    flags = Path("/proc/cpuinfo").read_text()
    if re.search(r"^flags\s*:.* (vmx|svm)( |$)", flags, re.MULTILINE) and os.access("/dev/kvm", os.W_OK):
        return "kvm"
    return "tcg,tb-size=1024"


# Without what makes each page walk, entry to the kernel and copy from a process dearer to emulate. With erms and fsrm
# memory would be copied and cleared by `rep movsb` and `rep stosb`, which emulation does byte by byte.
EMULATED = "max,la57=off,smap=off,smep=off,umip=off,pku=off,erms=off,fsrm=off"
# Emulation translates code again where it meets it at another address, so with random addresses each start of a program
# costs twice as much; the other words leave out work that hardens a kernel. Together they halve what a boot and what
# the installation of a package cost. Each controller of control groups costs an idle kubelet a look at all of its
# folders every two seconds, which was 40 % of all that it did, and those left out limit nothing here.
KERNEL = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=1 quiet mitigations=off transparent_hugepage=never audit=0 "
    "norandmaps nokaslr init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off "
    "cgroup_disable=io,hugetlb,rdma,misc psi=0"
)


def processors(accel: str) -> int:
    """One where processors are emulated.

    With two, the guest's kernel met a half-patched instruction of its own (int3 oops in
    enqueue_task_fair) and died: QEMU 7.2 emulates each in a thread of its own.
    """
    return 2 if accel == "kvm" else 1


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Where a machine is plugged in on this computer; part of a snapshot, since guests remember it."""

    ssh_port: int
    kubelet_address: str
    multicast: str  # group:port of the machines' own segment
    mac: str


class Guest:
    """A machine of a lab that lives in `folder`."""

    def __init__(self, machine: Machine, wiring: Wiring, folder: Path, image: Path) -> None:
        self.machine = machine
        self.wiring = wiring
        self.folder = folder
        self.image = image
        self.process = Process(folder, machine.name)

    # Disks ---------------------------------------------------------------------------------------

    @property
    def disks(self) -> list[Path]:
        """Root disk and, on a server, the disk for exports: overlays that hold what this machine wrote."""
        names = ["root", "export"] if self.machine.role == "server" else ["root"]
        return [self.folder / f"{self.machine.name}-{name}.qcow2" for name in names]

    def make_disks(self) -> None:
        require("qemu-img")
        base = self.image / "disk.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", self.disks[0]])
        for extra in self.disks[1:]:
            run(["qemu-img", "create", "-q", "-f", "qcow2", extra, "16G"])

    def take_disks(self, snapshot: Path) -> None:
        """Overlays on top of a snapshot's disks: instant, and the snapshot stays as it is."""
        for disk in self.disks:
            disk.unlink(missing_ok=True)
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", snapshot / disk.name, "-F", "qcow2", disk])

    # Process -------------------------------------------------------------------------------------

    @property
    def _monitor(self) -> Path:
        return self.folder / f"{self.machine.name}.qmp"

    def start(self, payload: Path | None, memory: Path | None = None) -> None:
        """Boot; or, with `memory`, wake up as the snapshot was taken: paused until `thaw`."""
        require("qemu-system-x86_64")
        accel = accelerator()
        name, wiring = self.machine.name, self.wiring
        argv = ["qemu-system-x86_64", "-name", name, "-accel", accel]
        argv += [
            "-cpu",
            "host" if accel == "kvm" else EMULATED,
            "-smp",
            str(processors(accel)),
            "-m",
            str(self.machine.memory),
        ]
        argv += ["-display", "none", "-serial", f"file:{self.folder / name}.console", "-no-user-config"]
        argv += ["-qmp", f"unix:{self._monitor},server=on,wait=off", "-rtc", "base=utc,clock=host"]
        argv += ["-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd")]
        argv += ["-append", f"{KERNEL} systemd.hostname={name}"]
        for disk in self.disks:
            argv += ["-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap"]
        if payload:
            argv += ["-drive", f"file={payload},if=virtio,format=raw,readonly=on"]
        forward = f"hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-:22"
        if self.machine.role == "node":
            forward += f",hostfwd=tcp:{wiring.kubelet_address}:10250-:10250"
        argv += ["-netdev", f"user,id=n0,{forward}", "-device", f"virtio-net-pci,netdev=n0,mac={wiring.mac}:00"]
        argv += ["-netdev", f"socket,id=n1,mcast={wiring.multicast},localaddr=127.0.0.1"]
        argv += ["-device", f"virtio-net-pci,netdev=n1,mac={wiring.mac}:01"]
        if memory:
            argv += ["-incoming", f"exec:cat {memory}"]
        self._monitor.unlink(missing_ok=True)
        self.process.start(argv)

    def ask(self, *commands: tuple[str, Mapping[str, object]]) -> Any:
        """Send QMP commands; the answer of the last one."""

        async def talk() -> Any:
            client = QMPClient(self.machine.name)
            await client.connect(str(self._monitor))
            try:
                answer: Any = None
                for name, arguments in commands:
                    answer = await client.execute(name, dict(arguments))
                return answer
            finally:
                await client.disconnect()

        deadline = time.monotonic() + 20
        while True:
            if not self.process.pid:
                raise LabError(f"{self.machine.name} does not run; its QEMU said:\n{self.process.said()}")
            try:
                return asyncio.run(asyncio.wait_for(talk(), 60))
            except ConnectError as error:  # the socket appears a moment after the process
                if time.monotonic() > deadline:
                    raise LabError(f"{self.machine.name}: monitor: {error}") from error
                time.sleep(0.1)
            except QMPError as error:
                raise LabError(f"{self.machine.name}: {commands[0][0]}: {error}") from error

    @property
    def run_state(self) -> str:
        """QEMU's word for it: running, paused, inmigrate, postmigrate …"""
        return str(self.ask(("query-status", {}))["status"])

    def freeze(self) -> None:
        self.ask(("stop", {}))

    def thaw(self) -> None:
        self.ask(("cont", {}))

    def reset(self) -> None:
        """Power cut: what the guest had not written to its disk is gone."""
        self.ask(("system_reset", {}))

    def save(self, snapshot: Path) -> None:
        """Write memory and disks of the frozen machine to the folder `snapshot`; it stays frozen."""
        memory = snapshot / f"{self.machine.name}.memory"
        self.ask(
            ("migrate-set-parameters", {"max-bandwidth": MIGRATION_BANDWIDTH}),
            ("migrate", {"uri": f"exec:cat > {memory}"}),
        )
        while (status := self.ask(("query-migrate", {})).get("status")) != "completed":
            if status in {"failed", "cancelled"}:
                raise LabError(f"{self.machine.name}: memory could not be saved: {status}")
            time.sleep(0.1)
        for disk in self.disks:
            shutil.copyfile(disk, snapshot / disk.name)

    def wait_restored(self) -> None:
        while (state := self.run_state) == "inmigrate":
            time.sleep(0.1)
        if state not in {"paused", "postmigrate", "running"}:
            raise LabError(f"{self.machine.name}: woke up {state}; its QEMU said:\n{self.process.said()}")

    # ssh -----------------------------------------------------------------------------------------

    @property
    def ssh_options(self) -> list[str]:
        """The machines' host keys are the image's, so there is nothing to check them against."""
        options = {
            "IdentityFile": str(self.image / "id_ed25519"),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    @property
    def ssh_argv(self) -> list[str]:
        argv = ["ssh", *self.ssh_options, "-o", "ConnectTimeout=30", "-p", str(self.wiring.ssh_port)]
        return [*argv, "root@127.0.0.1"]

    def ssh(self, script: str, *, stdin: bytes | None = None, timeout: float = 300) -> str:
        return run([*self.ssh_argv, script], stdin=stdin, timeout=timeout)

    def put(self, files: Mapping[str, str | bytes], script: str) -> str:
        """Write files (absolute path: content) and run a script, over one connection."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                member = tarfile.TarInfo(path.lstrip("/"))
                member.size, member.mtime = len(data), int(time.time())
                member.mode = 0o600 if path.endswith("kubeconfig") else 0o644
                tar.addfile(member, io.BytesIO(data))
        unpack = "tar -C / --no-same-owner --no-overwrite-dir -xf - && "
        return self.ssh(f"set -e; {unpack}{{ {script}\n}}", stdin=buffer.getvalue())

    def wait_ssh(self, patience: float = BOOT_PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                self.ssh("true", timeout=60)
                return
            except LabError as error:
                if time.monotonic() > deadline or not self.process.pid:
                    console = self.folder / f"{self.machine.name}.console"
                    raise LabError(f"{self.machine.name} does not answer ssh ({error}); see {console}") from error
                time.sleep(1)

    def set_clock(self) -> None:
        """A woken guest has the time of its snapshot: leases, tokens, certificates, ages depend on it.

        Its hardware clock follows this computer's (`-rtc clock=host`), also while the machine was frozen or saved.
        It is read inside the guest, so that a slow ssh connection does not matter; it counts whole seconds.
        Its package lists count as fresh: what they name lies in the image, and the network is slow.
        """
        self.ssh('date -u -s "@$(cat /sys/class/rtc/rtc0/since_epoch).5" >/dev/null; touch /var/lib/apt/lists')

    def reboot(self) -> None:
        before = self.ssh("cat /proc/sys/kernel/random/boot_id")
        with contextlib.suppress(LabError):  # the connection ends with the machine
            self.ssh("systemctl reboot", timeout=30)
        self.wait_new_boot(before)

    def wait_new_boot(self, before: str) -> None:
        deadline = time.monotonic() + BOOT_PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(LabError):
                if self.ssh("cat /proc/sys/kernel/random/boot_id", timeout=60) != before:
                    return
            time.sleep(2)
        raise LabError(f"{self.machine.name} did not boot again within {BOOT_PATIENCE:.0f} s")


def every[T](guests: list[Guest], work: Callable[[Guest], T]) -> list[T]:
    """`work(guest)` for all guests side by side; the results in order."""
    with ThreadPoolExecutor(max(1, len(guests))) as pool:
        return list(pool.map(work, guests))
