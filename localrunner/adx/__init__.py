"""A stand-in for Azure Data Explorer on one machine: Kusto's REST API over DuckDB, queued ingestion over Azurite.

It refuses rather than guesses: what it does not know is an error that names it. docs/adx-double.md lists what
it knows.
"""
