# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is wrong is said before anything is changed, and what follows from the inputs is right."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils import _inputs, _shares
from ansible_collections.clusterkit.storage.plugins.module_utils._report import Report
from ansible_collections.clusterkit.storage.tests.documentation import contradictions
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[4]
SPECS = {
    role: yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    for role in ("nfs_server", "nfs_client", "k8s_storage")
}
DEBIAN = {"os_family": "Debian", "distribution": "Debian", "distribution_version": "13", "system": "Linux"}
PYTHON = {"version": {"major": 3, "minor": 13}}


def host(name: str, group: str, **variables: Any) -> dict[str, Any]:
    address = {"server1": "192.0.2.1", "node1": "192.0.2.11", "node2": "192.0.2.12"}.get(name, "192.0.2.99")
    return {
        "name": name,
        "address": address,
        "groups": [group],
        "variables": variables,
        "facts": {**DEBIAN, "python": PYTHON, "all_ipv4_addresses": [address], "hostname": name},
        "error": "",
    }


def volume(name: str = "v1", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "capacity": "1Gi",
        "server": "192.0.2.1",
        "path": f"/nfs/{name}",
        "storage_class": "nfs",
        **more,
    }


def claim(name: str = "c1", **more: Any) -> dict[str, Any]:
    return {"name": name, "request": "1Gi", "storage_class": "nfs", **more}


def check(
    hosts: list[dict[str, Any]] | None = None, live: dict[str, Any] | None = None, **variables: Any
) -> dict[str, Any]:
    if hosts is None:
        hosts = [host("server1", "servers"), host("node1", "nodes")]
    cluster = {
        "host": "localhost",
        "variables": {"site_export_clients": ["192.0.2.0/24"], **variables},
        "error": "",
        "version": "v1.37.2",
        "storage_classes": [],
        "volumes": [],
        **(live or {}),
    }
    result = _inputs.check(copy.deepcopy(hosts), copy.deepcopy(cluster), SPECS)
    assert contradictions("storage_inputs", {**result, "failed": bool(result["problems"])}) == []
    return result


def problems(*arguments: Any, **variables: Any) -> list[str]:
    return [": ".join(one.values()) for one in check(*arguments, **variables)["problems"]]


def notes(*arguments: Any, **variables: Any) -> list[str]:
    return [": ".join(one.values()) for one in check(*arguments, **variables)["notes"]]


# --- hosts ---


def test_all_unreachable_hosts_are_named_at_once() -> None:
    hosts = [host("server1", "servers"), host("node1", "nodes"), host("node2", "nodes")]
    for one in hosts[1:]:
        one["error"] = "Failed to connect to the host via ssh: Connection refused\nmore"
        one["facts"] = {}
    found = problems(hosts)
    assert [line.split(":")[0] for line in found] == ["node1", "node2"]
    assert "Connection refused" in found[0] and "more" not in found[0]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"python": {"version": {"major": 3, "minor": 8}}}, "Python 3.8 is too old; at least 3.9"),
        ({"distribution_version": "10.13"}, "Debian 10.13 is too old"),
        ({"distribution": "Rocky", "os_family": "RedHat", "distribution_version": "7.9"}, "Rocky 7.9 is too old"),
        ({"system": "FreeBSD"}, "FreeBSD is not supported"),
    ],
)
def test_systems_that_cannot_work_are_refused(facts: dict[str, Any], words: str) -> None:
    one = host("node1", "nodes")
    one["facts"].update(facts)
    found = problems([one])
    assert len(found) == 1 and found[0].startswith("node1: ") and words in found[0]


def test_a_group_that_the_user_named_must_be_there() -> None:
    result = _inputs.check(
        [], {"host": "h", "variables": {}, "error": "", "version": "", "storage_classes": [], "volumes": []}, SPECS,
        {"servers": "filer", "nodes": ""}, ["filers", "all"],
    )  # fmt: skip
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


# --- the way to the API ---


@pytest.mark.parametrize(
    ("error", "variable", "words"),
    [
        ("Could not find or access '/k' on the Ansible Controller.", "storage_kubeconfig", "there is no kubeconfig /k"),
        ("Could not create API client: Invalid kube-config file. No configuration found.", "storage_kubeconfig", "/k"),
        ("Expected object with name x in /k/contexts list", "storage_context", 'no context "x"'),
        (
            "HTTPSConnectionPool(host='127.0.0.1', port=6443): Max retries exceeded (Caused by [Errno 111] Connection "
            'refused")',
            "storage_kubeconfig",
            "the API server at 127.0.0.1:6443 does not answer ([Errno 111] Connection refused",
        ),
        ("The ask command timed out. Timed out after 60 second(s).", "storage_kubeconfig", "does not answer"),
        (
            "Failed to import the required Python library (kubernetes) on host's Python /usr/bin/python3.",
            "ansible_python_interpreter",
            "no library kubernetes",
        ),
        ("no host of this name in the inventory", "storage_api_host", "no host"),
        ("403 Forbidden", "storage_kubeconfig", "cannot be read: 403 Forbidden"),
    ],
)
def test_what_went_wrong_on_the_way_to_the_api_names_the_variable(error: str, variable: str, words: str) -> None:
    found = problems(
        None,
        {"error": error},
        storage_kubeconfig="/k",
        storage_context="x",
        k8s_storage_classes=[{"name": "c", "provisioner": "a/b"}],
    )
    assert len(found) == 1 and found[0].startswith(f"localhost: {variable}: ") and words in found[0]


def test_without_kubeconfig_the_places_that_were_looked_at_are_named() -> None:
    found = problems(
        None, {"error": "Invalid kube-config file. No configuration found."}, k8s_storage_volumes=[volume()]
    )
    assert "KUBECONFIG nor ~/.kube/config" in found[0]


def test_who_wants_nothing_of_the_cluster_needs_no_cluster() -> None:
    assert problems(None, {"error": "Connection refused"}) == []


# --- volumes, claims, classes, provisioners ---


@pytest.mark.parametrize(
    ("volumes", "claims", "words"),
    [
        ([volume()], [claim(request="2Gi")], 'claim "c1" asks for 2Gi, but volume "v1" has only 1Gi'),
        (
            [volume(), volume("v2", capacity="5Gi")],
            [claim(request="2Gi", volume_name="v1")],
            'asks for 2Gi, but volume "v1" has only 1Gi',
        ),
        (
            [volume(labels={"pv": "a"}), volume("v2", capacity="5Gi")],
            [claim(request="1.3Gi", selector={"match_labels": {"pv": "a"}})],
            'asks for 1.3Gi, but volume "v1" has only 1Gi',
        ),
        (
            [volume(claim_ref={"name": "c1"}), volume("v2", capacity="5Gi")],
            [claim(request="2Gi")],
            'asks for 2Gi, but volume "v1" has only 1Gi',
        ),
        ([volume(access_modes=["ReadOnlyMany"])], [claim()], "asks for ReadWriteMany"),
        ([volume()], [claim(storage_class="nsf")], 'class "nsf", which is neither'),
        ([volume()], [claim(storage_class="")], "asks for a volume without class, and there is none"),
        ([volume()], [claim(storage_class=None)], "the cluster has no default class"),
        ([volume(), volume()], [], 'k8s_storage_volumes[1].name: "v1" is already taken by k8s_storage_volumes[0]'),
        ([volume()], [claim(), claim()], 'k8s_storage_claims[1].name: "default/c1" is already taken'),
        ([volume(capacity="1GB")], [], 'unknown suffix "GB"; did you mean "G"?'),
        ([volume(capacity="0")], [], "must be more than nothing"),
        ([volume(path="nfs/a")], [], '"nfs/a" is not absolute'),
        ([volume(path="/nfs/../a")], [], 'must not end in "/" or contain'),
        ([volume(name="Big_One")], [], '"Big_One" is not a name that Kubernetes takes'),
        ([volume(labels={"pv": 1})], [], "k8s_storage_volumes[0].labels.pv: 1 is not a string"),
        ([volume(mount_options=["nfsver=4"])], [], "k8s_storage_volumes[0].mount_options: "),
    ],
)
def test_volumes_and_claims_that_cannot_work_are_refused(
    volumes: list[dict[str, Any]], claims: list[dict[str, Any]], words: str
) -> None:
    found = problems(k8s_storage_volumes=volumes, k8s_storage_claims=claims)
    assert len(found) == 1, found
    assert found[0].startswith("localhost: k8s_storage_") and words in found[0]


@pytest.mark.parametrize(
    "wanted",
    [
        claim(),
        claim(request="1024Mi"),
        claim(volume_name="v1"),
        claim(storage_class="live"),
        claim(storage_class="live-static"),
        claim(storage_class=None),
        claim(volume_name="made-later"),
    ],
)
def test_claims_that_can_be_bound_are_taken(wanted: dict[str, Any]) -> None:
    live = {
        "storage_classes": [
            {
                "metadata": {
                    "name": "live",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                }
            }
        ],
        "volumes": [
            {
                "metadata": {"name": "old"},
                "spec": {
                    "storageClassName": "live-static",
                    "capacity": {"storage": "1395864371200m"},
                    "accessModes": ["ReadWriteMany"],
                },
            }
        ],
    }
    assert problems(None, live, k8s_storage_volumes=[volume()], k8s_storage_claims=[wanted]) == []


def test_a_faulty_volume_causes_no_second_message_about_its_claims() -> None:
    found = problems(k8s_storage_volumes=[{**volume(), "capacity": None}], k8s_storage_claims=[claim()])
    assert len(found) == 1


PROVISIONER = {"server": "192.0.2.1", "path": "/nfs/dpv"}


@pytest.mark.parametrize(
    ("provisioners", "words"),
    [
        (
            [PROVISIONER, {**PROVISIONER, "name": "second"}],
            'provisioner_name: "fuseim.pri/ifs" is already taken',
        ),
        ([PROVISIONER, {**PROVISIONER, "provisioner_name": "a/b"}], 'name: "nfs-client-provisioner" is already taken'),
        ([{**PROVISIONER, "path": "/nfs/dpv/"}], 'must not end in "/"'),
        ([{**PROVISIONER, "image": "quay.io/external_storage/nfs-client-provisioner:latest"}], "needs selfLink"),
        ([{**PROVISIONER, "replicas": 0}], "0 is no number of pods"),
        ([{**PROVISIONER, "provisioner_name": "a b"}], '"a b" is not a provisioner name'),
    ],
)
def test_provisioners_that_cannot_work_are_refused(provisioners: list[dict[str, Any]], words: str) -> None:
    found = problems(k8s_storage_provisioners=provisioners)
    assert len(found) == 1 and words in found[0], found


def test_the_default_class_is_not_taken_from_another_one() -> None:
    classes = [{"name": "a", "default": True}]
    annotation = {"storageclass.kubernetes.io/is-default-class": "true"}
    live = {"storage_classes": [{"metadata": {"name": "old", "annotations": annotation}}]}
    found = problems(None, live, k8s_storage_classes=classes)
    assert len(found) == 1 and '"old" is the default class of the cluster' in found[0]
    live["storage_classes"][0]["metadata"]["name"] = "a"
    assert problems(None, live, k8s_storage_classes=classes) == []
    found = problems(k8s_storage_classes=[*classes, {"name": "b", "default": True}])
    assert len(found) == 1 and "cannot both be the default class" in found[0]


def test_images_get_the_registry_and_keep_the_rest() -> None:
    result = check(
        k8s_storage_provisioners=[PROVISIONER],
        k8s_storage_image_registry="registry.example.org:5000/mirror/",
        verify_image="busybox:1.36",
    )
    image = result["cluster"]["provisioners"][0]["image"]
    assert image == "registry.example.org:5000/mirror/sig-storage/nfs-subdir-external-provisioner:v4.0.2"
    assert result["verify"]["image"] == "registry.example.org:5000/mirror/busybox:1.36"


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
        assert any(_shares.covers(export["path"], f"/{one}") for export in done.exports)
    for path in added:
        others = [export["path"] for export in done.exports if export["path"] != path]
        assert path in {f"/{one}" for one in used}
        assert not any(_shares.covers(other, path) for other in others), "no export below one that covers it"


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
    assert [one["variable"] for one in result["notes"]] == ["k8s_storage_volumes[1].reclaim_policy"]


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


def test_a_system_of_an_unknown_family_is_noted() -> None:
    one = host("node1", "nodes")
    one["facts"].update({"distribution": "Slackware", "os_family": "Slackware", "distribution_version": "current"})
    assert notes([one]) == ["node1: ansible_distribution: Slackware is not known; names of Red Hat are tried"]


def test_an_old_cluster_is_refused() -> None:
    (found,) = problems(live={"version": "v1.20.7"}, k8s_storage_classes=[{"name": "nfs"}])
    assert "the cluster runs Kubernetes v1.20.7; at least " in found


@pytest.mark.parametrize(
    ("server", "path", "words"),
    [
        ("192.0.2.1", "/", "the root of the server cannot hold volumes"),
        ("192.0.2.1", "/srv/../etc", 'must not end in "/" or contain'),
        ("192.0.2.1", "/srv/\x07", "contains a control character"),
        ("nfs1:/srv", "/srv", "is not the name or address of a server"),
    ],
)
def test_places_of_provisioners_that_cannot_be_are_refused(server: str, path: str, words: str) -> None:
    assert words in problems(k8s_storage_provisioners=[{"server": server, "path": path}])[0]


def test_what_will_surprise_later_is_noted() -> None:
    found = notes(
        k8s_storage_volumes=[
            volume(reclaim_policy="Delete", mount_options=["intr"]),
            volume("v2", reclaim_policy="Recycle"),
        ]
    )
    assert {line.partition(": ")[2].partition(":")[0] for line in found} >= {
        *("k8s_storage_volumes[0].reclaim_policy", "k8s_storage_volumes[0].mount_options"),
        "k8s_storage_volumes[1].reclaim_policy",
    }


def test_a_claim_too_large_for_every_volume_names_the_sizes_in_words() -> None:
    (found,) = problems(
        k8s_storage_volumes=[volume(capacity="1500")], k8s_storage_claims=[claim(request="1.5Ti", volume_name="v1")]
    )
    assert "1500 bytes" in found
    assert "1.5Ti" in found
