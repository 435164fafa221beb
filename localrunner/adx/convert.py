"""From the JSON token of a field to the value of a column, as SQL.

A token is a field's value as JSON writes it, byte for byte; a missing field has none (SQL's NULL). CSV fields
arrive as JSON strings. What does not match the column's type becomes null, in a string column the empty string.
Source: dataexplorer-docs, data-explorer/ingest-invalid-data.md and kusto/query/scalar-data-types/. Where those
are silent docs/adx-double.md says what was decided ("Conversions").
"""

from __future__ import annotations

VALUE_MAX_BYTES = 1024 * 1024

_INTEGER = "'^\\s*[+-]?[0-9]+\\s*$'"
_NUMBER = "'^\\s*[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?\\s*$'"
_INFINITE = "'^\\s*[+-]?(nan|inf|infinity)\\s*$'"
_ISO = (
    "'^\\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    "([T ][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?\\s*(Z|z|GMT|UTC|[+-][0-9]{2}:?[0-9]{2})?)?\\s*$'"
)
_ISO_USUAL = "'^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?Z?$'"
_GUID = "'^\\s*[{(]?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}[})]?\\s*$'"
_CLOCK = "'^\\s*-?([0-9]+\\.)?[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,7})?)?\\s*$'"

# RFC 822 and RFC 850 forms that Kusto lists for datetimes; year by two digits.
_OLD_DATETIMES = "[" + ", ".join(
    f"'{day}{date} {time}{zone}'"
    for day in ("%a, ", "%A, ", "")
    for date in ("%d %b %y", "%d-%b-%y")
    for time in ("%H:%M:%S", "%H:%M")
    for zone in ("", " GMT")
) + "]"  # fmt: skip


def _integer(token: str, text: str, kind: str) -> str:
    return (
        f"CASE WHEN {token} IS NULL THEN NULL"
        f" WHEN starts_with({token}, '\"') THEN CASE WHEN regexp_matches({text}, {_INTEGER})"
        f" THEN TRY_CAST(trim({text}) AS {kind}) END"
        # A number with a fraction or an exponent is a floating-point value, which no integer column takes.
        f" WHEN contains({token}, '.') OR contains({token}, 'e') OR contains({token}, 'E') THEN NULL"
        f" ELSE TRY_CAST({token} AS {kind}) END"
    )


def _number(token: str, text: str, kind: str) -> str:
    return (
        f"CASE WHEN starts_with({token}, '\"') THEN CASE WHEN regexp_matches({text}, {_NUMBER})"
        f" THEN TRY_CAST(trim({text}) AS {kind}) END ELSE TRY_CAST({token} AS {kind}) END"
    )


def _real(token: str, text: str) -> str:
    return (
        f"CASE WHEN starts_with({token}, '\"') THEN CASE WHEN regexp_matches({text}, {_NUMBER})"
        f" OR regexp_matches(lower({text}), {_INFINITE})"
        f" THEN TRY_CAST(trim({text}) AS DOUBLE) END ELSE TRY_CAST({token} AS DOUBLE) END"
    )


def _datetime(token: str, text: str) -> str:
    zoned = f"regexp_replace(regexp_replace(trim({text}), '\\s*(GMT|UTC|z)$', 'Z'), '\\s+([+-])', '\\1')"
    return (
        f"CASE WHEN NOT starts_with({token}, '\"') THEN NULL"
        f" WHEN regexp_matches({text}, {_ISO_USUAL})"
        f" THEN TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
        f" WHEN regexp_matches({text}, {_ISO}) THEN TRY_CAST({zoned} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
        # DuckDB also reads words such as 'epoch' here.
        f" WHEN regexp_matches({text}, '[0-9]:[0-9]') THEN try_strptime(trim({text}), {_OLD_DATETIMES}) END"
    )


def _timespan(token: str, text: str) -> str:
    sign = f"CASE WHEN starts_with(trim({text}), '-') THEN -1 ELSE 1 END"
    days = f"coalesce(TRY_CAST(nullif(regexp_extract({text}, '([0-9]+)\\.[0-9]{{1,2}}:', 1), '') AS BIGINT), 0)"
    clock = f"regexp_extract({text}, '[0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}(\\.[0-9]{{1,6}})?)?')"
    micros = f"epoch_us(TRY_CAST({clock} AS INTERVAL))"
    return (
        f"CASE WHEN starts_with({token}, '\"') AND regexp_matches({text}, {_CLOCK})"
        f" THEN to_microseconds(({sign}) * ({days} * 86400000000 + {micros})) END"
    )


def _bool(token: str, text: str) -> str:
    value = f"CASE WHEN starts_with({token}, '\"') THEN lower(trim({text})) ELSE {token} END"
    return f"CASE {value} WHEN 'true' THEN TRUE WHEN '1' THEN TRUE WHEN 'false' THEN FALSE WHEN '0' THEN FALSE END"


def expression(token: str, kind: str) -> str:
    """SQL that turns the token in column `token` into a value of Kusto's type `kind`."""
    # Without a backslash the text is what stands between the quotes; only the rest is worth a JSON parser.
    text = f"CASE WHEN contains({token}, '\\') THEN TRY_CAST({token} AS JSON) ->> '$' ELSE {token}[2:-2] END"
    match kind:
        case "string":
            return (
                f"CASE WHEN {token} IS NULL OR {token} = 'null' THEN ''"
                f" WHEN starts_with({token}, '\"') THEN {text} ELSE {token} END"
            )
        case "int":
            return _integer(token, text, "INTEGER")
        case "long":
            return _integer(token, text, "BIGINT")
        case "real":
            return _real(token, text)
        case "decimal":
            return _number(token, text, "DECIMAL(38,18)")
        case "bool":
            return _bool(token, text)
        case "datetime":
            return _datetime(token, text)
        case "timespan":
            return _timespan(token, text)
        case "guid":
            trimmed = f"trim({text}, ' (){{}}')"
            return (
                f"CASE WHEN starts_with({token}, '\"') AND regexp_matches({text}, {_GUID})"
                f" THEN TRY_CAST({trimmed} AS UUID) END"
            )
        case "dynamic":
            return f"CASE WHEN {token} = 'null' THEN NULL ELSE TRY_CAST({token} AS JSON) END"
    raise AssertionError(f"no conversion for {kind}")
