"""A timer runs on one host of an app: docs/functions-host.md, "Timers"."""

from __future__ import annotations

import signal
import uuid

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from localrunner.host import hostjson
from localrunner.host.settings import AppSettings, SettingsError
from tests.host.hosting import Hosts, RunningHost, never

EVERY_SECOND = """
@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule="*/1 * * * * *")
def sweep(timer: func.TimerRequest) -> None:
    note(os.environ["HOST_NAME"])
"""
# The shortest that Azure Storage and the host allow.
LEASE_S = 15
SHORT = {"listenerLockPeriod": "00:00:15", "listenerLockRecoveryPollingInterval": "00:00:15"}
DEBUG = {"logLevel": {"default": "Information", "Host.Singleton": "Debug"}}


@pytest.fixture
def host_id() -> str:
    return uuid.uuid4().hex


def start(hosts: Hosts, azurite: str, host_id: str, name: str) -> RunningHost:
    if not hosts.running:
        hosts.app(EVERY_SECOND, singleton=SHORT, logging=DEBUG)
    (app,) = hosts.directory.glob("app-*")
    storage = {"AzureWebJobsStorage": azurite, "AzureFunctionsWebHost__hostid": host_id}
    return hosts.start(app, **storage, HOST_NAME=name)


def lease_of(azurite: str, host_id: str) -> BlobLeaseClient:
    path = f"locks/{host_id}/Host.Functions.sweep.Listener"
    blobs = BlobServiceClient.from_connection_string(azurite)
    return BlobLeaseClient(blobs.get_blob_client("azure-webjobs-hosts", path))


def test_a_timer_of_a_killed_host_pauses_until_its_lease_ends_and_goes_on_elsewhere(
    hosts: Hosts, azurite: str, host_id: str
) -> None:
    """SingletonListener.cs: one of several hosts runs a timer; when that one is killed nobody breaks its lease, so
    sweeps pause. One that is stopped releases the lease itself."""
    first = start(hosts, azurite, host_id, "first")
    first.wait_notes("first", 1)
    second = start(hosts, azurite, host_id, "second")
    second.wait_log("Unable to acquire Singleton lock")
    assert second.wait_running()["functions"] == ["sweep"]
    never("the second runs it too", lambda: second.notes("second"), for_s=1.5)

    first.stop(signal.SIGKILL)
    with pytest.raises(HttpResponseError, match="LeaseAlreadyPresent"):
        lease_of(azurite, host_id).acquire(LEASE_S)
    assert second.notes("second") == [], "the dead host's lease lasts, and so does the pause"
    (note, *_) = second.wait_notes("second", 1)
    assert note["at"] > first.notes("first")[-1]["at"]
    acquired, executed = (second.log().index(text) for text in ("lock acquired", "Executing 'Functions.sweep'"))
    assert acquired < executed
    assert second.stop() == 0
    free = lease_of(azurite, host_id)
    free.acquire(LEASE_S)
    free.release()


def test_a_host_that_cannot_renew_its_lease_shuts_down_and_leaves_the_timer_alone(
    hosts: Hosts, azurite: str, host_id: str
) -> None:
    """SingletonManager.cs: a lost lease is an unhandled exception. This is what a host meets that was frozen for
    longer than its lease, when another has taken the timer meanwhile."""
    host = start(hosts, azurite, host_id, "first")
    host.wait_notes("first", 1)
    lease = lease_of(azurite, host_id)
    lease.break_lease(0)
    lease.acquire(-1)

    host.wait_log("Singleton lock renewal failed")
    host.wait_log("Stopping")
    host.wait_log("Unable to acquire Singleton lock")
    count = len(host.notes("first"))
    never("the timer runs without the lease", lambda: len(host.notes("first")) > count, for_s=1.5)
    lease.release()


def test_the_lease_lasts_a_minute_unless_host_json_or_the_environment_says_otherwise(hosts: Hosts) -> None:
    """SingletonOptions.cs: from 15 s to 60 s, and 15 s where AZURE_FUNCTIONS_ENVIRONMENT is Development."""
    override = "AzureFunctionsJobHost__singleton__listenerLockPeriod"

    def options(**settings: str) -> hostjson.SingletonOptions:
        return hostjson.load(hosts.directory / "none.json", AppSettings.of(settings)).singleton

    assert options() == hostjson.SingletonOptions(60, 60.0)
    assert options(AZURE_FUNCTIONS_ENVIRONMENT="Development").listener_lock_period_s == 15
    assert options(**{override: "00:00:30"}).listener_lock_period_s == 30
    with pytest.raises(SettingsError, match="is not from 00:00:15 to 00:01:00"):
        options(**{override: "00:00:05"})
