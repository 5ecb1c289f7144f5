# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of an API: what is tried again, for how long, and what is said in the end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import urllib3
from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api, Patience
from ansible_collections.clusterkit.storage.plugins.module_utils._api_access import Access
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from kubernetes.client import Configuration

DATE = {"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}


class Answer:
    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        self.status = status
        self.data = json.dumps({} if body is None else body, separators=(",", ":")).encode()
        self.headers = {**DATE, **{name.replace("_", "-"): value for name, value in headers.items()}}


class Pool:
    """Gives the prepared answers in turn; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []

    def request(self, method: str, url: str, body: Any = None, **_options: Any) -> Answer:
        self.asked.append((method, url, json.loads(body) if body else None))
        answer: Answer | Exception = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def api(pool: Pool, retry: float = 60.0, **options: Any) -> tuple[Api, list[float]]:
    pauses: list[float] = []
    access = Access("https://api", pool, urllib3.HTTPHeaderDict)
    return Api(access, Patience(1.0, retry), sleep=pauses.append, **options), pauses


DROPPED = urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError())


@pytest.mark.parametrize("fault", [Answer(429), Answer(500), Answer(502), Answer(503), Answer(504), DROPPED])
def test_passing_faults_are_passed_over(fault: Any) -> None:
    pool = Pool(fault, fault, Answer(200, {"a": 1}))
    one, pauses = api(pool)
    assert one.get("/api/v1/persistentvolumes/a") == {"a": 1}
    assert len(pool.asked) == 3
    assert 0 < pauses[0] <= 0.05
    assert 0.05 <= pauses[1] <= 0.1, "pauses grow"


def test_the_pause_that_the_api_asks_for_is_kept() -> None:
    at = "Sun, 01 Mar 2026 12:00:07 GMT"
    one, pauses = api(Pool(Answer(429, Retry_After="3"), Answer(503, Retry_After=at), Answer(200)))
    one.get("/api/v1/persistentvolumes/a")
    assert pauses == [3.0, 7.0]


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    one, pauses = api(Pool(Answer(200), Answer(429, {"message": "too many"}, Retry_After="61")))
    one.get("/api/v1/persistentvolumes/a")
    with pytest.raises(ApiError, match=r'get persistentvolumes "a": no answer within 60 s; last: 429 too many'):
        one.get("/api/v1/persistentvolumes/a")
    assert pauses == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_refusals_are_not_repeated(status: int) -> None:
    pool = Pool(Answer(status, {"message": "no"}))
    with pytest.raises(ApiError) as told:
        api(pool)[0].patch("/api/v1/persistentvolumes/a", {})
    assert len(pool.asked) == 1
    assert told.value.status == status
    assert (told.value.gone, told.value.conflict, told.value.uncertain) == (status == 404, status == 409, False)


def test_a_refusal_after_a_lost_answer_says_that_the_change_may_be_there() -> None:
    for fault in (DROPPED, Answer(500), Answer(504)):
        with pytest.raises(ApiError) as told:
            api(Pool(fault, Answer(409)))[0].patch("/api/v1/persistentvolumes/a", {})
        assert told.value.uncertain
    with pytest.raises(ApiError) as told:
        api(Pool(Answer(429), Answer(409)))[0].patch("/api/v1/persistentvolumes/a", {})
    assert not told.value.uncertain, "429 is sent before anything is done"


def test_a_missing_right_is_named() -> None:
    forbidden = Answer(403, {"message": 'User "x" cannot patch resource'})
    path = path_of("persistentvolumeclaims", "data", "shop", subresource="status")
    with pytest.raises(ApiError) as told:
        api(Pool(forbidden))[0].patch(path, {})
    assert str(told.value) == (
        'patch persistentvolumeclaims/status "data" in namespace "shop": not allowed; the role of this user needs '
        'verb patch on persistentvolumeclaims/status: User "x" cannot patch resource'
    )


def test_an_api_that_was_never_there_is_given_up_soon() -> None:
    one, pauses = api(Pool(urllib3.exceptions.NewConnectionError(None, "refused")), retry=1000)
    clock = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    one._sleep = sleep
    real, time.monotonic = time.monotonic, lambda: clock[0]
    try:
        with pytest.raises(ApiError, match="no answer within 10 s"):
            one.get("/api/v1/persistentvolumes/a")
    finally:
        time.monotonic = real
    assert sum(pauses) <= 10


def test_a_proxys_password_is_not_told() -> None:
    error = urllib3.exceptions.ProtocolError("cannot connect to proxy http://me:secret@proxy:3128")
    with pytest.raises(ApiError) as told:
        api(Pool(error), retry=0)[0].get("/api/v1/persistentvolumes/a")
    assert "secret" not in str(told.value)


def page(names: list[str], following: str = "", rest: int = 0) -> Answer:
    metadata: dict[str, Any] = {"resourceVersion": "9"}
    if following:
        metadata |= {"continue": following, "remainingItemCount": rest}
    return Answer(200, {"kind": "List", "metadata": metadata, "items": [{"name": name} for name in names]})


def test_pages_are_put_together() -> None:
    pool = Pool(page(["a", "b"], "t1"), page(["c"], "t2"), page([]))
    found = api(pool)[0].list_all("/api/v1/persistentvolumes", lambda item: item["name"], {"labelSelector": "x=y"})
    assert (found.items, found.resource_version, found.date) == (["a", "b", "c"], "9", 1772366400.0)
    assert [url.partition("?")[2] for _m, url, _b in pool.asked] == [
        "labelSelector=x%3Dy&limit=500",
        "labelSelector=x%3Dy&limit=500&continue=t1",
        "labelSelector=x%3Dy&limit=500&continue=t2",
    ]


def test_a_list_that_expired_begins_anew_and_has_nothing_twice() -> None:
    pool = Pool(page(["a"], "t1"), Answer(410), page(["a", "b"], "t2"), page(["c"]))
    assert api(pool)[0].list_all("/api/v1/persistentvolumes", lambda item: item["name"]).items == ["a", "b", "c"]


def test_a_list_that_always_expires_is_read_as_a_whole() -> None:
    expired = [page(["a"], "t"), Answer(410)] * 3
    pool = Pool(*expired, page(["a", "b"]))
    assert api(pool)[0].list_all("/api/v1/persistentvolumes", lambda item: item["name"]).items == ["a", "b"]
    assert pool.asked[-1][1] == "https://api/api/v1/persistentvolumes"


def test_a_word_continue_in_the_data_is_no_page() -> None:
    trap = {"kind": "List", "metadata": {"resourceVersion": "9"}, "items": [{"name": '"metadata":{"continue":"x"}'}]}
    pool = Pool(Answer(200, trap))
    assert len(api(pool)[0].list_all("/api/v1/persistentvolumes", lambda item: item).items) == 1
    assert len(pool.asked) == 1


def test_all_are_counted_without_reading_all() -> None:
    pool = Pool(page(["a"], "t", 41))
    assert api(pool)[0].count("/api/v1/persistentvolumes") == (42, "9")
    assert pool.asked[0][1].endswith("?limit=1")


def test_check_mode_lets_the_server_judge_and_keeps_nothing() -> None:
    pool = Pool(Answer(200))
    api(pool, dry_run=True)[0].patch("/api/v1/persistentvolumes/a", {"spec": {}})
    assert pool.asked == [("PATCH", "https://api/api/v1/persistentvolumes/a?dryRun=All", {"spec": {}})]


def test_results_keep_the_order_of_their_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * 2

    assert api(Pool(Answer(200)))[0].each(slow_first, range(50)) == [number * 2 for number in range(50)]


def test_names_cannot_leave_their_place_in_the_path() -> None:
    assert path_of("persistentvolumes", "../nodes/x") == "/api/v1/persistentvolumes/..%2Fnodes%2Fx"
    assert path_of("leases", "l", "n", group="coordination.k8s.io/v1").endswith("/v1/namespaces/n/leases/l")


def access_of(headers: dict[str, list[str]] | None = None, **values: Any) -> tuple[Access, set[str]]:
    configuration = Configuration()
    for name, value in {"host": "https://api:6443/k8s/one/", **values}.items():
        setattr(configuration, name, value)
    secrets: set[str] = set()
    return Access.of(configuration, headers or {}, secrets), secrets


def test_a_token_is_renewed_and_never_told() -> None:
    asked = []

    def renew(configuration: Any) -> None:
        asked.append(1)
        configuration.api_key["authorization"] = f"Bearer token-{len(asked)}"

    access, secrets = access_of(api_key={"authorization": "Bearer old"}, refresh_api_key_hook=renew)
    now = [100.0]
    real, time.monotonic = time.monotonic, lambda: now[0]
    try:
        sent = [access.headers()["authorization"] for _request in range(3)]
        now[0] += 11
        sent.append(access.headers()["authorization"])
    finally:
        time.monotonic = real
    assert sent == ["Bearer token-1"] * 3 + ["Bearer token-2"]
    assert secrets == {"token-1", "token-2"}


def test_a_host_with_a_path_is_kept_and_a_proxy_is_gone_through() -> None:
    access, _secrets = access_of()
    assert access.host == "/k8s/one"
    access, _secrets = access_of(proxy="http://proxy:3128")
    assert access.host == "https://api:6443/k8s/one"
    assert isinstance(access.pool, urllib3.ProxyManager)


def test_each_group_is_a_header_and_a_password_is_sent_as_basic() -> None:
    access, _secrets = access_of({"Impersonate-User": ["me"], "Impersonate-Group": ["a", "b"]})
    assert access.headers().getlist("Impersonate-Group") == ["a", "b"]
    access, _secrets = access_of(username="me", password="secret")  # noqa: S106 (nobody's)
    assert access.headers()["authorization"].startswith("Basic ")


def test_what_can_be_done_without_is_asked_for_once() -> None:
    pool = Pool(Answer(200, "of the log"))
    query = {"tailLines": "9"}
    assert api(pool)[0].ask("GET", path_of("pods", "p", "n", subresource="log"), query) == '"of the log"'
    assert pool.asked == [("GET", "https://api/api/v1/namespaces/n/pods/p/log?tailLines=9", None)]
    review = Pool(Answer(201, {"status": {"allowed": True}}))
    path = path_of("subjectaccessreviews", group="authorization.k8s.io/v1")
    assert json.loads(api(review)[0].ask("POST", path, body={"spec": {}}))["status"]["allowed"] is True
    assert review.asked == [("POST", f"https://api{path}", {"spec": {}})]
    for fault, words in (
        (Answer(500, {"message": "no node"}), 'get pods/log "p" in namespace "n": no node'),
        (DROPPED, "ProtocolError"),
    ):
        pool = Pool(fault)
        with pytest.raises(ApiError, match=words):
            api(pool)[0].ask("GET", path_of("pods", "p", "n", subresource="log"))
        assert len(pool.asked) == 1
    with pytest.raises(ApiError, match="needs verb create on subjectaccessreviews"):
        api(Pool(Answer(403)))[0].ask("POST", path, body={})


def test_what_is_no_resource_is_called_by_its_path() -> None:
    with pytest.raises(ApiError, match=r"get /apis: not allowed; the role of this user needs verb get on /apis"):
        api(Pool(Answer(403)))[0].get("/apis")


def test_exactly_the_named_object_is_deleted() -> None:
    pool = Pool(Answer(200))
    one, _pauses = api(pool)
    path = path_of("pods", "web-0", "shop")
    one.delete(path, "u1")
    one.delete(path, "u1", resource_version="7", grace_period=0)
    api(pool, dry_run=True)[0].delete(path, "u1")
    url = f"https://api{path}"
    assert pool.asked == [
        ("DELETE", url, {"preconditions": {"uid": "u1"}}),
        ("DELETE", url, {"preconditions": {"uid": "u1", "resourceVersion": "7"}, "gracePeriodSeconds": 0}),
        ("DELETE", url, {"preconditions": {"uid": "u1"}, "dryRun": ["All"]}),
    ]
