"""What the app says: nothing of a record's value or key, and no secret, however it fails."""

from __future__ import annotations

import base64

import pytest

from localrunner.azurite import KEY as ACCOUNT_KEY
from tests.support.events import Sent

VALUE, KEY = b"broken, and for nobody", b"a key for nobody"
# A record that is refused, so that there is something to say.
SECRET_RECORD = Sent(VALUE, 2, key=KEY, headers=(("h", VALUE),))
SECRETS = (VALUE.decode(), KEY.decode(), ACCOUNT_KEY, "AccountKey", "sig=", "authorizationContext")


def nothing_is_told(caplog: pytest.LogCaptureFixture, *errors: BaseException) -> None:
    """No log record and no error holds any of the secrets; there were some."""
    texts = [text for error in errors for text in (str(error), repr(error))]
    texts += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert texts
    for secret in SECRETS:
        coded = base64.b64encode(secret.encode()).decode().rstrip("=")
        assert not [text for text in texts if secret in text or coded in text], secret
