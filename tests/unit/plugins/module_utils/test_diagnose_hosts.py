# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts said becomes arguments of storage_diagnose, also where they said little; its answer becomes lines."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose_hosts
from ansible_collections.clusterkit.storage.plugins.modules import storage_diagnose
from hypothesis import given
from hypothesis import strategies as st

SERVER: dict[str, Any] = {
    "address": "192.0.2.10",
    "facts": {
        "ansible_fqdn": "nfs1.example.com",
        "ansible_all_ipv4_addresses": ["192.0.2.10", "127.0.0.1"],
        "ansible_all_ipv6_addresses": ["fe80::1"],
    },
    "exports": {
        "exports": [{"path": "/a", "host": "*", "options": ["rw"]}],
        "versions": ["4.2"],
        "threads": 8,
        "unavailable": {},
    },
    "paths": ["/a", "/b"],
    "found": {"files": [{"path": "/a", "uid": 0, "gid": 0, "mode": "0755", "size": 4096}]},
    "error": "",
}
NODE: dict[str, Any] = {
    "address": "192.0.2.21",
    "facts": {"ansible_hostname": "node1"},
    "mounts": {"mounts": [{"path": "/x"}], "servers": [{"address": "192.0.2.10", "answers": True}], "automounts": []},
    "error": "",
}


def test_hosts_that_said_everything() -> None:
    names = ["server1", "192.0.2.10", "nfs1.example.com"]
    assert _diagnose_hosts.inputs({"server1": SERVER}, {"node1": NODE}) == {
        "exports": [
            {
                "host": "server1",
                "addresses": names,
                "exports": SERVER["exports"]["exports"],
                "versions": ["4.2"],
                "threads": 8,
            }
        ],
        "directories": [
            {
                "host": "server1",
                "addresses": names,
                "directories": [
                    {"path": "/a", "exists": True, "uid": 0, "gid": 0, "mode": "0755"},
                    {"path": "/b", "exists": False},
                ],
            }
        ],
        "mounts": [
            {
                "host": "node1",
                "addresses": ["node1", "192.0.2.21"],
                "mounts": [{"path": "/x"}],
                "servers": [{"address": "192.0.2.10", "answers": True}],
            }
        ],
        "unheard": {},
    }


def test_a_server_that_never_ran_nfsd_is_not_one_that_exports_nothing() -> None:
    unknown = {"exports": "/var/lib/nfs/etab does not exist", "threads": "nfsd never ran", "versions": "nfsd never ran"}
    said = {
        **SERVER,
        "exports": {"exports": [], "versions": None, "threads": None, "unavailable": unknown},
        "found": {},
    }
    found = _diagnose_hosts.inputs({"server1": said}, {})
    assert found["exports"] == [{"host": "server1", "addresses": found["exports"][0]["addresses"]}]
    assert found["directories"] == []


def test_hosts_that_said_nothing_are_named() -> None:
    gone = {"error": "Failed to connect\nto the host", "exports": {"skipped": True}, "mounts": {"skipped": True}}
    found = _diagnose_hosts.inputs({"server1": gone}, {"node1": {}, "node2": gone})
    assert found == {
        "exports": [],
        "directories": [],
        "mounts": [],
        "unheard": {
            "server1": "Failed to connect to the host",
            "node1": "it was not asked",
            "node2": "Failed to connect to the host",
        },
    }


def test_lines_for_a_person() -> None:
    assert _diagnose_hosts.lines({"findings": [], "unavailable": []}, {}) == ["Nothing is stuck."]
    answer = {
        "findings": [{"sentence": "A is so.", "check": ""}, {"sentence": "B is so.", "check": "the log"}],
        "unavailable": [{"verb": "list", "resource": "nodes", "costs": "labels"}],
    }
    assert _diagnose_hosts.lines(answer, {"node1": "no route", "a": "off"}) == [
        "A is so.",
        "B is so. (probable; check the log)",
        "Not known: labels; this needs list on nodes.",
        "Not asked: a: off",
        "Not asked: node1: no route",
    ]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["exports", "found", "files", "mounts", "paths", "facts", "error"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), junk, max_size=2), st.dictionaries(st.sampled_from(["a"]), junk))
def test_whatever_hosts_say_the_module_takes_it(servers: dict[str, Any], nodes: dict[str, Any]) -> None:
    found = _diagnose_hosts.inputs(servers, nodes)
    found.pop("unheard")
    checked = ArgumentSpecValidator(storage_diagnose.ARGUMENTS).validate(found)
    assert not checked.error_messages
