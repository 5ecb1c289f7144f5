# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab: `python -m lab --help`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time

from lab import cache
from lab.lifecycle import Lab
from lab.progress import say
from lab.server_tree import server_tree
from lab.settings import LabError, Options, pins


def _parser() -> argparse.ArgumentParser:
    versions = pins()
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make the lab, or wake the one kept for these options")
    up.add_argument("--kubernetes", default=versions["kubernetes"][0], help="version x.y.z (%(default)s)")
    up.add_argument("--debian", default=versions["debian"][0], choices=versions["debian"], help="(%(default)s)")
    up.add_argument("--servers", type=int, default=1, choices=(1, 2), help="NFS servers (%(default)s)")
    up.add_argument("--nodes", type=int, default=2, choices=range(1, 6), help="Kubernetes nodes (%(default)s)")
    up.add_argument("--export-disk", default="xfs", choices=("xfs", "ext4"), help="(%(default)s)")
    up.add_argument(
        "--images",
        default="build",
        choices=("build", "pull"),
        help="build container images here, or let the nodes pull the real ones (%(default)s)",
    )
    commands.add_parser("down", help="end the lab; named snapshots stay")
    commands.add_parser("status", help="what runs")
    ssh = commands.add_parser("ssh", help="a shell, or a command, on a machine")
    ssh.add_argument("machine")
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    for name, text in (("snapshot", "keep machines and etcd under NAME"), ("restore", "go back to NAME")):
        commands.add_parser(name, help=text).add_argument("name")
    for name, text in (
        ("freeze", "stop a machine's processors (outage)"),
        ("thaw", "let it go on, and set its clock"),
        ("reset", "cut its power"),
        ("reboot", "reboot it in order"),
    ):
        commands.add_parser(name, help=text).add_argument("machine")
    commands.add_parser("inventory", help="print an Ansible inventory")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    commands.add_parser("kubectl", help="print the path of kubectl in the cluster's version")
    tree = commands.add_parser("server-tree", help="print a folder with the NFS server's programs, for chroot")
    tree.add_argument("debian", nargs="?", default=versions["debian"][0], choices=versions["debian"])
    kept = commands.add_parser("cache", help="what is kept in the user's cache")
    kept.add_argument("--clear", action="store_true", help="remove it")
    kept.add_argument("--unused-days", type=float, default=0, help="only what was not used for so long")
    return parser


def _change(lab: Lab, arguments: argparse.Namespace) -> None:
    """The commands that change a lab, under its lock."""
    match arguments.command:
        case "up":
            names = {field.name for field in dataclasses.fields(Options)}
            lab.up(Options(**{k: v for k, v in vars(arguments).items() if k in names}))
        case "down":
            lab.down()
        case "snapshot":
            lab.snapshot(arguments.name)
        case "restore":
            lab.restore(arguments.name)


def _machine(lab: Lab, arguments: argparse.Namespace) -> None:
    guest = lab.guest(arguments.machine)
    match arguments.command:
        case "freeze":
            guest.freeze()
        case "thaw":
            guest.thaw()
            guest.set_clock()
        case "reset":
            before = guest.ssh("cat /proc/sys/kernel/random/boot_id")
            guest.reset()
            guest.wait_new_boot(before)
        case "reboot":
            guest.reboot()


def main() -> int:
    arguments = _parser().parse_args()
    lab = Lab()
    try:
        match arguments.command:
            case "up" | "down" | "snapshot" | "restore":
                began = time.monotonic()
                with lab.lock():
                    _change(lab, arguments)
                say(f"{arguments.command}: done in {time.monotonic() - began:.1f} s")
            case "freeze" | "thaw" | "reset" | "reboot":
                _machine(lab, arguments)
            case "status":
                print(lab.status())
            case "ssh":
                argv = lab.guest(arguments.machine).ssh_argv
                os.execvp(argv[0], [*argv, *arguments.words])  # noqa: S606 (hands the terminal over)
            case "inventory":
                print(lab.inventory(), end="")
            case "kubeconfig":
                print(lab.control_plane.kubeconfig)
            case "kubectl":
                print(lab.control_plane.kubernetes / "kubectl")
            case "server-tree":
                print(server_tree(arguments.debian))
            case "cache":
                cache.clear(arguments.unused_days) if arguments.clear else cache.show()
    except LabError as error:
        say(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next `up` takes away what is left")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
