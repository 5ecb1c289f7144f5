# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a live mount has of the options that were asked for, with the kernel's meaning of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.clusterkit.storage.plugins.module_utils._mount_options import V3_ONLY, what_they_mean

# What the kernel takes where an option is not given. Missing here: what client and server negotiate.
_DEFAULTS: dict[str, str] = {
    "access": "rw",
    "suid": "suid",
    "dev": "dev",
    "exec": "exec",
    "sync": "async",
    "atime": "relatime",
    "diratime": "diratime",
    "symfollow": "symfollow",
    "recovery": "hard",
    "softreval": "nosoftreval",
    "ac": "ac",
    "acl": "acl",
    "cto": "cto",
    "fsc": "nofsc",
    "lock": "lock",
    "migration": "nomigration",
    "rdirplus": "rdirplus",
    "resvport": "resvport",
    "sharecache": "sharecache",
    "acregmin": "acregmin=3",
    "acregmax": "acregmax=60",
    "acdirmin": "acdirmin=30",
    "acdirmax": "acdirmax=60",
    "timeo": "timeo=600",
    "retrans": "retrans=2",
    "nconnect": "nconnect=1",
    "lookupcache": "lookupcache=all",
    "local_lock": "local_lock=none",
    "write": "write=lazy",
    "xprtsec": "xprtsec=none",
}
_DEFAULTS_UDP = {"timeo": "timeo=11", "retrans": "retrans=3"}
# Flags of the mount, not of its superblock: a remount of this one mount changes them and no other mount.
_PER_MOUNT = ("access", "suid", "dev", "exec", "atime", "diratime", "symfollow")
# Not part of what the kernel compares before it lets two mounts share a superblock (nfs_compare_mount_options)
# or a connection (nfs_match_client): who comes second gets what the first one asked for.
_SHARED_BY_SUPERBLOCK = frozenset({"timeo", "retrans"})
_SHARED_BY_SERVER = frozenset({"nconnect", "max_connect"})


@dataclass(frozen=True)
class Difference:
    """One option in which a live mount is not what is wanted."""

    decides: str  # "access", "recovery", "timeo", ...
    wanted: str  # the option as it would be written: "hard", "timeo=50"
    live: str

    @property
    def remountable(self) -> bool:
        """A remount changes it: nobody who uses the mount is disturbed."""
        return self.decides in _PER_MOUNT

    @property
    def shared_by_superblock(self) -> bool:
        """The first mount of the superblock decided it."""
        return self.decides in _SHARED_BY_SUPERBLOCK

    @property
    def shared_by_server(self) -> bool:
        """The first mount from that server decided it."""
        return self.decides in _SHARED_BY_SERVER

    def __str__(self) -> str:
        return f"{self.live} instead of {self.wanted}"


def live_meaning(mount_options: Sequence[str], super_options: Sequence[str]) -> dict[str, str]:
    """Return what decides on a live mount, from its two lists of options in mountinfo."""
    meaning = {**_DEFAULTS, **what_they_mean(super_options)}
    meaning.update({decides: _DEFAULTS[decides] for decides in _PER_MOUNT})
    # mountinfo shows strictatime as the absence of both others.
    meaning["atime"] = "strictatime"
    meaning.update(what_they_mean(mount_options))
    if "ro" in super_options:
        meaning["access"] = "ro"
    return meaning


def differences(wanted: Sequence[str], mount_options: Sequence[str], super_options: Sequence[str]) -> list[Difference]:
    """Return in what a live mount differs from the wanted options, with the kernel's meaning of them.

    What is not given counts with the kernel's default, so that an option taken out of the list is noticed;
    what client and server negotiate counts only where it is given.
    """
    given = what_they_mean(wanted)
    live = live_meaning(mount_options, super_options)
    full = _with_defaults(given, live)
    skipped = _without_effect(full, given, live)
    if "softerr" in wanted:
        # Kernels before 5.6 do not know softreval, later ones have it with softerr.
        skipped.add("softreval")
    return [
        Difference(decides, full[decides], live.get(decides, "nothing of that kind"))
        for decides in full
        if decides not in skipped and not _satisfied(decides, full[decides], live)
    ]


def _with_defaults(given: Mapping[str, str], live: Mapping[str, str]) -> dict[str, str]:
    full = dict(_DEFAULTS)
    if given.get("proto", live.get("proto", "")).startswith("proto=udp"):
        full.update(_DEFAULTS_UDP)
    if given.get("lock") == "nolock":
        full["local_lock"] = "local_lock=all"
    full.update(given)
    return full


def _without_effect(full: Mapping[str, str], given: Mapping[str, str], live: Mapping[str, str]) -> set[str]:
    """Return what cannot be compared: the kernel drops it, replaces it or does not show it."""
    skipped = {"addr", "bsize", "clientaddr", "mountaddr", "mounthost", "mountprog", "namlen", "nfsprog", "retry"}
    skipped |= {"context", "defcontext", "fscontext", "rootcontext", "fatal_neterrors", "comment"}
    skipped |= {"cert_serial", "privkey_serial"}
    if live.get("vers", "").startswith("vers=4"):
        skipped |= V3_ONLY
    if full["ac"] == "noac":
        skipped |= {"acregmin", "acregmax", "acdirmin", "acdirmax", "sync"}
    if given.get("retrans") == "retrans=0":
        skipped |= {"timeo", "retrans"}
    if given.get("port") == "port=0":
        skipped.add("port")  # whichever rpcbind names
    return skipped


def _satisfied(decides: str, wanted: str, live: Mapping[str, str]) -> bool:
    if decides not in live:
        # A port that is not shown may be any: Linux 6.12 shows none for NFSv4, also when it is not 2049.
        return decides in ("port", "mountport", "mountproto", "mountvers")
    actual = live[decides]
    if wanted == actual:
        return True
    wanted_value, actual_value = wanted.partition("=")[2], actual.partition("=")[2]
    if decides == "vers":
        return wanted_value == "4" and actual_value.startswith("4.")
    if decides in ("rsize", "wsize"):
        return int(actual_value) <= _transfer_size(int(wanted_value))
    if decides == "timeo":
        # The kernel allows at most ten minutes.
        return int(wanted_value) >= 6000 and int(actual_value) == 6000
    if decides in ("proto", "mountproto"):
        return wanted_value.rstrip("6") == actual_value.rstrip("6")
    if decides == "sec":
        flavors = {"none" if flavor == "null" else flavor for flavor in wanted_value.split(":")}
        return ("none" if actual_value == "null" else actual_value) in flavors
    if decides == "fsc":
        return wanted.startswith("fsc") and actual.startswith("fsc")
    if decides == "rdirplus":
        # Older kernels know no value here and show none.
        return wanted.startswith("rdirplus") and actual.startswith("rdirplus")
    return False


def _transfer_size(size: int) -> int:
    """Return the largest transfer size that the kernel takes for a given one; negotiation only lowers it."""
    if size < 1024:
        return 1048576 if size == 0 else 4096
    return min(size, 1048576)


def per_mount_flags(wanted: Sequence[str]) -> list[str]:
    """Return the complete set of flags of one mount: a remount takes what is not given for its default."""
    full = {**_DEFAULTS, **what_they_mean(wanted)}
    return [full[decides] for decides in _PER_MOUNT]
