"""Blobs that cannot be ingested: what is reported, to whom, and that the others go on."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.kusto.ingest import ReportLevel
from hypothesis import given, settings
from hypothesis import strategies as st

from localrunner.adx.errors import INGESTION_CODES, IngestionError
from localrunner.adx.messages import decode
from tests.adx.support import Double, wait_for
from tests.support.proxy import Fault, blob_error, proxy_to

MALFORMED = "BadRequest_MalformedIngestionProperty"


def a_message(double: Double, table: str, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Id": str(uuid.uuid4()),
        "BlobPath": double.upload(b'{"n": 1}'),
        "RawDataSize": 8,
        "DatabaseName": "db",
        "TableName": table,
        "FlushImmediately": True,
        "ReportLevel": 2,
        "ReportMethod": 0,
        "AdditionalProperties": {"format": "json"},
    }
    return {**body, **changes}


def test_a_failure_message_says_what_a_client_needs(double: Double) -> None:
    """All fields that azure-kusto-ingest knows; no SAS in the path."""
    source_id = double.queue_blob(
        double.upload(b'{"n": 1}', name="missing.json"), double.properties("NoSuchTable")
    )

    assert double.outcome(source_id) == "BadRequest_TableNotExist"

    message = next(m for m in double.reported if m.IngestionSourceId == str(source_id))
    assert (message.Database, message.Table) == ("db", "NoSuchTable")
    assert (message.FailureStatus, message.ShouldRetry, message.OriginatesFromUpdatePolicy) == (
        "Permanent",
        False,
        False,
    )
    assert message.IngestionSourcePath.endswith("/missing.json")
    assert "NoSuchTable" in message.Details
    assert message.OperationId
    assert message.RootActivityId
    assert message.FailedOn.endswith("Z")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"DatabaseName": "nowhere"}, "BadRequest_DatabaseNotExist"),
        ({"DatabaseName": ""}, "BadRequest_EmptyDatabaseName"),
        ({"TableName": ""}, "BadRequest_InvalidOrEmptyTableName"),
        ({"BlobPath": ""}, "BadRequest_EmptyBlobUri"),
        ({"BlobPath": "ftp://x/y"}, "BadRequest_InvalidBlobUri"),
        ({"RawDataSize": -1}, "BadRequest_MalformedIngestionProperty"),
        ({"ReportMethod": 7}, "BadRequest_MalformedIngestionProperty"),
        ({"ReportMethod": 2}, "BadRequest_MalformedIngestionProperty"),
        ({"ReportMethod": 2, "IngestionStatusInTable": {"PartitionKey": "x"}}, MALFORMED),
        ({"AdditionalProperties": {}}, "BadRequest_FormatNotSupported"),
        ({"AdditionalProperties": {"format": "json", "tags": "x"}}, "BadRequest_MalformedIngestionProperty"),
        (
            {"AdditionalProperties": {"format": "json", "zipPattern": "*"}},
            "BadRequest_IngestionPropertyNotSupportedInThisContext",
        ),
        *(
            ({"AdditionalProperties": {"format": "json", "ValidationPolicy": policy}}, MALFORMED)
            for policy in (
                "{",
                "[]",
                7,
                '{"ValidationOptions": 3}',
                '{"Surprise": 1}',
                {"validationOptions": True},
                {"validationOptions": "Whatever"},
                {"validationPolicyType": 2},
                {"validationOptions": [1]},
            )
        ),
        (
            {"AdditionalProperties": {"format": "json", "ignoreFirstRecord": True}},
            "BadRequest_IngestionPropertyNotSupportedInThisContext",
        ),
        (
            {"AdditionalProperties": {"format": "json", "ingestionMapping": "[]"}},
            "BadRequest_InvalidMapping",
        ),
        (
            {
                "AdditionalProperties": {
                    "format": "json",
                    "ingestionMappingReference": "M",
                    "ingestionMapping": "[]",
                }
            },
            "BadRequest_DuplicateMapping",
        ),
        (
            {
                "AdditionalProperties": {
                    "format": "json",
                    "ingestionMappingReference": "M",
                    "ingestionMappingType": "Csv",
                }
            },
            "BadRequest_InvalidMappingReference",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_each_fault_of_a_message_has_its_own_code(double: Double, changes: dict[str, Any], code: str) -> None:
    """Codes of Microsoft's page only."""
    body = a_message(double, double.table("n: long"), **changes)
    double.queue_raw(body)

    assert double.outcome(uuid.UUID(body["Id"])) == code
    assert code in INGESTION_CODES


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"format": "json", "zipPattern": "*"}, "'zipPattern'"),
        ({"format": "sstream"}, "'sstream'"),
        ({"format": "json", "creationTime": "yesterday"}, "'creationtime'"),
        ({"format": "json", "ingestionMapping": '[{"Column": "n", "Surprise": 1}]'}, "'surprise' of column 'n'"),
        ({"format": "json", "ingestionMappingReference": "Nowhere"}, "'Nowhere'"),
    ],
)
def test_what_a_message_asks_for_in_vain_is_named(double: Double, properties: dict[str, Any], named: str) -> None:
    """An ignored property would ingest something else than what was asked for."""
    body = a_message(double, double.table("n: long"), AdditionalProperties=properties)
    double.queue_raw(body)

    double.outcome(uuid.UUID(body["Id"]))
    message = next(message for message in double.reported if message.IngestionSourceId == body["Id"])
    assert named in message.Details


def test_a_field_of_a_message_that_is_not_known_is_named_too(double: Double) -> None:
    """Beside AdditionalProperties, where one that is ignored would be ignored for good."""
    body = a_message(double, double.table("n: long"), Surprise=1)
    double.queue_raw(body)

    assert double.outcome(uuid.UUID(body["Id"])) == "BadRequest_IngestionPropertyNotSupportedInThisContext"
    message = next(message for message in double.reported if message.IngestionSourceId == body["Id"])
    assert "'Surprise'" in message.Details


def test_a_message_as_the_page_about_rest_writes_it_is_understood(double: Double) -> None:
    """kusto-ingest-client-rest.md: `mappingReference`, and a blob that nobody asked to keep is deleted."""
    table = double.table("n: long")
    double.command(f'.create table {table} ingestion json mapping \'M\' \'[{{"column": "n", "path": "$.x"}}]\'')
    url = double.upload(b'{"x": 3}', name=f"{table}.json")
    properties = {"authorizationContext": "token", "mappingReference": "M", "format": "multijson"}
    double.queue_raw(
        {
            "Id": str(uuid.uuid4()),
            "BlobPath": url,
            "RawDataSize": 8,
            "DatabaseName": "db",
            "TableName": table,
            "FlushImmediately": True,
            "AdditionalProperties": properties,
        }
    )

    wait_for("the row is there", lambda: double.query(table) == [[3]])
    blob = double.blobs.get_blob_client("adx-double-tests", f"{table}.json")
    wait_for("the blob is deleted", lambda: not blob.exists())


def test_a_validation_policy_is_understood_where_java_s_client_writes_it(double: Double) -> None:
    """Beside AdditionalProperties, in words (azure-kusto-java, IngestionBlobInfo.java, ValidationPolicy.java)."""
    table = double.table("n: long, s: string")
    lines = double.upload(b"1,x\n2\n", ".csv")
    policy = {"validationOptions": "DoNotValidate", "validationPolicyType": "BestEffort"}
    body = a_message(
        double, table, BlobPath=lines, validationPolicy=policy, AdditionalProperties={"format": "csv"}
    )
    double.queue_raw(body)

    assert double.outcome(uuid.UUID(body["Id"])) == "Succeeded"
    assert sorted(double.query(table)) == [[1, "x"], [2, ""]]


@pytest.mark.parametrize(
    ("status", "code", "reported"),
    [
        (301, "Download_NotTransient", ("Permanent", False)),
        (409, "Download_NotTransient", ("Permanent", False)),
        (503, "General_RetryAttemptsExceeded", ("Exhausted", False)),
    ],
)
def test_what_storage_answers_decides_the_code_of_the_blob(
    double: Double, status: int, code: str, reported: tuple[str, bool]
) -> None:
    """Storage behind a proxy that fails. What passes by itself is tried again, and then it is no failure."""
    table = double.table("n: long")
    address = urlsplit(double.upload(b'{"n": 1}', name=f"{table}.json"))
    with proxy_to(f"{address.scheme}://{address.netloc}") as proxy:
        url = address._replace(netloc=urlsplit(proxy.url).netloc).geturl()
        proxy.faults.append(blob_error(status, "Anything"))
        source = double.queue_blob(url, double.properties(table), 8)
        assert double.outcome(source) == code
        message = next(m for m in double.reported if m.IngestionSourceId == str(source))
        assert (message.FailureStatus, message.ShouldRetry) == reported

        proxy.faults[:] = [blob_error(503, "ServerBusy", times=2)]
        assert double.outcome(double.queue_blob(url, double.properties(table), 8)) == "Succeeded"
    assert double.query(table) == [[1]]


def test_a_double_that_fails_by_itself_says_so_as_a_transient_failure_and_goes_on(
    azurite: str, tmp_path: Path
) -> None:
    """General_InternalServerError, and a log that names the kind of error. Here its disk has gone away."""
    own = Double(tmp_path, azurite, time_scale=0.001)
    own.start()
    try:
        table = own.table("n: long")
        spool = own.directory / "data" / "spool"
        spool.rename(spool.with_name("away"))
        source = own.queue_blob(own.upload(b'{"n": 1}'), own.properties(table), 8)
        assert own.outcome(source) == "General_InternalServerError"
        message = next(m for m in own.reported if m.IngestionSourceId == str(source))
        assert (message.FailureStatus, message.ShouldRetry) == ("Transient", True)
        assert "batch_failed attempt=3 error=FileNotFoundError" in own.log

        spool.with_name("away").rename(spool)
        assert own.ingest(table, b'{"n": 2}') == "Succeeded"
        assert own.query(table) == [[2]]
    finally:
        own.stop()


def test_an_account_that_fails_under_its_own_key_is_an_unknown_error(azurite: str, tmp_path: Path) -> None:
    """Download_UnknownError, which is transient: for a blob by managed identity the double reads by itself."""
    parts = dict(part.split("=", 1) for part in azurite.split(";") if "=" in part)
    endpoint = urlsplit(parts["BlobEndpoint"])
    with proxy_to(f"{endpoint.scheme}://{endpoint.netloc}") as proxy:
        through = endpoint._replace(netloc=urlsplit(proxy.url).netloc).geturl()
        own = Double(tmp_path, azurite.replace(parts["BlobEndpoint"], through), time_scale=0.001)
        own.start()
        try:
            table = own.table("n: long")
            url = own.upload(b'{"n": 1}', name=f"{table}.json").partition("?")[0] + ";managed_identity=system"
            proxy.faults.append(Fault(request=f"GET .*{table}"))
            source = own.queue_blob(url, own.properties(table), 8)
            assert own.outcome(source) == "Download_UnknownError"
            message = next(m for m in own.reported if m.IngestionSourceId == str(source))
            assert (message.FailureStatus, message.ShouldRetry) == ("Transient", True)
        finally:
            own.stop()


@pytest.mark.parametrize(
    ("permission", "life", "code"),
    [
        ("w", timedelta(hours=1), "Download_Forbidden"),
        ("r", timedelta(hours=-1), "Download_Forbidden"),
    ],
    ids=["may not read", "expired"],
)
def test_a_sas_that_does_not_let_adx_read_fails_the_blob(
    double: Double, permission: str, life: timedelta, code: str
) -> None:
    """The most common fault of a deployment."""
    table = double.table("n: long")
    url = double.upload(b'{"n": 1}', permission=permission, life=life)

    assert double.outcome(double.queue_blob(url, double.properties(table))) == code


def test_a_blob_that_is_not_there_fails_and_the_others_of_its_batch_do_not(double: Double) -> None:
    """One batch of three; two rows arrive."""
    table = double.table("n: long")
    double.command(f".alter table {table} policy ingestionbatching '{{\"MaximumNumberOfItems\": 3}}'")
    properties = double.properties(table, flush_immediately=False)
    good = double.upload(b'{"n": 1}')
    # A SAS for the whole name, of a blob that was never there.
    gone = double.upload(b"x", name=f"{table}.json")
    double.blobs.get_blob_client("adx-double-tests", f"{table}.json").delete_blob()

    sources = [double.queue_blob(url, properties) for url in (good, gone, double.upload(b'{"n": 2}'))]

    assert [double.outcome(source) for source in sources] == ["Succeeded", "Download_SourceNotFound", "Succeeded"]
    assert sorted(double.query(table)) == [[1], [2]]
    (batch,) = double.batches(table)
    assert (batch["blobs"], batch["failed_blobs"], batch["outcome"]) == (3, 1, "partly_failed")


def test_a_client_hears_only_what_it_asked_for(double: Double) -> None:
    """Level 1 (the SDK's default) reports nothing, level 0 failures only."""
    table = double.table("n: long")
    silent = double.queue_blob(
        double.upload(b"x"), double.properties("Nowhere", report_level=ReportLevel.DoNotReport)
    )
    quiet = double.queue_blob(
        double.upload(b'{"n": 1}'), double.properties(table, report_level=ReportLevel.FailuresOnly)
    )
    last = double.queue_blob(double.upload(b'{"n": 2}'), double.properties(table))

    assert double.outcome(last) == "Succeeded"

    wait_for("all three were ingested or refused", lambda: double.count(table) == 2)
    wait_for(
        "the first is on record",
        lambda: bool(double.command(".show ingestion failures | where Table == 'Nowhere'")),
    )
    heard = {message.IngestionSourceId for message in double.reported}
    assert str(last) in heard
    assert not {str(silent), str(quiet)} & heard


def test_a_blob_by_managed_identity_is_read_if_its_size_is_given(double: Double) -> None:
    """There is no identity here, so the account's own key stands for it; without a size ADX cannot go on."""
    table = double.table("n: long")
    address = double.upload(b'{"n": 1}').partition("?")[0] + ";managed_identity=system"
    body = a_message(double, table, BlobPath=address)
    without = a_message(double, table, BlobPath=address, RawDataSize=None)
    elsewhere = a_message(double, table, BlobPath="http://127.0.0.1:1/other/c/b;managed_identity=system")
    for message in (body, without, elsewhere):
        double.queue_raw(message)

    assert double.outcome(uuid.UUID(body["Id"])) == "Succeeded"
    assert double.outcome(uuid.UUID(without["Id"])) == "BadRequest_InvalidManagedIdentity"
    assert double.outcome(uuid.UUID(elsewhere["Id"])) == "BadRequest_InvalidManagedIdentity"


@pytest.mark.parametrize("poison", [b"not base64!", base64.b64encode(b"not json"), base64.b64encode(b"[1]")])
def test_a_poison_message_does_not_stop_the_worker(double: Double, poison: bytes) -> None:
    """It is deleted, and what comes after it is ingested."""
    table = double.table("n: long")
    double.queue_raw(poison)

    assert double.ingest(table, b'{"n": 1}') == "Succeeded"


def test_storage_that_cannot_be_reached_is_reported_as_exhausted(double: Double) -> None:
    """Several attempts, then General_RetryAttemptsExceeded."""
    body = a_message(double, double.table("n: long"), BlobPath="http://127.0.0.1:9/account/c/b?sig=SECRET")
    double.queue_raw(body)

    assert double.outcome(uuid.UUID(body["Id"])) == "General_RetryAttemptsExceeded"
    message = next(m for m in double.reported if m.IngestionSourceId == body["Id"])
    assert message.FailureStatus == "Exhausted"


def test_neither_signatures_nor_tokens_nor_records_reach_the_log(double: Double) -> None:
    """Everything that the other tests of this file did is in it."""
    double.ingest(double.table("n: long"), b'{"n": "VERY-PRIVATE"}')

    assert "sig=" not in double.log
    assert "SECRET" not in double.log
    assert "VERY-PRIVATE" not in double.log
    manager: Any = double.ingestion._resource_manager
    assert manager.get_authorization_context() not in double.log


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
_NAMES = st.sampled_from(
    ["BlobPath", "blobPath", "RawDataSize", "DatabaseName", "TableName", "FlushImmediately", "ReportLevel", "Id"]
)
_PROPERTIES = st.sampled_from(["format", "tags", "ingestIfNotExists", "creationTime", "ingestionMapping", "x"])


@given(
    st.dictionaries(_NAMES, _VALUES),
    st.dictionaries(_PROPERTIES, _VALUES) | _VALUES,
)
@settings(max_examples=150, deadline=None)
def test_any_message_is_a_request_or_a_documented_code(body: dict[str, Any], extra: Any) -> None:
    """Whatever a client writes, the worker's thread meets no other exception."""
    text = base64.b64encode(json.dumps({**body, "AdditionalProperties": extra}).encode()).decode()
    try:
        request = decode(text, "1")
    except IngestionError as error:
        assert error.code == "BadRequest_CorruptedMessage"  # noqa: PT017 - either outcome is right
    else:
        assert request.fault is None or request.fault.code in INGESTION_CODES
        assert isinstance(hash(request.batch_key), int)
