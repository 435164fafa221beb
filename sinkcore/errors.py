"""One class per thing that a caller can do next.

SinkError
├── ConfigError           stop at start, with all faults listed
├── RecordError           a record was refused and the app is set to stop on that
├── TransientError        nothing was written: try again within the budget, then raise
├── LedgerError           the ledger is not as this version left it: touch nothing, a person has to look
├── OutcomeUnknownError   a write may or may not have happened: ask the ledger, delete nothing
├── ConflictError         a precondition of a transaction failed: read the segment row, it may be ours
└── PositionMovedError    another invocation committed first: reload, trim, again

Messages have the shape `subject: fact with numbers; what to do`, and never hold a record's value or key,
a SAS token, a connection string or any other secret.
"""


class SinkError(Exception):
    """Whatever the sink raises on purpose."""


class ConfigError(SinkError):
    """The app settings cannot be used; `faults` holds one sentence for each fault, with its fix."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class RecordError(SinkError):
    """A record was refused while `SINK_ON_BAD_RECORD` is `fail`: nothing more of that topic is taken."""


class TransientError(SinkError):
    """Nothing was written, or nothing that matters: the same call may succeed later."""


class LedgerError(SinkError):
    """A row that cannot be read, or a ledger that has lost what it held: nothing of the topic is touched."""


class OutcomeUnknownError(SinkError):
    """A write was sent and its reply was lost: only the place written to knows the outcome."""


class ConflictError(SinkError):
    """A transaction found an entity in the way or under another ETag; this attempt at it wrote nothing.

    An earlier attempt of the same transaction may have landed, so the segment row must be read.
    """


class PositionMovedError(SinkError):
    """A cursor is no longer where this invocation saw it: another one committed first."""
