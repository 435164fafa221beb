"""Timer triggers: docs/functions-host.md, "Timers"."""

from __future__ import annotations

import json

from azure.storage.blob import BlobClient, BlobServiceClient

from tests.host.hosting import Hosts, eventually


def test_a_timer_runs_on_its_schedule_once_at_a_time(hosts: Hosts) -> None:
    """TimerListener.cs: the next occurrence is counted from the invocation before; none overlaps another."""
    code = """
@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="%SCHEDULE%")
def sweep(timer: func.TimerRequest, context: func.Context) -> None:
    note("begin", past_due=timer.past_due, name=context.function_name)
    time.sleep(1.2)
    note("end")
"""
    host = hosts.start(hosts.app(code), SCHEDULE="*/1 * * * * *")

    ends = host.wait_notes("end", 2)
    begins = host.notes("begin")
    assert [begin["past_due"] for begin in begins[:2]] == [False, False]
    assert all(end["at"] <= begin["at"] for end, begin in zip(ends, begins[1:], strict=False))
    assert begins[0]["name"] == "sweep"


def test_run_on_startup_runs_at_once_and_a_failure_does_not_end_the_schedule(hosts: Hosts) -> None:
    """TimerListener.cs: function errors never stop the schedule; a retry policy counts for timers too."""
    code = """
@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="00:00:01", run_on_startup=True)
@app.retry(strategy="fixed_delay", max_retry_count="1", delay_interval="00:00:00")
async def sweep(timer: func.TimerRequest, context: func.Context) -> None:
    note("run", retry=context.retry_context.retry_count)
    raise RuntimeError("refused on purpose")
"""
    host = hosts.start(hosts.app(code))

    runs = host.wait_notes("run", 4)
    assert [run["retry"] for run in runs[:4]] == [0, 1, 0, 1]
    log = host.log()
    assert log.index("is configured to run on startup") < log.index("Executing 'Functions.sweep'")


def kept(status: BlobClient) -> dict[str, str]:
    content: dict[str, str] = json.loads(status.download_blob().readall())
    return content


def test_an_occurrence_missed_while_no_host_ran_is_past_due(hosts: Hosts, azurite: str) -> None:
    """ScheduleMonitor.cs: the status blob says when the next one was due; the host runs it at once, once."""
    code = """
@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *")
def sweep(timer: func.TimerRequest) -> None:
    note("run", past_due=timer.past_due, last=timer.schedule_status["Last"])
"""
    blobs = BlobServiceClient.from_connection_string(azurite)
    path = f"timers/{hosts.directory.name.lower()[:32]}/Host.Functions.sweep/status"
    app = hosts.app(code)
    storage = {"AzureWebJobsStorage": azurite, "AzureFunctionsWebHost__hostid": hosts.directory.name}
    first = hosts.start(app, **storage)
    first.wait_running()
    status = blobs.get_blob_client("azure-webjobs-hosts", path)
    eventually("a status is kept", status.exists)
    assert kept(status)["Last"].startswith("0001")
    assert first.stop() == 0

    missed = {
        "Last": "2020-06-01T00:00:00Z",
        "Next": "2021-01-01T00:00:00Z",
        "LastUpdated": "2020-06-01T00:00:00Z",
    }
    status.upload_blob(json.dumps(missed), overwrite=True)
    second = hosts.start(app, **storage)
    (run,) = second.wait_notes("run", 1)
    assert run["past_due"] is True
    assert run["last"].startswith("2020-06-01")
    eventually("the next occurrence is kept", lambda: kept(status)["Next"] > "2026")
    assert second.stop() == 0
    third = hosts.start(app, **storage)
    third.wait_running()
    assert third.stop() == 0
    assert third.notes("run") == [run]
