"""The real data: all of it, with real types."""

from __future__ import annotations

from localrunner.flights import FLIGHTS, WEATHER, airports, flights, planes, weather


def test_every_flight_is_there_with_numbers_as_numbers_and_na_as_none() -> None:
    """The demo's proof compares counts and `sum(distance)` with these."""
    rows = list(flights())

    assert len(rows) == FLIGHTS == 336_776
    assert sum(int(row["distance"] or 0) for row in rows) == 350_217_607
    assert list(rows[0].items())[:6] == [
        ("year", 2013),
        ("month", 1),
        ("day", 1),
        ("dep_time", 517),
        ("sched_dep_time", 515),
        ("dep_delay", 2),
    ]
    assert (rows[0]["tailnum"], rows[0]["time_hour"]) == ("N14228", "2013-01-01T10:00:00Z")
    assert list(flights({0, 336_775})) == [rows[0], rows[-1]]
    assert sum(row["dep_time"] is None for row in rows) == 8255
    assert sum(row["tailnum"] is None for row in rows) == 2512
    assert all(isinstance(row["carrier"], str) for row in rows)


def test_weather_keeps_its_fractions_and_joins_the_flights() -> None:
    rows = list(weather())

    assert len(rows) == WEATHER == 26_115
    assert rows[0]["wind_speed"] == 10.357019999999999
    assert rows[0]["wind_gust"] is None
    assert (rows[0]["origin"], rows[0]["time_hour"]) == ("EWR", "2013-01-01T06:00:00Z")


def test_planes_and_airports_are_there() -> None:
    assert sum(1 for _ in planes()) == 3322
    assert sum(1 for _ in airports()) == 1458
