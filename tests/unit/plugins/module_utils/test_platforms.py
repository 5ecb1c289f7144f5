# SPDX-License-Identifier: GPL-3.0-or-later
"""Systems that are too old or unknown, and a cluster that cannot be reached, are named before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.tests.inputs import host, notes, problems, volume


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


def test_a_system_of_an_unknown_family_is_noted() -> None:
    one = host("node1", "nodes")
    one["facts"].update({"distribution": "Slackware", "os_family": "Slackware", "distribution_version": "current"})
    assert notes([one]) == ["node1: ansible_distribution: Slackware is not known; names of Red Hat are tried"]


def test_an_old_cluster_is_refused() -> None:
    (found,) = problems(live={"version": "v1.20.7"}, k8s_storage_classes=[{"name": "nfs"}])
    assert "the cluster runs Kubernetes v1.20.7; at least " in found


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
