"""https with a certificate of the double's own."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from cryptography import x509

from localrunner.adx import tls
from tests.adx.support import Double


@pytest.fixture(scope="module")
def secure(azurite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    """A double with two listeners more."""
    name = "ingest-local.kusto.windows.net"
    own = Double(tmp_path_factory.mktemp("secure"), azurite, options=("--tls", "--tls-name", name))
    own.start()
    try:
        yield own
    finally:
        own.stop()


def test_a_client_that_trusts_the_authority_works_over_https(
    secure: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Microsoft's own client and its usual way to trust; a token may be asked for only over https."""
    addresses = secure.addresses
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", addresses["authority"])
    builder = KustoConnectionStringBuilder.with_aad_application_token_authentication(
        addresses["engine_tls"], "any token"
    )

    with KustoClient(builder) as client:
        assert [row.to_list() for row in client.execute("db", "print 1").primary_results[0]] == [[1]]
    assert requests.get(f"{addresses['dm_tls']}/local/health", timeout=10).json()["role"] == "dm"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{addresses['dm_tls']}/local/health", timeout=10)


def test_the_certificate_names_the_loopback_address_and_what_was_asked_for(secure: Double) -> None:
    """Clients that insist on a known host are sent here by a hosts file."""
    files = tls.ready(secure.directory / "data" / "tls")
    there = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = there.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert {"localhost", "ingest-local.kusto.windows.net"} <= set(names.get_values_for_type(x509.DNSName))
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    strict = ssl.create_default_context(cafile=str(files.authority))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert strict.get_ca_certs()


def test_a_certificate_is_kept_while_it_is_good(tmp_path: Path) -> None:
    """So that a client need not be told anew after a restart; another name, or old age, makes a new one."""
    first = tls.ready(tmp_path).certificate.read_bytes()

    assert tls.ready(tmp_path).certificate.read_bytes() == first
    second = tls.ready(tmp_path, ["other"]).certificate.read_bytes()
    assert second != first
    assert tls.ready(tmp_path).certificate.read_bytes() == second
    in_a_month = datetime.now(UTC) + timedelta(days=29)
    assert tls.ready(tmp_path, now=in_a_month).certificate.read_bytes() != second
    (tmp_path / "server.pem").write_text("nonsense")
    made = x509.load_pem_x509_certificate(tls.ready(tmp_path).certificate.read_bytes())
    assert made.not_valid_after_utc > datetime.now(UTC)
