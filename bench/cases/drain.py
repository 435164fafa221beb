"""A million records from Kafka into the double's table through the whole local stack: CPU by process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice

from bench.cases import Options
from bench.data import records
from bench.measure import Result
from bench.stack import stack
from localrunner.demo.cpu import CpuMeter
from localrunner.demo.kusto import DB, METADATA, Adx
from localrunner.demo.produce import produce
from localrunner.demo.records import Feed

_TOPIC = "drain"
_TABLE = "Flights"
_WHOLE = 1_000_000
_QUICK = 20_000
_DISTINCT = 5_000
_WAIT_S = 600.0


def run(options: Options) -> Iterator[Result]:
    """From the first record produced to the last row visible; CPU is each process's from then to then."""
    count = _QUICK if options.quick else _WHOLE
    values = records("256 B", _DISTINCT)
    keyed = [(b"%d" % (number % 7), value) for number, value in enumerate(islice(cycle(values), count))]
    feed = Feed(_TOPIC, _TABLE, keyed, count, 0, "distance", 0)
    route = {"topic": _TOPIC, "db": DB, "table": _TABLE, "mapping": f"{_TABLE}Mapping", "metadata": METADATA}
    with stack([route]) as running:
        adx, meter = Adx(running.addresses["engine"]), CpuMeter()
        adx.make_tables()
        meter.sample(running.pids)
        idle = meter.by_name()
        began = time.monotonic()
        produce(running.addresses["kafka"], [feed])
        while (rows := adx.rows([feed])[_TABLE]) < count:
            if time.monotonic() - began > _WAIT_S:
                raise TimeoutError(f"drain: {rows} of {count} rows after {_WAIT_S:.0f} s")
            time.sleep(1)
        seconds = time.monotonic() - began
        meter.sample(running.pids)
    yield Result("drain", "256 B", count, "records/s", count / seconds, "")
    for name, used in meter.by_name().items():
        if name != "supervisor":
            yield Result("drain", "256 B", count, f"CPU {name}", used - idle.get(name, 0.0), "s")
