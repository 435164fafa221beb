"""Faults on demand, the log of requests and the counters."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from azure.kusto.data.exceptions import KustoApiError, KustoNetworkError, KustoThrottlingError

from localrunner.adx.errors import KustoError
from localrunner.adx.faults import FAULTS_MAX, Faults
from tests.adx.support import Double, wait_for


@pytest.fixture
def faulty(double: Double) -> Iterator[Double]:
    """The shared double, without a fault before and after."""
    yield double
    requests.delete(f"{double.dm}/local/faults", timeout=10)


def ask(double: Double, *faults: dict[str, Any]) -> list[dict[str, Any]]:
    """The faults are in force."""
    reply = requests.post(f"{double.dm}/local/faults", json=list(faults), timeout=10)
    assert reply.status_code == 200, reply.text
    listed: list[dict[str, Any]] = reply.json()["faults"]
    return listed


def counters(double: Double) -> dict[str, int]:
    values: dict[str, int] = requests.get(f"{double.dm}/local/counters", timeout=10).json()["counters"]
    return values


def log(double: Double) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = requests.get(f"{double.dm}/local/requests", timeout=10).json()["requests"]
    return entries


def test_a_status_is_answered_as_often_as_asked_and_to_what_matches_alone(faulty: Double) -> None:
    """By endpoint, by kind, by text, after so many that pass."""
    ask(
        faulty,
        {
            "do": "status",
            "status": 503,
            "role": "engine",
            "on": "query",
            "contains": "print 7",
            "skip": 1,
            "count": 2,
        },
    )

    def status(text: str) -> int:
        reply = requests.post(f"{faulty.engine}/v2/rest/query", json={"db": "db", "csl": text}, timeout=10)
        return reply.status_code

    assert [status("print 8"), *(status("print 7") for _ in range(4))] == [200, 200, 503, 503, 200]
    assert faulty.command(".show version | project ServiceType") == [{"ServiceType": "Engine"}]


def test_a_fault_of_one_endpoint_does_not_strike_at_the_other(faulty: Double) -> None:
    """The same command to both, and as often as asked."""
    ask(faulty, {"do": "status", "status": 503, "role": "dm", "on": "mgmt", "count": 2})

    def status(base: str) -> int:
        body = {"db": "db", "csl": ".show version"}
        return requests.post(f"{base}/v1/rest/mgmt", json=body, timeout=10).status_code

    engine, dm = faulty.engine, faulty.dm
    assert [status(base) for base in (engine, dm, engine, dm, engine, dm)] == [200, 503, 200, 503, 200, 200]


def test_an_error_on_demand_has_the_code_and_permanence_that_clients_go_by(faulty: Double) -> None:
    """Those of Microsoft's pages where nothing else is asked for."""
    ask(
        faulty,
        {"do": "status", "status": 403, "on": "query"},
        {"do": "status", "status": 520, "on": "query"},
        {"do": "status", "status": 400, "on": "query", "code": "Made_Up", "permanent": False},
    )

    errors = []
    for _ in range(3):
        with pytest.raises(KustoApiError) as caught:
            faulty.query("print 1")
        errors.append((caught.value.error.code, caught.value.error.permanent))

    assert errors == [("Forbidden", True), ("ServiceError", False), ("Made_Up", False)]


def test_throttling_is_429(faulty: Double) -> None:
    """The one status that Microsoft's clients know by a class of its own."""
    ask(faulty, {"do": "throttle", "on": "query"})

    with pytest.raises(KustoThrottlingError):
        faulty.query("print 1")
    assert faulty.query("print 1") == [[1]]


def test_a_request_is_held_up_for_its_delay_or_until_the_fault_is_taken_back(faulty: Double) -> None:
    """What came after it is answered before it; a short delay ends by itself."""
    ask(faulty, {"do": "delay", "delay_s": 0.2, "contains": "print 1"})
    assert faulty.query("print 1") == [[1]]
    name = f"Late_{uuid.uuid4().hex[:6]}"
    (fault,) = ask(faulty, {"do": "delay", "delay_s": 600, "contains": f".create table {name}"})
    waiting = threading.Thread(target=faulty.command, args=(f".create table {name} (n: long)",))
    waiting.start()
    wait_for("it is held up", lambda: _met(faulty, fault["number"]) == 1)

    assert faulty.command(f".show tables | where TableName == '{name}'") == []
    requests.delete(f"{faulty.dm}/local/faults/{fault['number']}", timeout=10)
    waiting.join(20)
    assert faulty.count(name) == 0


def test_a_dropped_connection_is_a_request_that_was_not_carried_out(faulty: Double) -> None:
    """The client cannot tell it from a lost reply."""
    table = faulty.table("n: long")
    ask(faulty, {"do": "drop", "on": "mgmt", "contains": ".drop table"})

    with pytest.raises(KustoNetworkError):
        faulty.command(f".drop table {table}")
    assert faulty.count(table) == 0


def test_a_lost_reply_is_a_request_that_was_carried_out(faulty: Double) -> None:
    """The table is there, and the client does not know."""
    name = f"Lost_{uuid.uuid4().hex[:6]}"
    ask(faulty, {"do": "lose_reply", "on": "mgmt"})

    with pytest.raises(KustoNetworkError):
        faulty.command(f".create table {name} (n: long)")

    assert faulty.count(name) == 0


def test_what_hangs_is_let_go_when_the_fault_is_taken_back(faulty: Double) -> None:
    """The client waits for as long as it likes; then its connection is cut."""
    (fault,) = ask(faulty, {"do": "hang", "on": "query", "count": None})
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{faulty.engine}/v2/rest/query", json={"db": "db", "csl": "print 1"}, timeout=0.3)
    cut: list[bool] = []

    def wait() -> None:
        with pytest.raises(requests.ConnectionError):
            requests.post(f"{faulty.engine}/v2/rest/query", json={"db": "db", "csl": "print 1"}, timeout=30)
        cut.append(True)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_for("the second hangs", lambda: _met(faulty, fault["number"]) == 2)
    removed = requests.delete(f"{faulty.dm}/local/faults/{fault['number']}", timeout=10)
    waiting.join(10)

    assert removed.json() == {"removed": 1}
    assert cut == [True]
    assert faulty.query("print 1") == [[1]]


def _met(double: Double, number: int) -> int:
    listed = requests.get(f"{double.dm}/local/faults", timeout=10).json()["faults"]
    return next(int(fault["met"]) for fault in listed if fault["number"] == number)


def test_a_blob_fails_by_its_name_with_the_code_asked_for(faulty: Double) -> None:
    """The others of its batch are ingested; the same blob again is, too, once the fault is used up."""
    table = faulty.table("n: long")
    faulty.command(f".alter table {table} policy ingestionbatching '{{\"MaximumNumberOfItems\": 2}}'")
    properties = faulty.properties(table, flush_immediately=False)
    bad, good = faulty.upload(b'{"n": 1}', "-bad.json"), faulty.upload(b'{"n": 2}')
    ask(faulty, {"do": "fail_blob", "blob": "*-bad.json", "table": table, "code": "General_ThrottledIngestion"})

    sources = [faulty.queue_blob(url, properties, 8) for url in (bad, good)]

    assert [faulty.outcome(source) for source in sources] == ["General_ThrottledIngestion", "Succeeded"]
    message = next(m for m in faulty.reported if m.IngestionSourceId == str(sources[0]))
    assert (message.FailureStatus, message.ShouldRetry) == ("Transient", True)
    assert faulty.outcome(faulty.queue_blob(bad, faulty.properties(table), 8)) == "Succeeded"
    assert sorted(faulty.query(table)) == [[1], [2]]


def test_a_message_that_is_delivered_again_repeats_its_rows(faulty: Double) -> None:
    """As ADX may at any time; with an ingest-by tag it does not."""
    plain, tagged = faulty.table("n: long"), faulty.table("n: long")
    ask(faulty, {"do": "redeliver", "table": plain}, {"do": "redeliver", "table": tagged})

    assert faulty.ingest(plain, b'{"n": 1}') == "Succeeded"
    assert faulty.ingest(tagged, b'{"n": 1}', ingest_by_tags=["a"], ingest_if_not_exists=["a"]) == "Succeeded"

    wait_for("the row is there twice", lambda: faulty.count(plain) == 2)
    wait_for("both came again", lambda: len(faulty.batches(tagged)) == 2)
    assert faulty.count(tagged) == 1


def test_a_blob_is_held_up_for_its_delay_or_until_the_fault_is_taken_back(faulty: Double) -> None:
    """ADX that takes its time: the batch is sealed, and not ingested."""
    table = faulty.table("n: long")
    ask(faulty, {"do": "delay_blob", "table": table, "delay_s": 0.2})
    assert faulty.ingest(table, b'{"n": 1}') == "Succeeded"
    (fault,) = ask(faulty, {"do": "delay_blob", "table": table, "delay_s": 600})
    source = faulty.queue_blob(faulty.upload(b'{"n": 2}'), faulty.properties(table), 8)
    wait_for("it is held up", lambda: _met(faulty, fault["number"]) == 1)

    assert faulty.query(table) == [[1]]
    requests.delete(f"{faulty.dm}/local/faults/{fault['number']}", timeout=10)
    assert faulty.outcome(source) == "Succeeded"
    assert sorted(faulty.query(table)) == [[1], [2]]


@pytest.mark.parametrize(
    "fault",
    [
        [],
        7,
        {},
        {"do": "explode"},
        {"do": "status", "status": 200},
        {"do": "status", "status": "503"},
        {"do": "status", "surprise": 1},
        {"do": "status", "on": "everything"},
        {"do": "status", "role": 5},
        {"do": "status", "count": 0},
        {"do": "status", "count": True},
        {"do": "status", "skip": -1},
        {"do": "status", "permanent": "no"},
        {"do": "delay", "delay_s": 1e9},
        {"do": "delay", "delay_s": "long"},
        {"do": "fail_blob"},
        {"do": "fail_blob", "code": "Made_Up"},
        {"do": "kill", "at": "midnight"},
        {"do": "hang", "blob": "*"},
    ],
    ids=str,
)
def test_a_fault_that_cannot_be_used_is_refused(fault: Any) -> None:
    """A fault that never strikes would make a test pass for nothing; a list is taken whole or not at all."""
    faults = Faults()
    if fault == []:
        assert faults.add(fault) == []
        return

    with pytest.raises(KustoError):
        faults.add([{"do": "hang"}, fault])
    assert faults.listed() == []


def test_faults_have_a_limit() -> None:
    """A loop in a test cannot fill the memory."""
    faults = Faults()
    faults.add([{"do": "hang"}] * FAULTS_MAX)

    with pytest.raises(KustoError, match=str(FAULTS_MAX)):
        faults.add({"do": "hang"})
    assert faults.clear() == FAULTS_MAX


def test_the_control_pages_refuse_what_they_do_not_know(faulty: Double) -> None:
    """In Kusto's form, as everything else."""
    for method, path, body, status in (
        ("POST", "/local/faults", b"not json", 400),
        ("POST", "/local/faults", b'{"do": "explode"}', 400),
        ("DELETE", "/local/faults/999999", b"", 404),
        ("GET", "/local/requests?after=-1", b"", 400),
        ("PUT", "/local/counters", b"", 405),
    ):
        reply = requests.request(method, faulty.dm + path, data=body, timeout=10)
        assert reply.status_code == status
        assert reply.json()["error"]["@permanent"] is True
    assert requests.get(faulty.engine + "/local/faults", timeout=10).status_code == 404


def test_the_log_shows_requests_without_secrets_and_literals(faulty: Double) -> None:
    """What was asked and answered; no token, no signature, no text that may be somebody's data."""
    (fault,) = ask(faulty, {"do": "throttle", "contains": "hidden"})
    before = log(faulty)[-1]["number"] if log(faulty) else 0
    headers = {"Authorization": "Bearer TOPSECRET", "x-ms-client-request-id": "mine;9", "x-ms-app": "tests"}
    text = "print a = 'PRIVATE-1', b = @\"PRIVATE-2\", c = ```PRIVATE-3``` | where b has 'hidden"
    requests.post(f"{faulty.engine}/v2/rest/query?sig=TOPSECRET", json={"csl": text}, headers=headers, timeout=10)
    faulty.table("n: long")
    requests.post(f"{faulty.engine}/v1/rest/mgmt", data=b"TOPSECRET", timeout=10)

    entries = [entry for entry in log(faulty) if entry["number"] > before]

    assert "TOPSECRET" not in str(entries)
    assert "PRIVATE" not in str(entries)
    first = next(entry for entry in entries if entry["client_request_id"] == "mine;9")
    assert (first["role"], first["kind"], first["status"], first["fault"]) == (
        "engine",
        "query",
        429,
        fault["number"],
    )
    assert (first["error"], first["application"]) == ("TooManyRequests", "tests")
    assert first["text"].startswith("print a = '...', b = '...', c = '...' | where b has '...'")
    assert any(entry["text"].startswith(".create table T") and entry["status"] == 200 for entry in entries)
    assert any(entry["kind"] == "mgmt" and entry["status"] == 400 for entry in entries)
    assert requests.get(f"{faulty.dm}/local/requests?after={entries[-1]['number']}", timeout=10).json() == {
        "requests": []
    }


def test_counters_count_requests_messages_blobs_and_rows(faulty: Double) -> None:
    """Differences, since the double is shared; they only grow."""
    table = faulty.table("n: long")
    before = counters(faulty)

    assert faulty.ingest(table, [b'{"n": 1}', b'{"n": 2}']) == "Succeeded"
    assert faulty.ingest("NoSuch", b'{"n": 1}') == "BadRequest_TableNotExist"
    faulty.query("print 1")

    expected = {
        "rows.queued": 2,
        "blobs.good": 1,
        "blobs.refused.BadRequest_TableNotExist": 1,
        "batches.sealed.FlushImmediately": 2,
        "messages.taken": 2,
        "requests.engine.query.200": 1,
        "reports.failed_queue": 1,
        "reports.succeeded_queue": 1,
    }

    def grown() -> dict[str, int]:
        after = counters(faulty)
        return {name: after.get(name, 0) - before.get(name, 0) for name in expected}

    # A client sees a report before the double has counted it.
    wait_for("all of it is counted", lambda: sum(grown().values()) >= sum(expected.values()))
    assert grown() == expected
