# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes, claims, classes and provisioners that could never work together are named before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.clusterkit.storage.tests.inputs import PROVISIONER, check, claim, notes, problems, volume


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


AS_OURS: dict[str, Any] = {"provisioner": "fuseim.pri/ifs", "reclaimPolicy": "Retain"}


def test_the_default_class_is_not_taken_from_another_one() -> None:
    classes = [{"name": "a", "default": True}]
    annotation = {"storageclass.kubernetes.io/is-default-class": "true"}
    live = {"storage_classes": [{"metadata": {"name": "old", "annotations": annotation}, **AS_OURS}]}
    found = problems(None, live, k8s_storage_classes=classes)
    assert len(found) == 1 and '"old" is the default class of the cluster' in found[0]
    live["storage_classes"][0]["metadata"]["name"] = "a"
    assert problems(None, live, k8s_storage_classes=classes) == []
    live["storage_classes"][0]["metadata"]["name"] = "old"
    result = check(None, live, k8s_storage_classes=classes, k8s_storage_allow_take_default=True)
    assert result["problems"] == []
    assert result["cluster"]["take_default"] == ["old"]
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


def test_verify_tries_the_classes_that_a_provisioner_of_ours_serves() -> None:
    given: dict[str, Any] = {
        "k8s_storage_provisioners": [PROVISIONER],
        "k8s_storage_classes": [
            {"name": "a", "provisioner": "fuseim.pri/ifs"},
            {"name": "foreign", "provisioner": "example.org/x"},
            {"name": "slow", "provisioner": "fuseim.pri/ifs"},
        ],
    }
    assert check(**given)["verify"]["classes"] == ["a", "slow"]
    assert check(**given)["verify"]["deep"] is False
    assert check(**given, verify_classes="slow", verify_deep="true")["verify"]["classes"] == ["slow"]
    found = problems(**given, verify_classes=["a", "slwo", "foreign"])
    assert len(found) == 2
    words = 'verify_classes[1]: no provisioner of k8s_storage_provisioners serves a class "slwo" of k8s_storage_classes'
    assert f'{words}; did you mean "slow"?' in found[0]
    assert 'verify_classes[2]: no provisioner of k8s_storage_provisioners serves a class "foreign"' in found[1]


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
