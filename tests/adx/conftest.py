"""The double that these tests share: its own data directory, on the Azurite of the test run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adx.support import Double


@pytest.fixture(scope="session")
def double(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """A double with spans of batching policies a thousandth of Kusto's."""
    shared = Double(tmp_path_factory.mktemp("double"), azurite, time_scale=0.001)
    shared.start()
    try:
        yield shared
    finally:
        shared.stop()
