"""Data management: takes messages from the ingestion queue, seals batches, ingests them, reports, and only then
deletes the messages. A kill at any point leaves them in the queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.queue import QueueMessage

from localrunner.adx import reports
from localrunner.adx.batching import Batches
from localrunner.adx.errors import IngestionError, where
from localrunner.adx.ingest import Ingestor, Outcome, Sealed
from localrunner.adx.messages import Request, decode
from localrunner.adx.observer import Observer
from localrunner.adx.resources import Resources

_LOG = logging.getLogger(__name__)

# How long a message stays out of sight. Not renewed: one that comes back while it is held here is known by its id.
_LEASE_S = 2
_MESSAGES_MAX = 32
_IDLE_S = 0.2
_BUSY_S = 0.05
_BUSY_FOR_S = 1.0
_STORAGE_PAUSE_S = 0.5
_ATTEMPTS = 3
# No more messages are taken while this many blobs wait in sealed batches.
_BACKLOG_MAX_BLOBS = 1000
_DONE_MAX = 100_000


class Worker:
    """Two threads: one takes messages and seals, one ingests."""

    def __init__(self, resources: Resources, ingestor: Ingestor, batches: Batches, observer: Observer) -> None:
        self._resources = resources
        self._faults = observer.faults
        self._counters = observer.counters
        self._ready = resources.queue(resources.ready_queue)
        self._failed = resources.queue(resources.failed_queue)
        self._succeeded = resources.queue(resources.succeeded_queue)
        self._ingestor = ingestor
        self._batches = batches
        self._sealed: queue.Queue[Sealed | None] = queue.Queue()
        self._backlog_blobs = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Message id -> the receipt that deletes it.
        self._held: dict[str, str] = {}
        # Ids of messages that were ingested and perhaps not deleted: never ingested again by this process.
        self._done: OrderedDict[str, None] = OrderedDict()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="delete")
        self._threads = [
            threading.Thread(target=self._poll, name="dm-poll"),
            threading.Thread(target=self._ingest_all, name="dm-ingest"),
        ]

    def start(self) -> None:
        """Messages are being taken."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """The batch in hand is finished, open ones are left to the queue, and no thread is left."""
        self._stop.set()
        self._sealed.put(None)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown()

    def _poll(self) -> None:
        last_new_at = time.monotonic()
        while not self._stop.is_set():
            try:
                taken, new = self._take() if self._backlog_blobs < _BACKLOG_MAX_BLOBS else (0, 0)
                for sealed in self._batches.due(_now()):
                    self._seal(sealed)
            except ResourceNotFoundError:
                taken, new = self._recreate(), 0
            except AzureError as error:
                _LOG.warning("queue_unavailable error=%s", type(error).__name__)
                self._stop.wait(_STORAGE_PAUSE_S)
                continue
            except Exception as error:  # noqa: BLE001 - one message must not stop the others
                _LOG.error("poll_failed %s", where(error))
                self._stop.wait(_STORAGE_PAUSE_S)
                continue
            if new:
                last_new_at = time.monotonic()
            if taken < _MESSAGES_MAX:
                busy = time.monotonic() - last_new_at < _BUSY_FOR_S
                self._stop.wait(_BUSY_S if busy else _IDLE_S)

    def _recreate(self) -> int:
        """The queues exist again: a storage emulator that keeps nothing was restarted."""
        try:
            self._resources.create()
        except AzureError:
            self._stop.wait(_STORAGE_PAUSE_S)
        return 0

    def _take(self) -> tuple[int, int]:
        """How many messages came, and how many of them are new; one that is held only gets a new receipt."""
        pages = self._ready.receive_messages(
            messages_per_page=_MESSAGES_MAX, max_messages=_MESSAGES_MAX, visibility_timeout=_LEASE_S
        )
        news = [self._accept(message) for message in pages]
        return len(news), sum(news)

    def _accept(self, message: QueueMessage) -> bool:
        """Whether the message was not known before."""
        with self._lock:
            known = message.id in self._held
            done = message.id in self._done
            self._held[message.id] = str(message.pop_receipt)
        if done:
            self._delete(message.id)
        if known or done:
            self._counters.add("messages.again")
            return False
        self._counters.add("messages.taken")
        try:
            request = decode(str(message.content), message.id)
        except IngestionError as error:
            _LOG.warning("message_refused id=%s code=%s", message.id, error.code)
            self._counters.add("messages.corrupted")
            self._delete(message.id)
            return True
        try:
            if request.fault:
                raise request.fault
            if request.status_row and not self._resources.is_status_table(request.status_row.table):
                raise IngestionError("BadRequest_NotSupported", "The status table is not the one of this double.")
            for sealed in self._batches.add(request, _now()):
                self._seal(sealed)
        except IngestionError as error:
            self._pool.submit(self._refuse, request, error)
        return True

    def _refuse(self, request: Request, error: IngestionError) -> None:
        """A blob that comes into no batch: reported, and its message deleted."""
        operation_id = self._ingestor.refuse(request, error)
        if self._report(request, error, operation_id):
            self._delete(request.message_id)
        else:
            self._release(request.message_id)

    def _seal(self, sealed: Sealed) -> None:
        with self._lock:
            self._backlog_blobs += len(sealed.requests)
        self._sealed.put(sealed)

    def _ingest_all(self) -> None:
        while (sealed := self._sealed.get()) is not None and not self._stop.is_set():
            try:
                self._delay(sealed)
                outcome = self._ingest(sealed)
                if outcome is not None:
                    self._finish(sealed, outcome)
            except Exception as error:  # noqa: BLE001 - the batches after this one must go on
                _LOG.error("batch_not_finished %s", where(error))
            finally:
                with self._lock:
                    self._backlog_blobs -= len(sealed.requests)

    def _ingest(self, sealed: Sealed) -> Outcome | None:
        """The outcome of the batch, or None where the double itself failed and the messages have to come again."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._ingestor.ingest(sealed)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other batches must go on
                _LOG.error("batch_failed attempt=%d %s", attempt, where(error))
                self._stop.wait(_STORAGE_PAUSE_S)
        fault = IngestionError(
            "General_InternalServerError", "The double failed; its log names the kind of error."
        )
        for request in sealed.requests:
            self._pool.submit(self._refuse, request, fault)
        return None

    def _delay(self, sealed: Sealed) -> None:
        """Faults on demand have held the batch up."""
        for request in sealed.requests:
            fault = self._faults.on_blob("delay_blob", request)
            if fault is not None:
                # A stop takes every fault back before it waits for this thread.
                fault.released.wait(fault.delay_s)

    def _finish(self, sealed: Sealed, outcome: Outcome) -> None:
        """Reports first, then the messages go: a kill between them repeats a report, and loses none."""
        told: list[Request] = []
        for index, request in enumerate(sealed.requests):
            error = outcome.failures.get(index)
            # A failure that nobody heard of is tried again. The rows of a success are there: to keep its message
            # would repeat them.
            if not self._report(request, error, outcome.operation_id) and error is not None:
                self._release(request.message_id)
                continue
            if self._faults.on_blob("redeliver", request) is not None:
                self._counters.add("messages.redelivered")
                self._release(request.message_id)
                continue
            told.append(request)
        self._faults.pass_point("after_reports", sealed.requests[0].table)
        list(self._pool.map(self._delete_request, told))
        kept = {request.message_id for index, request in enumerate(sealed.requests) if index in outcome.failures}
        for request in told:
            if not request.retain_blob and request.message_id not in kept:
                self._clean_up(request)

    def _delete_request(self, request: Request) -> None:
        self._faults.pass_point("before_delete", request.table)
        self._delete(request.message_id)
        self._faults.pass_point("after_delete", request.table)

    def _report(self, request: Request, error: IngestionError | None, operation_id: uuid.UUID) -> bool:
        """Whether the client can know: it was told, or wants not to be."""
        by_queue, by_row = reports.wanted(request, error)
        kind = "succeeded" if error is None else "failed"
        try:
            if by_row and request.status_row and self._resources.is_status_table(request.status_row.table):
                self._resources.report(reports.row(request, error, operation_id))
                self._counters.add("reports.status_table")
            if by_queue:
                target = self._succeeded if error is None else self._failed
                target.send_message(reports.message(request, error, operation_id))
                self._counters.add(f"reports.{kind}_queue")
        except AzureError as azure_error:
            _LOG.warning("report_not_sent kind=%s error=%s", kind, type(azure_error).__name__)
            return False
        return True

    def _clean_up(self, request: Request) -> None:
        """The blob is gone, where the client does not want to keep it; its message was deleted before."""
        try:
            if not self._resources.delete_blob(request.path):
                _LOG.warning("blob_not_deleted id=%s reason=another_account", request.message_id)
        except AzureError as error:
            _LOG.warning("blob_not_deleted id=%s error=%s", request.message_id, type(error).__name__)

    def _release(self, message_id: str) -> None:
        """The message is not ours any more: it comes again."""
        with self._lock:
            self._held.pop(message_id)

    def _delete(self, message_id: str) -> None:
        with self._lock:
            receipt = self._held.pop(message_id)
            self._done[message_id] = None
            while len(self._done) > _DONE_MAX:
                self._done.popitem(last=False)
        try:
            self._ready.delete_message(message_id, receipt)
        except AzureError:
            # Its lease ran out and it was, or will be, given out again; then it is deleted by its new receipt.
            _LOG.debug("message_not_deleted id=%s", message_id)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
