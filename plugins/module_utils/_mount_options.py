# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount options of nfs(5) and mount(8): which exist, and what they mean.

The one room for mount options, whether they come from a role, a PersistentVolume, a StorageClass or from
/proc/self/mountinfo. Pure: nothing here touches the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils._suggest import did_you_mean

# Option -> (what it decides, the word for its choice). Of two options that decide the same, the last one wins.
_CHOICES: dict[str, tuple[str, str]] = {
    "ro": ("access", "ro"),
    "rw": ("access", "rw"),
    "soft": ("recovery", "soft"),
    "softerr": ("recovery", "softerr"),
    "hard": ("recovery", "hard"),
    "atime": ("atime", "relatime"),
    "norelatime": ("atime", "relatime"),
    "nostrictatime": ("atime", "relatime"),
    "relatime": ("atime", "relatime"),
    "noatime": ("atime", "noatime"),
    "strictatime": ("atime", "strictatime"),
    "sync": ("sync", "sync"),
    "async": ("sync", "async"),
    "tcp": ("proto", "proto=tcp"),
    "udp": ("proto", "proto=udp"),
    "rdma": ("proto", "proto=rdma"),
    "rdirplus=none": ("rdirplus", "nordirplus"),
}
for _name in (
    *("suid", "dev", "exec", "diratime", "symfollow"),  # mount(8)
    *("softreval", "ac", "acl", "cto", "fsc", "lock", "migration", "rdirplus", "resvport", "sharecache"),  # nfs(5)
):
    _CHOICES[_name] = (_name, _name)
    _CHOICES["no" + _name] = (_name, "no" + _name)
# softerr turns softreval on, a later hard turns it off, a later soft leaves it.
_ALSO: dict[str, dict[str, str]] = {
    "softerr": {"softreval": "softreval"},
    "hard": {"softreval": "nosoftreval"},
}
for _version in ("3", "4", "4.0", "4.1", "4.2"):
    _CHOICES["v" + _version] = ("vers", "vers=" + _version)

# In fstab they tell who may mount, when and how; they are no property of the mount itself.
_BOOT_ONLY = frozenset({"_netdev", "auto", "noauto", "nofail", "bg", "fg"})
# mount(8): who may mount by himself gets no programs, set-id programs or devices with it.
_IMPLIED: dict[str, tuple[str, ...]] = {
    "user": ("noexec", "nosuid", "nodev"),
    "users": ("noexec", "nosuid", "nodev"),
    "owner": ("nosuid", "nodev"),
    "group": ("nosuid", "nodev"),
}
# Known, but nothing of them can be seen on a live mount.
_UNSEEN = frozenset(
    {"alignwrite", "noalignwrite", "defaults", "dirsync", "intr", "nointr", "iversion", "noiversion"}
    | {"lazytime", "nolazytime", "loud", "silent", "mand", "nomand", "nouser", "posix", "noposix", "sloppy"}
    | {"trunkdiscovery", "notrunkdiscovery"}
)
_FLAGS = frozenset(name for name in _CHOICES if "=" not in name) | _BOOT_ONLY | frozenset(_IMPLIED) | _UNSEEN

_INT_MAX = 2**31 - 1
_NUMBERS: dict[str, tuple[int, int]] = {
    "acdirmax": (0, _INT_MAX),
    "acdirmin": (0, _INT_MAX),
    "acregmax": (0, _INT_MAX),
    "acregmin": (0, _INT_MAX),
    "actimeo": (0, _INT_MAX),
    "bsize": (0, _INT_MAX),
    "max_connect": (1, 16),
    "minorversion": (0, 2),
    "mountport": (0, 65535),
    "mountprog": (0, _INT_MAX),
    "mountvers": (1, 3),
    "namlen": (0, _INT_MAX),
    "nconnect": (1, 16),
    "nfsprog": (0, _INT_MAX),
    "port": (0, 65535),
    "retrans": (0, _INT_MAX),
    "retry": (0, _INT_MAX),
    "rsize": (0, _INT_MAX),
    "timeo": (1, _INT_MAX),
    "wsize": (0, _INT_MAX),
}
_VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
_PROTOCOLS = ("tcp", "tcp6", "udp", "udp6", "rdma", "rdma6")
_WORDS: dict[str, tuple[str, ...]] = {
    "local_lock": ("all", "flock", "posix", "none"),
    "lookupcache": ("all", "none", "pos", "positive"),
    "mountproto": ("tcp", "tcp6", "udp", "udp6"),
    "nfsvers": _VERSIONS,
    "proto": _PROTOCOLS,
    "vers": _VERSIONS,
    "write": ("lazy", "eager", "wait"),
    "xprtsec": ("none", "tls", "mtls"),
}
_SECURITY = ("none", "null", "sys", "krb5", "krb5i", "krb5p", "lkey", "lkeyi", "lkeyp", "spkm3", "spkm3i", "spkm3p")
_TEXTS = frozenset(
    {"addr", "cert_serial", "clientaddr", "comment", "context", "defcontext", "fatal_neterrors", "fscontext"}
    | {"mountaddr", "mounthost", "privkey_serial", "rootcontext", "sec"}
)
# A word of its own or with a value.
_OPTIONAL_VALUES: dict[str, tuple[str, ...]] = {"fsc": (), "rdirplus": ("none", "force")}
_OPERATIONS = frozenset(
    {"bind", "rbind", "move", "remount", "private", "rprivate", "shared", "rshared", "slave", "rslave"}
    | {"unbindable", "runbindable"}
)
_KNOWN = _FLAGS | frozenset(_NUMBERS) | frozenset(_WORDS) | _TEXTS | frozenset(_OPTIONAL_VALUES)
# mount(8): x-* is a comment for programs such as systemd, X-mount.* is for mount itself.
_FREE_PREFIXES = ("x-", "X-")

# NFSv4 has locking and ACLs in the protocol and no mount protocol: the kernel drops these without a word.
V3_ONLY = frozenset({"acl", "lock", "local_lock", "mountport", "mountproto", "mountvers", "namlen"})
_CONTRADICTIONS = ("access", "recovery", "vers", "proto")


def split(text: str) -> list[str]:
    """Split "a,b=c" at its commas; those between double quotes are part of a value."""
    words, word, quoted = [], "", False
    for character in text:
        if character == '"':
            quoted = not quoted
        if character == "," and not quoted:
            words.append(word)
            word = ""
        else:
            word += character
    words.append(word)
    return [stripped for stripped in (word.strip() for word in words) if stripped]


def parse(options: str | Iterable[str] | None) -> list[str]:
    """Return options one by one, from a text ("a,b=c"), a list of options or a list of such texts."""
    if options is None:
        return []
    if isinstance(options, str):
        return split(options)
    return [word for text in options for word in split(text)]


def problems(options: Sequence[str]) -> list[str]:
    """Return what is wrong with these options, one sentence each; empty when mount would take them."""
    found = [problem for option in options for problem in _problem(option)]
    return found or _contradictions(options)


def _problem(option: str) -> list[str]:
    name, equals, value = option.partition("=")
    if any(character.isspace() for character in name) or any(ord(character) < 32 for character in value):
        return [f'"{option}" has a blank or a control character in it']
    if option.count('"') % 2:
        return [f'"{option}" has a quotation mark that is not closed']
    if name in _OPERATIONS:
        return [f'"{name}" is an operation of mount(8), not an option of a mount']
    if name == "v2" or (name in ("vers", "nfsvers") and value == "2"):
        return [f'"{option}": Linux and nfs-utils have dropped NFSv2; the versions are {", ".join(_VERSIONS)}']
    if name.startswith(_FREE_PREFIXES):
        return []
    if name not in _KNOWN:
        return [f'"{name}" is not an option of nfs(5) or mount(8){did_you_mean(name, _KNOWN)}']
    if name in _OPTIONAL_VALUES:
        choices = _OPTIONAL_VALUES[name]
        if equals and choices and value not in choices:
            return [f'"{option}": {name} takes no value, or one of {", ".join(choices)}']
        return []
    if name in _FLAGS:
        return [f'"{option}": {name} takes no value'] if equals else []
    if not value:
        return [f'"{option}": {name} needs a value']
    if name in _NUMBERS:
        return _number_problem(option, name, value)
    if name in _WORDS and value not in _WORDS[name]:
        return [f'"{option}": {name} is one of {", ".join(_WORDS[name])}']
    if name == "sec":
        return [
            f'"{option}": "{flavor}" is not a security flavor{did_you_mean(flavor, _SECURITY)}'
            for flavor in value.split(":")
            if flavor not in _SECURITY
        ]
    return []


def _number_problem(option: str, name: str, value: str) -> list[str]:
    low, high = _NUMBERS[name]
    if not (value.isascii() and value.isdigit()):
        return [f'"{option}": {name} needs a whole number']
    if not low <= int(value) <= high:
        limits = f"from {low} to {high}" if high < _INT_MAX else f"of at least {low}"
        return [f'"{option}": {name} needs a number {limits}']
    return []


def _contradictions(options: Sequence[str]) -> list[str]:
    found = []
    for decides in _CONTRADICTIONS:
        given = [option for option in options if decides in _meaning_of(option)]
        if len({_meaning_of(option)[decides] for option in given}) > 1:
            found.append(" and ".join(f'"{option}"' for option in given) + " contradict each other")
    meaning = what_they_mean(options)
    if meaning.get("vers", "").startswith("vers=4") and meaning.get("proto", "").startswith("proto=udp"):
        found.append("NFSv4 does not run over UDP")
    return found


def notes(options: Sequence[str]) -> list[str]:
    """Return what a person should know about options that are valid but do not do what they seem to do."""
    found = []
    if {"intr", "nointr"} & set(options):
        found.append("intr and nointr do nothing since Linux 2.6.25: a waiting process can always be killed")
    meaning = what_they_mean(options)
    if meaning.get("recovery") == "soft":
        found.append("soft can corrupt data: a write that times out is lost; softerr is milder")
    if meaning.get("vers", "").startswith("vers=4"):
        dropped = sorted({word for word in options if set(_meaning_of(word)) & V3_ONLY})
        if dropped:
            found.append(f"NFSv4 ignores {', '.join(dropped)}")
    return found


def uses_unreserved_port(options: Sequence[str]) -> bool:
    """Tell whether the client comes from a port above 1023, which a server refuses unless it exports `insecure`."""
    return what_they_mean(options).get("resvport") == "noresvport"


def for_a_mount_now(options: Sequence[str]) -> list[str]:
    """Return the options without those that only tell how and when to mount at boot.

    `bg` above all: mount would report success and go on trying in the background.
    """
    return [
        option
        for option in options
        if option not in _BOOT_ONLY and not option.startswith("x-") and not option.startswith("comment=")
    ]


def what_they_mean(options: Sequence[str]) -> dict[str, str]:
    """Return what the options decide, as {what: option}; the last one wins, as in the kernel."""
    meaning: dict[str, str] = {}
    for option in options:
        meaning.update(_meaning_of(option))
    minor = meaning.pop("minorversion", None)
    if minor is not None and meaning.get("vers") == "vers=4":
        meaning["vers"] = "vers=4." + minor.partition("=")[2]
    return meaning


def _meaning_of(option: str) -> dict[str, str]:
    if option in _CHOICES:
        decides, word = _CHOICES[option]
        return {decides: word, **_ALSO.get(option, {})}
    if option in _IMPLIED:
        return {word[2:]: word for word in _IMPLIED[option]}
    name, equals, value = option.partition("=")
    if not equals or name not in _KNOWN:
        return {}
    if name == "actimeo":
        return {each: f"{each}={value}" for each in ("acregmin", "acregmax", "acdirmin", "acdirmax")}
    if name == "nfsvers":
        return {"vers": "vers=" + value}
    if name == "lookupcache" and value == "positive":
        return {name: "lookupcache=pos"}
    return {name: f"{name}={value}"}
