"""A transaction's bytes are those that Azure's SDK would send, and a reply says what the SDK reads in it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.pipeline.transport import HttpTransport
from azure.data.tables import EntityProperty, TableClient, UpdateMode

from sinkcore.transaction import (
    CONTENT_TYPE,
    OPERATIONS_MAX,
    Operation,
    Reply,
    content_of,
    create,
    delete,
    merge,
    read_reply,
    replace,
)

URL = "https://account.table.core.windows.net"
GROUP = "adx-sink-it's 100% ü/\\"
ETAG = "W/\"datetime'2026-11-30T09%3A34%3A38.0535938Z'\""
OPERATIONS = [
    create("s-'1'", {"state": 'staged ü\u2028\n"', "records": 2**40, "is_replay": False, "next_offset": -1}),
    replace("p-0000000001", {"next_offset": 2**53 + 1}, ETAG),
    merge("o-1 %27", {"state": "queued", "probes": 0}, ETAG),
    delete("o-2", ETAG),
]


class _Sent(Exception):  # noqa: N818 - it ends the SDK's call, and nothing is wrong
    def __init__(self, request: Any) -> None:
        self.content_type: str = request.headers["Content-Type"]
        self.url: str = request.url
        self.content: bytes = request.content if isinstance(request.content, bytes) else request._data


class _Catch(HttpTransport):  # type: ignore[type-arg]
    """A transport that takes the SDK's request and sends nothing."""

    def send(self, request: Any, **_: Any) -> Any:
        raise _Sent(request)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> _Catch:
        return self

    def __exit__(self, *_: object) -> None: ...


def by_the_sdk(operations: list[Operation]) -> _Sent:
    client = TableClient.from_connection_string(
        f"AccountName=account;AccountKey=a2V5;TableEndpoint={URL}", "ledger", transport=_Catch(), retry_total=0
    )
    asked: list[Any] = []
    for each in operations:
        entity: dict[str, Any] = {"PartitionKey": GROUP, "RowKey": each.key}
        for name, value in each.values.items():
            is_number = isinstance(value, int) and not isinstance(value, bool)
            entity[name] = EntityProperty(value, "Edm.Int64") if is_number else value
        condition = {"etag": each.etag, "match_condition": MatchConditions.IfNotModified}
        if each.kind == "create":
            asked.append(("create", entity))
        elif each.kind == "delete":
            asked.append(("delete", entity, condition))
        else:
            mode = UpdateMode.REPLACE if each.kind == "replace" else UpdateMode.MERGE
            asked.append(("update", entity, {"mode": mode, **condition}))
    with pytest.raises(_Sent) as sent:
        client.submit_transaction(asked)
    return sent.value


def parts_of(content: bytes) -> list[tuple[str, dict[str, str], object]]:
    """The requests inside a batch: first line, headers, entity."""
    text = content.decode()
    outer = re.match(r"--(batch_[0-9a-f-]+)\r\nContent-Type: multipart/mixed; boundary=(\S+)\r\n\r\n", text)
    assert outer is not None
    assert text.endswith(f"--{outer[2]}--\r\n\r\n--{outer[1]}--\r\n")
    found = []
    for part in text[outer.end() :].split(f"--{outer[2]}\r\n")[1:]:
        about, head, body = part.split("\r\n\r\n", 2)
        assert "Content-Transfer-Encoding: binary" in about
        line, *headers = head.split("\r\n")
        entity = body.split("\r\n--")[0].strip()
        found.append((line, dict(each.split(": ", 1) for each in headers), json.loads(entity) if entity else None))
    return found


def test_the_requests_are_those_that_the_sdk_makes() -> None:
    """Azure itself cannot be asked here; the SDK's own requests are known to work there."""
    sent = by_the_sdk(OPERATIONS)
    theirs, ours = parts_of(sent.content), parts_of(content_of(f"{URL}/ledger", GROUP, OPERATIONS))

    assert sent.url == f"{URL}/$batch"
    assert re.sub("_[0-9a-f-]+$", "_0", sent.content_type) == CONTENT_TYPE
    assert [line for line, _, _ in ours] == [line for line, _, _ in theirs]
    for (_, our_headers, our_entity), (_, their_headers, their_entity) in zip(ours, theirs, strict=True):
        for name in ("If-Match", "Content-Type", "DataServiceVersion"):
            assert our_headers.get(name) == their_headers.get(name), name
        # A string needs no type: it is what JSON's strings are.
        assert our_entity == _without_strings_types(their_entity)


def _without_strings_types(entity: Any) -> Any:
    return entity and {name: value for name, value in entity.items() if value != "Edm.String"}


def test_a_length_is_of_bytes() -> None:
    ((_, headers, _),) = parts_of(content_of(URL, GROUP, [create("s", {"a": "ü\u2028"})]))
    content = content_of(URL, GROUP, [create("s", {"a": "ü\u2028"})])

    entity = content.split(b"\r\n\r\n")[3].split(b"\r\n--")[0]
    assert int(headers["Content-Length"]) == len(entity)


def test_more_operations_than_the_service_takes_are_a_defect_of_ours() -> None:
    with pytest.raises(AssertionError):
        content_of(URL, GROUP, [delete("o", ETAG)] * (OPERATIONS_MAX + 1))


def part(status: str, *lines: str, body: str = "") -> str:
    head = "--changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    return head + "\r\n".join([f"HTTP/1.1 {status}", *lines, "", body, ""])


def reply_of(*parts: str) -> bytes:
    begin = "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n"
    return (begin + "".join(parts) + "--changesetresponse_1--\r\n--batchresponse_1--\r\n").encode()


NO_CONTENT = ("204 No Content", "X-Content-Type-Options: nosniff", "DataServiceVersion: 3.0;")


def test_each_operation_has_its_etag_and_a_delete_none() -> None:
    """The letters of a header's name are not ours to expect: Azure writes ETag, others Etag."""
    reply = reply_of(part(*NO_CONTENT, 'ETag: W/"1\'"'), part(*NO_CONTENT), part(*NO_CONTENT, 'etag: W/"3"'))

    assert read_reply(reply, 3) == Reply(202, ['W/"1\'"', "", 'W/"3"'])


def test_a_refusal_has_status_and_code_and_no_text() -> None:
    """The text may hold an entity's values."""
    body = (
        '{"odata.error":{"code":"UpdateConditionNotSatisfied","message":{"lang":"en-US","value":"1:The update '
        'condition was not satisfied.\\nRequestId:1\\nHTTP/1.1 204 No Content"}}}'
    )
    reply = reply_of(part("412 Precondition Failed", "Content-Type: application/json", body=body))

    assert read_reply(reply, 4) == Reply(412, [], "UpdateConditionNotSatisfied")


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_reply_with_an_answer_too_few_or_too_many_says_nothing(answers: int) -> None:
    assert read_reply(reply_of(*[part(*NO_CONTENT, "ETag: 1")] * answers), 2).etags == []


def test_a_reply_that_was_cut_anywhere_is_never_taken_for_a_success() -> None:
    whole = reply_of(part(*NO_CONTENT, "ETag: first"), part(*NO_CONTENT, "ETag: second"))
    end = whole.index(b"second") + len(b"second")

    assert [cut for cut in range(end + 1) if read_reply(whole[:cut], 2).etags] == []
    assert read_reply(whole, 2).etags == ["first", "second"]
