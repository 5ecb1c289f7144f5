# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _live_options, _mount_options
from hypothesis import given
from hypothesis import strategies as st

# Seen on Debian 13 (kernel 6.12, nfs-utils 2.8.3) after the mount commands of the comments.
PER_MOUNT = ["rw", "relatime"]
# -o rw,rsize=8192,soft,intr
SOFT = (
    "rw,vers=4.2,rsize=8192,wsize=131072,namlen=255,soft,proto=tcp,timeo=600,retrans=2,sec=sys,"
    "clientaddr=192.168.78.2,local_lock=none,addr=192.168.78.1"
)
# no options
PLAIN = SOFT.replace("rsize=8192", "rsize=131072").replace("soft", "hard")
# -o noac,write=eager,lookupcache=positive,noresvport,softerr
MANY = (
    "rw,sync,vers=4.2,rsize=131072,wsize=131072,namlen=255,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0,softerr,"
    "softreval,noac,noresvport,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=192.168.78.2,lookupcache=pos,"
    "local_lock=none,write=eager,addr=192.168.78.1"
)
# -o vers=3,nolock,actimeo=7,ro,noatime
V3 = (
    "ro,vers=3,rsize=131072,wsize=131072,namlen=255,acregmin=7,acregmax=7,acdirmin=7,acdirmax=7,hard,nolock,"
    "proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=192.168.78.1,mountvers=3,mountport=48152,mountproto=udp,"
    "local_lock=all,addr=192.168.78.1"
)


def differences(wanted: str, super_options: str, mount_options: list[str] | None = None) -> list[str]:
    found = _live_options.differences(
        _mount_options.parse(wanted), mount_options or PER_MOUNT, _mount_options.parse(super_options)
    )
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("wanted", "live", "mount_options"),
    [
        ("rw,rsize=8192,soft,intr", SOFT, None),
        ("", PLAIN, None),
        ("defaults,_netdev,nofail,bg,x-systemd.automount,retry=5", PLAIN, None),
        ("hard,intr,timeo=600,retrans=2,nfsvers=4", PLAIN, None),
        ("vers=4.2", PLAIN, None),
        ("v4.2,tcp,port=2049", PLAIN, None),
        ("port=2050", PLAIN, None),  # as seen on Debian 13, mounted with -o port=2050
        ("port=2050", PLAIN + ",port=2050", None),
        ("port=0", PLAIN, None),
        ("port=0", PLAIN + ",port=2050", None),
        ("proto=tcp6", PLAIN, None),
        ("proto=tcp", PLAIN.replace("proto=tcp", "proto=tcp6"), None),
        ("rsize=1048576,wsize=0", PLAIN, None),
        ("rsize=0", PLAIN.replace("rsize=131072", "rsize=1048576"), None),
        ("retrans=0,timeo=50,comment=c", PLAIN, None),
        ("sec=null", PLAIN.replace("sec=sys", "sec=none"), None),
        ("sec=krb5:none", PLAIN.replace("sec=sys", "sec=null"), None),
        ("fsc=tag", PLAIN + ",fsc", None),
        ("rdirplus=force", PLAIN, None),
        ("rdirplus", PLAIN + ",rdirplus=force", None),
        ("softerr,nosoftreval", PLAIN.replace("hard", "softerr"), None),
        ("mountproto=udp6,namlen=9,vers=3,nolock,actimeo=7,ro,noatime", V3, ["ro", "noatime"]),
        (
            "mountport=9,mountproto=tcp,mountvers=2,vers=3,nolock,actimeo=7,ro,noatime",
            V3.replace("mountvers=3,mountport=48152,mountproto=udp,", ""),
            ["ro", "noatime"],
        ),
        ("nolock,noacl,local_lock=all,mountproto=tcp", PLAIN, None),  # NFSv4 drops these
        ("sec=krb5:sys", PLAIN, None),
        ("noac,write=eager,lookupcache=positive,noresvport,softerr", MANY, None),
        ("vers=3,nolock,actimeo=7,ro,noatime", V3, ["ro", "noatime"]),
        ("nfsvers=3,nolock,acregmin=7,acregmax=7,acdirmin=7,acdirmax=7,ro,noatime", V3, ["ro", "noatime"]),
        ("strictatime", PLAIN, ["rw"]),
        ("user", PLAIN, ["rw", "nosuid", "nodev", "noexec", "relatime"]),
        ("timeo=99999", PLAIN.replace("timeo=600", "timeo=6000"), None),
    ],
)
def test_a_mount_made_with_these_options_is_left_alone(wanted: str, live: str, mount_options: list[str] | None) -> None:
    assert differences(wanted, live, mount_options) == []


@pytest.mark.parametrize(
    ("wanted", "live", "found"),
    [
        ("hard", SOFT, "soft instead of hard"),
        ("rsize=8192", SOFT, "soft instead of hard"),  # taken out of the list
        ("softerr", SOFT, "soft instead of softerr"),
        ("soft,rsize=4096", SOFT, "rsize=8192 instead of rsize=4096"),
        ("soft,timeo=50", SOFT, "timeo=600 instead of timeo=50"),
        ("nfsvers=4.1", PLAIN, "vers=4.2 instead of vers=4.1"),
        ("vers=3", PLAIN, "vers=4.2 instead of vers=3"),
        ("vers=4,minorversion=1", PLAIN, "vers=4.2 instead of vers=4.1"),
        ("noresvport", PLAIN, "resvport instead of noresvport"),
        ("noac", PLAIN, "ac instead of noac"),
        ("actimeo=7", PLAIN, "acregmin=3 instead of acregmin=7"),
        ("port=2050", PLAIN + ",port=2051", "port=2051 instead of port=2050"),
        ("timeo=7000", PLAIN, "timeo=600 instead of timeo=7000"),
        ("timeo=50", PLAIN.replace("timeo=600", "timeo=6000"), "timeo=6000 instead of timeo=50"),
        ("lookupcache=none", PLAIN, "lookupcache=all instead of lookupcache=none"),
        ("fsc", PLAIN, "nofsc instead of fsc"),
        ("", PLAIN + ",fsc", "fsc instead of nofsc"),
        ("nordirplus", PLAIN, "rdirplus instead of nordirplus"),
        ("", PLAIN + ",nordirplus", "nordirplus instead of rdirplus"),
        ("nconnect=4", PLAIN, "nconnect=1 instead of nconnect=4"),
        ("ro", PLAIN, "rw instead of ro"),
        ("sec=krb5p", PLAIN, "sec=sys instead of sec=krb5p"),
        ("sync", PLAIN, "async instead of sync"),
        ("udp,vers=3,actimeo=7,nolock,ro,noatime", V3, "proto=tcp instead of proto=udp"),
    ],
)
def test_a_live_mount_that_differs_is_noticed(wanted: str, live: str, found: str) -> None:
    assert found in differences(wanted, live)


@pytest.mark.parametrize(
    "option",
    [
        *("addr=10.0.0.9", "bsize=8", "clientaddr=10.0.0.9", "mountaddr=10.0.0.9", "mounthost=h", "mountprog=9"),
        *("namlen=9", "nfsprog=9", "retry=9", "context=c", "defcontext=c", "fscontext=c", "rootcontext=c"),
        *("fatal_neterrors=none", "comment=c", "cert_serial=9", "privkey_serial=9"),
    ],
)
def test_what_the_kernel_does_not_show_is_not_compared(option: str) -> None:
    assert differences(option, PLAIN) == []
    assert differences(f"noac,{option}", f"{PLAIN},noac") == []


def test_softerr_brings_softreval_with_newer_kernels() -> None:
    live = PLAIN.replace("hard", "softerr,softreval")
    assert differences("softerr", live) == differences("softerr", live.replace(",softreval", "")) == []
    assert differences("softerr,softreval", live) == []
    assert differences("", f"{PLAIN},softreval") == ["softreval instead of nosoftreval"]


def test_over_udp_other_defaults_count() -> None:
    wanted = "vers=3,nolock,actimeo=7,ro,noatime"
    udp = V3.replace("proto=tcp,timeo=600,retrans=2", "proto=udp,timeo=11,retrans=3")
    assert differences(wanted, udp, ["ro", "noatime"]) == []
    assert differences(f"udp,{wanted}", udp, ["ro", "noatime"]) == []
    assert differences(f"udp,{wanted}", V3, ["ro", "noatime"]) == [
        *("timeo=600 instead of timeo=11", "retrans=2 instead of retrans=3", "proto=tcp instead of proto=udp")
    ]


def test_a_mount_that_shows_less_is_compared_by_what_it_shows() -> None:
    assert differences("", "rw") == []
    assert differences("max_connect=4", PLAIN) == ["nothing of that kind instead of max_connect=4"]


def test_flags_of_the_mount_can_be_remounted_and_nothing_else() -> None:
    found = _live_options.differences(["ro", "nosuid", "noatime", "timeo=50"], PER_MOUNT, PLAIN.split(","))
    assert {each.decides for each in found if each.remountable} == {"access", "suid", "atime"}


def test_a_superblock_that_is_read_only_counts_though_the_mount_says_rw() -> None:
    assert differences("rw", PLAIN.replace("rw,", "ro,", 1)) == ["ro instead of rw"]


def test_what_the_first_mount_decides_for_all_is_told_apart() -> None:
    found = _live_options.differences(["timeo=50", "nconnect=2"], PER_MOUNT, PLAIN.split(","))
    assert [(each.shared_by_superblock, each.shared_by_server) for each in found] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sofft", '"sofft" is not an option of nfs(5) or mount(8); did you mean "soft"?'),
        ("nfsver=4.1", 'did you mean "nfsvers"?'),
        ("rsize=32k", '"rsize=32k": rsize needs a whole number'),
        ("timeo=0", '"timeo=0": timeo needs a number of at least 1'),
        ("nconnect=17", '"nconnect=17": nconnect needs a number from 1 to 16'),
        ("nconnect=16", None),
        ("timeo", '"timeo": timeo needs a value'),
        ("hard=yes", '"hard=yes": hard takes no value'),
        ("vers=4.3", "vers is one of 3, 4, 4.0, 4.1, 4.2"),
        ("nfsvers=2", "have dropped NFSv2"),
        ("vers=2", '"vers=2": Linux and nfs-utils have dropped NFSv2; the versions are 3, 4, 4.0, 4.1, 4.2'),
        ("v2", "have dropped NFSv2"),
        ("minorversion=2", None),
        ("context=a b!", None),
        ("context=a\tb", "a control character"),
        ('context="a"', None),
        ("lookupcache=some", "lookupcache is one of all, none, pos, positive"),
        ("sec=sys:kerberos", '"kerberos" is not a security flavor'),
        ("remount", '"remount" is an operation of mount(8), not an option of a mount'),
        ("ro ", None),
        ("r o", "has a blank"),
        ('context="a', "quotation mark"),
        ("rdirplus=force", None),
        ("rdirplus=never", "takes no value, or one of none, force"),
        ("x-systemd.idle-timeout=60", None),
        ("X-mount.mkdir=0750", None),
        ("fsc", None),
        ("fsc=tag", None),
    ],
)
def test_an_option_that_mount_would_refuse_is_named(option: str, words: str | None) -> None:
    found = "; ".join(_mount_options.problems(_mount_options.parse(option)))
    if words is None:
        assert found == ""
    else:
        assert words in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("hard,soft", '"hard" and "soft" contradict each other'),
        ("ro,rw", '"ro" and "rw" contradict each other'),
        ("vers=3,nfsvers=4.1", '"vers=3" and "nfsvers=4.1" contradict each other'),
        ("vers=4,proto=udp", "NFSv4 does not run over UDP"),
    ],
)
def test_contradictions_are_named(options: str, words: str) -> None:
    assert _mount_options.problems(_mount_options.parse(options)) == [words]


def test_contradictions_are_named_where_nothing_else_is_wrong() -> None:
    assert _mount_options.problems(["soft", "hard"]) == ['"soft" and "hard" contradict each other']
    assert len(_mount_options.problems(["soft", "hard", "sofft"])) == 1


def test_what_an_option_decides() -> None:
    def meaning(text: str) -> dict[str, str]:
        return _mount_options.what_they_mean(_mount_options.parse(text))

    assert meaning("softerr") == {"recovery": "softerr", "softreval": "softreval"}
    assert meaning("softerr,hard") == {"recovery": "hard", "softreval": "nosoftreval"}
    assert meaning("x-a=b,such=c,fsc=d,rdirplus=force") == {"fsc": "fsc=d", "rdirplus": "rdirplus=force"}
    assert meaning("context=a=b") == {"context": "context=a=b"}


def test_commas_between_quotes_are_part_of_a_value() -> None:
    assert _mount_options.parse('ro,context="system_u:object_r:t:s0:c1,c2",hard') == [
        "ro",
        'context="system_u:object_r:t:s0:c1,c2"',
        "hard",
    ]
    assert _mount_options.parse(["ro,hard", " nosuid "]) == ["ro", "hard", "nosuid"]


def test_options_of_the_boot_are_not_used_for_a_mount_now() -> None:
    options = ["rw", "_netdev", "nofail", "bg", "noauto", "x-systemd.automount", "comment=mine", "hard"]
    assert _mount_options.for_a_mount_now(options) == ["rw", "hard"]


def test_a_mount_from_an_unreserved_port_is_recognised() -> None:
    # Such a mount is refused by a server that does not export with `insecure`.
    assert _mount_options.uses_unreserved_port(["hard", "noresvport"])
    assert not _mount_options.uses_unreserved_port(["noresvport", "resvport"])
    assert not _mount_options.uses_unreserved_port([])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("hard,intr", "do nothing since Linux 2.6.25"),
        ("soft", "can corrupt data"),
        ("vers=4.1,nolock", "NFSv4 ignores"),
    ],
)
def test_what_does_not_do_what_it_seems_to_do_is_noted(options: str, words: str) -> None:
    assert words in " ".join(_mount_options.notes(_mount_options.parse(options)))


VALID = st.lists(
    st.one_of(
        st.sampled_from(sorted(_mount_options._FLAGS)),
        st.sampled_from([f"{name}={low}" for name, (low, _high) in _mount_options._NUMBERS.items()]),
        st.sampled_from([f"{name}={word}" for name, words in _mount_options._WORDS.items() for word in words]),
        st.sampled_from(["sec=sys", "sec=krb5:krb5i", "x-a=b", "X-mount.mkdir", "clientaddr=10.0.0.1"]),
    ),
    max_size=12,
)


@given(VALID)
def test_valid_options_are_never_called_wrong_one_by_one(options: list[str]) -> None:
    assert [problem for option in options for problem in _mount_options.problems([option])] == []


@given(VALID)
def test_options_survive_being_written_and_read(options: list[str]) -> None:
    assert _mount_options.parse(",".join(options)) == options


@given(VALID, st.sampled_from([SOFT, PLAIN, MANY, V3]))
def test_a_kernel_that_took_every_option_literally_shows_no_difference(options: list[str], live: str) -> None:
    # What is asked for, laid over any live mount: nothing but what is not given may differ.
    meaning = _mount_options.what_they_mean(options)
    shown = [*live.split(","), *meaning.values()]
    per_mount = [
        meaning[each] for each in _live_options._PER_MOUNT if each in meaning and meaning[each] != "strictatime"
    ]
    if meaning.get("atime", "relatime") == "relatime":
        per_mount.append("relatime")
    if "access" not in meaning or meaning["access"] == "rw":
        shown = [option for option in shown if option != "ro"]
    found = {each.decides for each in _live_options.differences(options, per_mount, shown)}
    assert found.isdisjoint(set(meaning) - {"rsize", "wsize", "timeo"})


@given(st.text(max_size=30))
def test_any_text_is_judged_without_a_crash(text: str) -> None:
    _mount_options.problems(_mount_options.parse(text))


INTR = "intr and nointr do nothing since Linux 2.6.25: a waiting process can always be killed"
SOFT = "soft can corrupt data: a write that times out is lost; softerr is milder"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("hard", []),
        ("intr", [INTR]),
        ("nointr,soft", [INTR, SOFT]),
        ("soft,hard", []),
        ("vers=3,nolock", []),
        ("nolock", []),
        ("vers=4.1,nolock,hard,lock", ["NFSv4 ignores lock, nolock"]),
        ("vers=4.1,hard", []),
    ],
)
def test_notes_are_these_and_no_others(options: str, told: list[str]) -> None:
    assert _mount_options.notes(_mount_options.parse(options)) == told


def test_a_remount_says_every_flag_of_the_mount() -> None:
    usual = ["rw", "suid", "dev", "exec", "relatime", "diratime", "symfollow"]
    assert _live_options.per_mount_flags([]) == usual
    assert _live_options.per_mount_flags(["ro", "noexec", "noatime"]) == [
        "ro", "suid", "dev", "noexec", "noatime", "diratime", "symfollow",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "largest"),
    [(0, 1048576), (1, 4096), (1023, 4096), (1024, 1024), (65536, 65536), (1048577, 1048576), (2**21, 1048576)],
)
def test_transfer_sizes_as_the_kernel_bounds_them(given: int, largest: int) -> None:
    assert _live_options._transfer_size(given) == largest
