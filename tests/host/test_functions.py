"""Which functions of an app run, and what keeps all of them from running: docs/functions-host.md, "Functions"."""

from __future__ import annotations

from typing import Any

from tests.host.hosting import Hosts

TAKE = """
@trigger()
def take(records: typing.List[func.KafkaEvent]) -> None:
    note("batch")
"""


def status_of(hosts: Hosts, code: str, **settings: str) -> dict[str, Any]:
    host = hosts.start(hosts.app(code), **settings)
    status = host.wait_running()
    assert host.stop() == 0
    return status


# What an app does, and what the host says of it.
FAULTS = (
    ("raise ValueError('settings are bad')", "ValueError: settings are bad"),
    (TAKE.replace("typing.List[", "list["), "has invalid non-type annotation"),
    (TAKE.replace("typing.List[func.KafkaEvent]", "func.TimerRequest"), "does not match its Python annotation"),
    (TAKE + TAKE, "does not have a unique function name"),
    (TAKE + "other = func.FunctionApp()", "More than one FunctionApp"),
    (TAKE.replace("records:", "others:"), "declared in Python but not in function.json"),
)


def test_a_fault_while_indexing_leaves_an_app_without_functions_and_a_host_that_runs(hosts: Hosts) -> None:
    """docs/functions-host.md, "Functions": any exception at import means no functions at all."""
    started = [(hosts.start(hosts.app(code)), reason) for code, reason in FAULTS]

    for host, reason in started:
        status = host.wait_running()
        assert status["functions"] == []
        assert reason in status["error"]
        assert host.stop() == 0


def test_functions_that_cannot_run_do_not_stop_those_that_can(hosts: Hosts) -> None:
    """docs/functions-host.md, "Functions": the host skips a bad name, names match in any case, and a function
    whose settings do not resolve is in error alone. What is not emulated is refused by name."""
    code = """
def register(name, **attributes):
    @trigger(name, **attributes)
    def take(records: typing.List[func.KafkaEvent]) -> None:
        note("batch")

register("good-one_1")
register("9 bad.name")
register("Orders")
register("orders")
register("host")
register("unset", topic="%MISSING%")
register("streamed", data_type="stream")
register("registry", schema_registry_url="http://127.0.0.1:1")
register("off")
register("off_too")

@app.function_name("web")
@app.route("web/{id:regex(^\\d+$)}")
def web(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("never")

@app.function_name("queue")
@app.queue_trigger(arg_name="item", queue_name="items", connection="AzureWebJobsStorage")
def queue(item: func.QueueMessage) -> None:
    note("never")

@app.function_name("badly_timed")
@app.timer_trigger(arg_name="timer", schedule="every minute")
def badly_timed(timer: func.TimerRequest) -> None:
    note("timer")
"""
    settings = {"AzureWebJobs.off.Disabled": "true", "AzureWebJobs_OFF_TOO_Disabled": "1"}
    status = status_of(hosts, code, **settings)

    assert status["functions"] == ["good-one_1", "Orders"], status["error"]
    faults = status["error"].splitlines()
    assert [fault.partition(":")[0] for fault in faults] == [
        "9 bad.name",
        "orders",
        "host",
        "unset",
        "streamed",
        "registry",
        "queue",
        "badly_timed",
        "web",
    ]


def test_a_listener_that_cannot_start_keeps_its_function_from_running_and_no_other(hosts: Hosts) -> None:
    """librdkafka refuses such a configuration; the host logs it without the secrets in it."""
    code = (
        TAKE
        + """
@trigger("wrong", protocol="SSL", ssl_ca_location="/none/ca.pem", ssl_key_password="%SECRET%")
def wrong(records: typing.List[func.KafkaEvent]) -> None:
    note("batch")
"""
    )
    host = hosts.start(hosts.app(code), SECRET="kept-secret")
    status = host.wait_running()

    assert status["functions"] == ["take"]
    assert "wrong: the listener was unable to start" in status["error"]
    assert "kept-secret" not in host.log()


def test_a_worker_sees_the_app_and_not_the_host(hosts: Hosts) -> None:
    """In Azure the worker has the app's directory and packages, and no Kafka client of the host's."""
    code = """
@app.function_name("look")
@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
def look(timer: func.TimerRequest) -> None:
    note("look", path=sys.path[0], cwd=os.getcwd(), kafka="confluent_kafka" in sys.modules,
         importable=any((Path(entry) / "localrunner").exists() for entry in sys.path))
"""
    host = hosts.start(hosts.app(code))

    (look,) = host.wait_notes("look", 1)
    assert look["path"] == look["cwd"] == str(host.app)
    assert (look["kafka"], look["importable"]) == (False, False)
