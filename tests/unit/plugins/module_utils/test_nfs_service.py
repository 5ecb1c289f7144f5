# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of settings takes on a server that runs, and what it must not do there."""

from __future__ import annotations

import configparser
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_service
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_service import Plan, Settings, State, Unit
from hypothesis import given
from hypothesis import strategies as st

PATHS = ("nfs.conf", "idmapd.conf")
UNITS = {
    "nfs-server.service": Unit("loaded", "active", "enabled"),
    "rpcbind.service": Unit("loaded", "active", "enabled"),
    "rpcbind.socket": Unit("loaded", "active", "enabled"),
    "rpc-statd.service": Unit("loaded", "active", "disabled"),
    "rpc-statd-notify.service": Unit("loaded", "active", "disabled"),
}
WANTED = Settings(16)


def in_force(settings: Settings, **more: Any) -> State:
    """A server that runs with these settings."""
    files = {"nfs.conf": _nfs_service.nfs_conf(settings), "idmapd.conf": _nfs_service.idmapd_conf(settings)}
    state = State(
        units=UNITS,
        threads=settings.threads,
        versions=settings.versions or ("3", "4.0", "4.1", "4.2"),
        ports={"nfs": frozenset({2049})} | {name: frozenset({port}) for name, port in settings.ports.items()},
        grace_time=settings.grace_time or 90,
        lease_time=settings.lease_time or 90,
        idmap_domain=settings.idmap_domain,
        files=files,
    )
    return replace(state, **more)


def plan(settings: Settings, found: State, *, allow_restart: bool = False) -> Plan:
    return _nfs_service.make_plan(settings, found, PATHS, allow_restart=allow_restart)


def test_a_server_with_the_settings_in_force_is_left_alone() -> None:
    assert plan(WANTED, in_force(WANTED)).steps == []


def test_threads_are_changed_while_the_server_runs() -> None:
    found = in_force(WANTED, threads=4, clients=9)
    assert plan(WANTED, found).steps == ["run 16 threads"]
    assert plan(WANTED, found).problems == []


CHANGES = [
    ({"versions": ("4.2",)}, "versions 4.2 wanted, 3, 4.0, 4.1, 4.2 in force"),
    ({"ports": {"nfs": 2050}}, "port 2050 of nfs wanted, 2049 in force"),
    ({"grace_time": 30}, "grace_time 30 wanted, 90 in force"),
    ({"lease_time": 30}, "lease_time 30 wanted, 90 in force"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_what_needs_a_restart_on_a_server_in_use_is_asked_for(change: dict[str, Any], words: str) -> None:
    settings = replace(WANTED, **change)
    found = in_force(WANTED, clients=3)
    [problem] = plan(settings, found).problems
    assert words in problem and "which 3 clients use" in problem and "grace period of" in problem
    assert "nfs_server_allow_restart: true" in problem
    for allowed in (plan(settings, found, allow_restart=True), plan(settings, replace(found, clients=0))):
        assert not allowed.problems
        assert f"restart nfs-server.service: {words}" in allowed.steps


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_value_that_is_in_force_restarts_nothing_though_the_file_changes(change: dict[str, Any], words: str) -> None:
    settings = replace(WANTED, **change)
    found = in_force(settings, clients=3, files={}, units={})
    done = plan(settings, replace(found, units=UNITS))
    assert not done.problems and not done.why_restart, words
    assert "write nfs.conf" in done.steps


def test_a_server_that_does_not_run_is_started_and_needs_no_leave() -> None:
    stopped = in_force(WANTED, threads=0, units={**UNITS, "nfs-server.service": Unit("loaded", "inactive", "disabled")})
    assert plan(replace(WANTED, versions=("4.2",)), stopped).steps[-6:-4] == [
        "start nfs-server.service",
        "enable nfs-server.service",
    ]


def test_only_version_4_switches_rpcbind_and_statd_off() -> None:
    settings = replace(WANTED, versions=("4.1", "4.2"))
    found = in_force(settings)
    assert plan(settings, found).mask == list(_nfs_service.ONLY_VERSION_3)
    masked = {name: Unit("masked", "inactive", "masked") for name in _nfs_service.ONLY_VERSION_3}
    done = replace(found, units={**UNITS, **masked})
    assert plan(settings, done).steps == []
    still_active = {**UNITS, **masked, "rpcbind.socket": Unit("masked", "active", "masked")}
    assert plan(settings, replace(found, units=still_active)).mask == ["rpcbind.socket"]
    [problem] = plan(settings, replace(found, version_3_mounts=2)).problems
    assert "2 NFSv3 mounts of this host itself" in problem
    back = replace(settings, versions=("3", "4.2"))
    assert plan(back, done).unmask == list(_nfs_service.ONLY_VERSION_3)
    assert plan(WANTED, replace(in_force(WANTED), units={**UNITS, **masked})).steps == [], "no versions, no opinion"


def test_helpers_restart_alone() -> None:
    settings = replace(WANTED, idmap_domain="example.com", ports={"statd": 32765})
    found = in_force(settings, idmap_domain="localdomain", clients=3)
    found = replace(found, ports={**found.ports, "statd": frozenset({40000})})
    assert plan(settings, found).steps == ["restart rpc-statd.service", "restart nfs-idmapd.service"]
    assert not plan(settings, found).problems


def read(**changes: Any) -> tuple[Settings, list[str]]:
    given: dict[str, Any] = {"threads": "auto", "versions": [], "ports": {}, "grace_time": None, "lease_time": None}
    return _nfs_service.read_settings(**{**given, "idmap_domain": None, "automatic": 16, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": "many"}, 'threads: "many" is neither "auto" nor a number'),
        ({"threads": "0"}, "threads"),
        ({"ports": {"mountd": 70000}}, "ports.mountd: 70000"),
        ({"ports": {"mountd": 111}}, "ports.mountd: 111 is taken"),
        ({"ports": {"mountd": 2049, "nfs": 2049}}, "is taken"),
        ({"ports": {"mountd": 20048}, "versions": ["4.2"]}, "ports.mountd: only NFSv3 uses this port"),
        ({"grace_time": 5}, "grace_time: 5"),
        ({"lease_time": 7200}, "lease_time: 7200"),
        ({"grace_time": 20, "lease_time": 60}, "shorter than lease_time"),
        ({"idmap_domain": "a b"}, "idmap_domain"),
        ({"idmap_domain": "a\n[nfsd]"}, "idmap_domain"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], words: str) -> None:
    problems = read(**changes)[1]
    assert any(words in problem for problem in problems), problems


def test_automatic_threads() -> None:
    gib = 2**30
    counts = [_nfs_service.automatic_threads(*case) for case in [(1, 2 * gib), (8, 64 * gib), (96, 512 * gib)]]
    assert counts == [16, 64, 256]
    assert _nfs_service.automatic_threads(4, gib // 8) == 8


settings_strategy = st.builds(
    Settings,
    threads=st.integers(1, 512),
    versions=st.lists(st.sampled_from(_nfs_service.VERSIONS), unique=True).map(lambda v: tuple(sorted(v))),
    ports=st.dictionaries(st.sampled_from(_nfs_service.PORTS), st.integers(1024, 65535)),
    grace_time=st.none() | st.integers(10, 3600),
    lease_time=st.none() | st.integers(10, 3600),
    idmap_domain=st.none() | st.just("example.com"),
)


@given(settings_strategy, settings_strategy, st.integers(0, 3), st.booleans())
def test_a_plan_is_empty_exactly_when_everything_is_in_force(
    wanted: Settings, other: Settings, clients: int, allowed: bool
) -> None:
    made = plan(wanted, in_force(other, clients=clients), allow_restart=allowed)
    if made.why_restart and clients and not allowed:
        assert made.problems, "a server in use was to be restarted"
    if wanted == other and not wanted.only_version_4:
        assert made.steps == []
    if not made.steps:
        assert _nfs_service.differences(wanted, in_force(other)) == {}


@given(settings_strategy)
def test_the_file_says_what_the_settings_say(settings: Settings) -> None:
    file = configparser.ConfigParser()
    file.read_string(_nfs_service.nfs_conf(settings))
    assert file.getint("nfsd", "threads") == settings.threads
    if settings.versions:
        assert {v for v in _nfs_service.VERSIONS if file.getboolean("nfsd", f"vers{v}")} == set(settings.versions)
        assert file.getboolean("nfsd", "vers4") == any(version != "3" for version in settings.versions)
    for name, port in settings.ports.items():
        assert file.getint("nfsd" if name == "nfs" else name, "port") == port


def test_ports_of_a_firewall() -> None:
    found = in_force(WANTED)
    assert _nfs_service.firewall_ports(replace(WANTED, versions=("4.2",)), found) == (["2049/tcp"], [])
    ports = {"mountd": 20048, "statd": 32765, "lockd": 32803}
    opened, problems = _nfs_service.firewall_ports(replace(WANTED, ports=ports), found)
    assert not problems
    assert set(opened) == {"2049/tcp"} | {f"{n}/{p}" for n in (111, 20048, 32765, 32803) for p in ("tcp", "udp")}
    assert len(_nfs_service.firewall_ports(WANTED, found)[1]) == 3, "random ports cannot be let in"
