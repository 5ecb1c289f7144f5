# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is wrong is said before anything is changed, and what follows from the inputs is right."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils import _inputs, _shares
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers
from ansible_collections.clusterkit.storage.plugins.module_utils._report import Report
from ansible_collections.clusterkit.storage.tests.inputs import (
    NOTHING_LIVE,
    PROVISIONER,
    ROOT,
    SPECS,
    check,
    host,
    notes,
    problems,
    volume,
)
from hypothesis import given
from hypothesis import strategies as st

# --- hosts ---


def test_all_unreachable_hosts_are_named_at_once() -> None:
    hosts = [host("server1", "servers"), host("node1", "nodes"), host("node2", "nodes")]
    for one in hosts[1:]:
        one["error"] = "Failed to connect to the host via ssh: Connection refused\nmore"
        one["facts"] = {}
    found = problems(hosts)
    assert [line.split(":")[0] for line in found] == ["node1", "node2"]
    assert "Connection refused" in found[0] and "more" not in found[0]


def test_a_group_that_the_user_named_must_be_there() -> None:
    result = _inputs.check(
        [], {**NOTHING_LIVE, "host": "h"}, SPECS, {"servers": "filer", "nodes": ""}, ["filers", "all"]
    )
    assert result["problems"] == [
        {
            "host": "h",
            "variable": "storage_servers_group",
            "message": 'the inventory has no group "filer"; did you mean "filers"?',
        }
    ]


# --- variables of the hosts ---


def test_faults_of_several_hosts_and_roles_are_said_together() -> None:
    server = host(
        "server1",
        "servers",
        nfs_server_exports=[
            {"path": "nfs/a", "clients": [{"host": "n1", "options": ["rww"]}]},
            {"path": "/b", "client": []},
        ],
        nfs_server_directories=[{"path": "/a/../b", "mode": 511}],
    )
    node = host(
        "node1",
        "nodes",
        nfs_client_mounts=[{"src": "server1:/a", "path": "mnt", "options": ["hardd"]}],
        nfs_client_mount_defaults=[{"options": ["sotf"]}],
    )
    found = problems([server, node], k8s_storage_volumes=[{**volume(), "capacity": None}])
    for words in (
        'server1: nfs_server_exports[1].client: unknown key; did you mean "clients"?',
        'server1: nfs_server_exports[1].clients: is missing in "/b"',
        "server1: nfs_server_directories[0].path: ",
        "server1: nfs_server_directories[0].mode: ",
        'node1: nfs_client_mounts[0].path: "mnt" is not an absolute path',
        "node1: nfs_client_mounts[0].options: ",
        "node1: nfs_client_mount_defaults[0].options: ",
        'localhost: k8s_storage_volumes[0].capacity: is missing in "v1"',
    ):
        assert any(line.startswith(words) for line in found), (words, found)


def test_a_faulty_entry_hides_neither_its_neighbours_nor_their_numbers() -> None:
    exports = [
        {"clients": []},
        {"path": "relative", "clients": [{"host": "n1"}], "clientss": 1},
    ]
    volumes = [{**volume("v0"), "capacity": None}, volume("v1", capacity="1GB"), volume("v2"), volume("v2")]
    found = problems([host("server1", "servers", nfs_server_exports=exports)], k8s_storage_volumes=volumes)
    assert [line.partition(": ")[2].partition(": ")[0] for line in found] == [
        "nfs_server_exports[0].path",
        "nfs_server_exports[1].clientss",
        "nfs_server_exports[1].path",
        "k8s_storage_volumes[0].capacity",
        "k8s_storage_volumes[3].name",
        "k8s_storage_volumes[1].capacity",
    ]
    assert '"v2" is already taken by k8s_storage_volumes[2]' in found[4]


def test_a_wrong_export_names_path_option_and_the_word_that_was_meant() -> None:
    exports = [{"path": "nfs/a", "clients": [{"host": "n1", "options": ["rww"]}]}]
    found = problems([host("server1", "servers", nfs_server_exports=exports)])
    assert any('server1: nfs_server_exports[0].path: "nfs/a" is not an absolute path' in line for line in found)
    assert any('nfs_server_exports[0].clients[0].options: "rww"' in line and '"rw"' in line for line in found)


def test_a_misspelt_variable_is_a_problem_and_somebodys_own_one_a_note() -> None:
    server = host("server1", "servers", nfs_server_export=[], nfs_server_ip="192.0.2.1")
    assert problems([server]) == [
        'server1: nfs_server_export: is not a variable of role nfs_server; did you mean "nfs_server_exports"?'
    ]
    assert any("nfs_server_ip: is not a variable" in line for line in notes([server]))
    assert problems(site_export_client=["x"]) == [
        'localhost: site_export_client: is not known; did you mean "site_export_clients"?'
    ]


# --- what follows for the servers ---


def test_directories_and_exports_follow_from_volumes_and_provisioners() -> None:
    listed = {"path": "/nfs/own", "clients": [{"host": "192.0.2.11", "options": ["rw"]}]}
    server = host(
        "server1",
        "servers",
        nfs_server_directories=[{"path": "/nfs/own", "mode": "0750"}],
        nfs_server_exports=[listed],
    )
    result = check(
        [server, host("node1", "nodes")],
        k8s_storage_provisioners=[PROVISIONER],
        k8s_storage_classes=[{"name": "c", "mount_options": ["noresvport"]}],
        k8s_storage_volumes=[volume("own"), volume("new", server="SERVER1"), volume("deep", path="/nfs/own/deep")],
    )
    assert result["problems"] == []
    done = result["servers"]["server1"]
    assert [(one["path"], one["mode"]) for one in done["directories"]] == [
        ("/nfs/own", "0750"),
        ("/nfs/dpv", "0777"),
        ("/nfs/new", "0777"),
        ("/nfs/own/deep", "0777"),
    ]
    usual = ["rw", "sync", "no_subtree_check"]
    assert [(one["path"], one["clients"][0]["host"], one["clients"][0]["options"]) for one in done["exports"]] == [
        ("/nfs/own", "192.0.2.11", ["rw"]),
        ("/nfs/dpv", "192.0.2.0/24", [*usual, "insecure"]),
        ("/nfs/new", "192.0.2.0/24", usual),
    ]
    assert result["storage_servers"][0]["shares"][1] == {"server_path": "/nfs/dpv", "client_path": "/nfs/dpv"}


def test_nothing_is_exported_to_anybody_who_was_not_named() -> None:
    found = problems(site_export_clients=[], k8s_storage_volumes=[volume()])
    assert len(found) == 1
    assert found[0].startswith('localhost: site_export_clients: volume "v1" (k8s_storage_volumes[0]) needs /nfs/v1')
    assert any("everybody" in line for line in problems(site_export_clients=["*"]))


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/share/x", "/home", "/srv"])
def test_directories_of_the_operating_system_are_not_opened(path: str) -> None:
    found = problems(k8s_storage_volumes=[volume(path=path)])
    assert any("a directory of the operating system" in line for line in found)


def test_a_server_that_is_not_ours_is_left_alone_and_said() -> None:
    result = check(k8s_storage_volumes=[volume(server="appliance.example.org")])
    assert result["problems"] == [] and result["servers"]["server1"]["exports"] == []
    assert any("left to whoever runs it" in one["message"] for one in result["notes"])


def test_an_address_of_two_servers_must_be_decided() -> None:
    servers = [host("server1", "servers"), host("server2", "servers")]
    for one in servers:
        one["facts"]["all_ipv4_addresses"] = ["172.17.0.1"]
        one["address"] = one["name"]
    wanted = [volume(server="172.17.0.1")]
    found = problems(servers, k8s_storage_volumes=wanted)
    assert len(found) == 1 and "say in storage_servers" in found[0]
    said = [{"name": "a", "host": "server2", "addresses": ["172.17.0.1"]}]
    result = check(servers, k8s_storage_volumes=wanted, storage_servers=said)
    assert result["problems"] == []
    assert [one["path"] for one in result["servers"]["server2"]["exports"]] == ["/nfs/v1"]


def test_paths_that_clients_see_differently_are_found_on_the_server() -> None:
    shares = [{"server_path": "/disk1/share", "client_path": "/share"}]
    said = [{"name": "a", "host": "server1", "addresses": ["nas"], "shares": shares}]
    result = check(k8s_storage_volumes=[volume(server="nas", path="/share/v1")], storage_servers=said)
    assert [one["path"] for one in result["servers"]["server1"]["directories"]] == ["/disk1/share/v1"]
    assert result["uses"][0]["path"] == "/disk1/share/v1"


def test_unreserved_ports_on_a_secure_export_are_said() -> None:
    """No node could mount it; where some clients are insecure, the nodes may be among these."""
    export: dict[str, Any] = {"path": "/nfs", "clients": [{"host": "192.0.2.0/24", "options": ["rw"]}]}
    wanted = [volume(mount_options=["noresvport"])]
    servers = [host("server1", "servers", nfs_server_exports=[export])]
    assert any(
        "export /nfs is secure for 192.0.2.0/24" in line for line in problems(servers, k8s_storage_volumes=wanted)
    )
    export["clients"] += [{"host": "192.0.3.0/24", "options": ["rw,insecure"]}]
    assert not problems(servers, k8s_storage_volumes=wanted)
    assert any("export /nfs is secure for 192.0.2.0/24" in line for line in notes(servers, k8s_storage_volumes=wanted))
    export["options"] = ["insecure"]
    assert not any("is secure" in line for line in notes(servers, k8s_storage_volumes=wanted))
    export["clients"][0]["options"] = ["secure"]
    assert any("is secure" in line for line in notes(servers, k8s_storage_volumes=wanted))


def test_nodes_try_to_write_only_where_they_must_be_able_to() -> None:
    directories = [
        {"path": "/nfs/listable", "mode": "0755"},
        {"path": "/nfs/private", "mode": "0700"},
    ]
    result = check(
        [host("server1", "servers", nfs_server_directories=directories)],
        k8s_storage_provisioners=[PROVISIONER],
        k8s_storage_volumes=[
            volume("derived"),
            volume("read", access_modes=["ReadOnlyMany"]),
            volume("listable"),
            volume("private"),
        ],
    )
    tried = {one["path"]: one["read_only"] for one in result["shares"]}
    assert tried == {"/nfs/dpv": False, "/nfs/derived": False, "/nfs/read": True, "/nfs/listable": True}


names = st.sampled_from(["a", "b", "a/b", "a/b/c", "ab", "c"])


@given(st.lists(names, unique=True), st.lists(names, unique=True), st.lists(names, min_size=1, unique=True))
def test_every_use_gets_a_directory_and_exactly_one_way_to_it(
    directories: list[str], exports: list[str], used: list[str]
) -> None:
    server = _shares.Server(
        "s",
        [],
        [{"path": f"/{one}", "mode": "0700"} for one in directories],
        [{"path": f"/{one}", "clients": [{"host": "h", "options": []}]} for one in exports],
    )
    needs = [_shares.Needed(_shares.Use("volume", one, "place", "s", f"/{one}", (), True), f"/{one}") for one in used]
    report = Report()
    done = _shares.complete(server, needs, _shares.Policy("localhost", ["n"], ["rw"]), report)
    assert report.problems == []
    assert done.directories[: len(directories)] == server.directories, "what the operator listed stays as it is"
    assert done.exports[: len(exports)] == server.exports
    paths = [one["path"] for one in done.directories]
    assert len(paths) == len(set(paths)) and {f"/{one}" for one in used} <= set(paths)
    added = [one["path"] for one in done.exports[len(exports) :]]
    for one in used:
        assert any(covers(export["path"], f"/{one}") for export in done.exports)
    for path in added:
        others = [export["path"] for export in done.exports if export["path"] != path]
        assert path in {f"/{one}" for one in used}
        assert not any(covers(other, path) for other in others), "no export below one that covers it"


def test_the_example_inventory_is_right() -> None:
    """What a person copies must run as it stands."""
    everybody = yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text())
    places = {"{{ nfs_address }}": everybody["nfs_address"], "{{ nfs_root }}": everybody["nfs_root"]}

    def read(name: str) -> dict[str, Any]:
        text = (ROOT / "inventory/group_vars" / name).read_text()
        for word, value in places.items():
            text = text.replace(word, value)
        return dict(yaml.safe_load(text))

    server = host("server1", "servers", **read("nfs_servers.yml"))
    server["address"] = everybody["nfs_address"]
    nodes = [host(name, "nodes", **read("nfs_clients.yml")) for name in ("node1", "node2")]
    variables = {key: value for key, value in read("all.yml").items() if key.startswith(("k8s_", "site_"))}
    result = check([server, *nodes], **variables)
    assert result["problems"] == []
    assert len(result["servers"]["server1"]["exports"]) == len(result["servers"]["server1"]["directories"]) == 9
    assert [one["variable"] for one in result["notes"]] == [
        "k8s_storage_classes[0].allow_volume_expansion",
        "k8s_storage_volumes[1].reclaim_policy",
    ]


@pytest.mark.parametrize(("given_word", "allowed"), [("false", False), ("no", False), (False, False), ("true", True)])
def test_the_word_false_from_the_command_line_opens_nothing(given_word: Any, allowed: bool) -> None:
    """`-e nfs_server_allow_world=false` is text; an export to the world must stay refused."""
    assert _inputs._allows_world({"nfs_server_allow_world": given_word}) is allowed


def test_pseudo_root_with_bind_mounts_is_known_to_the_volumes() -> None:
    """Clients of NFSv4 leave the pseudo-root's path away; the server finds its directory all the same."""
    everybody = [{"host": "192.0.2.0/24", "options": ["rw"]}]
    exports = [
        {"path": "/srv/nfs4", "clients": everybody, "options": ["fsid=0"]},
        {"path": "/srv/nfs4/disk1", "clients": everybody},
    ]
    servers = [host("server1", "servers", nfs_server_exports=exports)]
    result = check(servers)
    [entry] = result["storage_servers"]
    assert {"server_path": "/srv/nfs4/disk1", "client_path": "/disk1"} in entry["shares"]
    assert {"server_path": "/srv/nfs4/disk1", "client_path": "/srv/nfs4/disk1"} in entry["shares"]
    assert {"server_path": "/srv/nfs4", "client_path": "/"} in entry["shares"]


def test_all_problems_fit_one_message() -> None:
    one = {"host": "node1", "variable": "nfs_client_mounts", "message": "is wrong"}
    assert (
        _inputs.message([one])
        == "The inputs have a problem; nothing was changed.\n  node1: nfs_client_mounts: is wrong"
    )
    assert _inputs.message([one, one]).startswith("The inputs have 2 problems; ")


def test_a_variable_that_is_no_list_hides_only_itself() -> None:
    one = host("server1", "servers", nfs_server_exports="all", nfs_server_directories=[{"path": "a"}])
    found = problems([one])
    assert len(found) == 2
    assert found[0].startswith("server1: nfs_server_exports: ")
    assert found[1].startswith("server1: nfs_server_directories[0].path: ")


def test_who_may_mount_what_is_derived_is_checked_too() -> None:
    found = problems(site_export_clients=["*"], site_export_options=["rww"], site_export_client=[])
    assert {line.partition(": ")[2].partition(":")[0] for line in found} == {
        *("site_export_client", "site_export_clients[0]", "site_export_options")
    }


def test_values_of_the_wrong_type_for_the_playbook_are_named() -> None:
    (found,) = problems(site_export_clients={"a": 1})
    assert found.startswith("localhost: site_export_clients: ")


def test_mount_options_that_do_nothing_are_noted() -> None:
    one = host("node1", "nodes", nfs_client_mounts=[{"src": "nfs1:/srv", "path": "/data", "options": ["intr"]}])
    (found,) = notes([one])
    assert found.startswith("node1: nfs_client_mounts[0].options: ")
    assert "intr" in found
