"""What Microsoft's clients are made to do, and what each of them answers.

An answer is what the client itself says or what can be seen afterwards; `-` is a client that has no such thing.
Where two differ, a program that uses one of them cannot be moved to the other without a thought.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """One behaviour, by the name of the function that tries it, and the answers expected."""

    name: str
    what: str
    python: str
    javascript: str
    java: str

    def expected(self, client: str) -> str:
        """The answer of one client, by the name of its language."""
        return {"Python": self.python, "JavaScript": self.javascript, "Java": self.java}[client]


CASES = (
    Case("query_types", "query: a value of each type", "as written", "long to 53 bits", "as written"),
    Case("query_parameters", "query with parameters", "a b 5", "a b 5", "a b 5"),
    Case("request_properties", "request id and application reach the service", "yes", "yes", "yes"),
    Case(
        "server_timeout",
        "query longer than its servertimeout",
        "KustoApiError, transient",
        "504, transient",
        "DataServiceException, transient",
    ),
    Case(
        "unknown_option",
        "a request option that is not known",
        "KustoApiError, permanent",
        "400, permanent",
        "DataServiceException, permanent",
    ),
    Case(
        "semantic_error",
        "query for a column that is not there",
        "KustoApiError, permanent",
        "400, permanent",
        "DataServiceException, permanent",
    ),
    Case(
        "management",
        "create, alter, show and drop a table",
        "n:long, s:string",
        "n:long, s:string",
        "n:long, s:string",
    ),
    Case(
        "throttled",
        "query throttled (429)",
        "KustoThrottlingError",
        "ThrottlingError",
        "ThrottleException, transient",
    ),
    Case(
        "unavailable",
        "query refused (503)",
        "KustoApiError, transient",
        "503, transient",
        "DataServiceException, transient",
    ),
    Case(
        "dropped",
        "connection cut before the query",
        "KustoNetworkError",
        "socket hang up",
        "IODataServiceException, permanent",
    ),
    Case("queued_blob", "queued from a blob", "2 rows", "2 rows", "2 rows"),
    Case("queued_file", "queued from a file, plain and compressed", "4 rows", "4 rows", "4 rows"),
    Case("queued_stream", "queued from a stream", "2 rows", "2 rows", "2 rows"),
    Case("queued_frame", "queued from a data frame", "2 rows", "-", "-"),
    Case("queued_tsv", "queued tsv from a file", "2 rows", "2 rows", "2 rows"),
    # JavaScript's client names these blobs .gz and does not compress them.
    Case("queued_avro", "queued Avro from a file", "2 rows", "BadRequest_InvalidBlob", "2 rows"),
    Case("queued_parquet", "queued Parquet from a file", "2 rows", "BadRequest_InvalidBlob", "2 rows"),
    Case("queued_mapping", "queued with a mapping by name, and inline", "2 rows", "2 rows", "2 rows"),
    Case("queued_once", "queued twice with ingest-by and ingestIfNotExists", "1 row", "1 row", "1 row"),
    Case("resources_throttled", "ingestion resources throttled twice", "2 rows", "2 rows", "2 rows"),
    Case("success_queue", "success reported by queue", "the source's id", "the source's id", "-"),
    Case(
        "failure_queue", "failure reported by queue", "BadRequest_TableNotExist", "BadRequest_TableNotExist", "-"
    ),
    Case("status_table", "outcome in the status table", "-", "Pending, then Succeeded", "Pending, then Succeeded"),
    Case("streaming_stream", "streamed from a stream", "2 rows at once", "2 rows at once", "2 rows at once"),
    Case("streaming_file", "streamed from a file", "2 rows at once", "2 rows at once", "2 rows at once"),
    Case("streaming_blob", "streamed from a blob", "2 rows at once", "2 rows at once", "2 rows at once"),
    Case("streaming_frame", "streamed from a data frame", "2 rows at once", "-", "-"),
    # Python's client says gzip in the header, and does not compress.
    Case(
        "streaming_avro",
        "streamed Avro",
        "KustoApiError, permanent",
        "2 rows at once",
        "DataServiceException, permanent",
    ),
    Case(
        "streaming_off",
        "streamed without the policy",
        "KustoApiError, permanent",
        "400, permanent",
        "DataServiceException, permanent",
    ),
    Case("managed_small", "managed streaming", "2 rows at once", "2 rows at once", "2 rows at once"),
    Case(
        "managed_once_throttled", "managed, throttled once", "2 rows at once", "2 rows at once", "2 rows at once"
    ),
    Case(
        "managed_throttled",
        "managed, always throttled",
        "2 rows by the queue",
        "2 rows by the queue",
        "2 rows by the queue",
    ),
    Case(
        "managed_unavailable",
        "managed, always 503",
        "2 rows by the queue",
        "2 rows by the queue",
        "2 rows by the queue",
    ),
    Case("managed_large", "managed, over 4 MB", "1 row by the queue", "1 row by the queue", "1 row by the queue"),
    # JavaScript's client looks for the permanence of an error where it is not.
    Case(
        "managed_permanent",
        "managed without the policy",
        "KustoApiError, permanent",
        "2 rows by the queue",
        "DataServiceException, permanent",
    ),
    # Both try again, and streaming knows no repetition.
    Case("managed_lost_reply", "managed, the first reply lost", "4 rows", "4 rows", "4 rows"),
)
