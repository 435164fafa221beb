"""A Kafka broker that wants to know who asks: certificates, passwords and tokens, all made up for a test run."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "app", "a-password-no-log-may-show"
KEY_PASSWORD = "a-key-password-no-log-may-show"
CLIENT_ID, CLIENT_SECRET = "the-app", "a-client-secret-no-log-may-show"
VALID = datetime.timedelta(days=1)
TOKEN_S = 3_600

PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{sasl},\
SSL://127.0.0.1:{ssl},SASLSSL://127.0.0.1:{sasl_ssl}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},SSL://127.0.0.1:{ssl},\
SASLSSL://127.0.0.1:{sasl_ssl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,SSL:SSL,SASLSSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
ssl.keystore.type=PEM
ssl.keystore.location={directory}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={directory}/ca.pem
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
# The token is believed as it is: whether brokers check signatures is no question of ours.
LOGIN = """\
listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
required user_{user}="{password}";
listener.name.{listener}.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{listener}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{listener}.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule \
required unsecuredLoginStringClaim_sub="broker";
listener.name.{listener}.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in one directory: an authority, a server's key with its certificate, and a client's, apart."""

    directory: Path
    ca: Path
    certificate: Path
    key: Path
    encrypted_key: Path


def properties(directory: Path, **ports: int) -> str:
    """Lines of server.properties for a listener of each kind; `ports` by the names in PROPERTIES."""
    logins = [LOGIN.format(listener=name, user=USER, password=PASSWORD) for name in ("sasl", "saslssl")]
    return PROPERTIES.format(directory=directory, **ports) + "".join(logins)


def certificates(directory: Path) -> Certificates:
    """A new authority and what it signed lie in `directory`, as PEM files."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test authority", ca_key, "test authority", ca_key, is_ca=True)
    server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    server = _certificate("broker", server_key, "test authority", ca_key)
    client = _certificate("client", client_key, "test authority", ca_key)
    found = Certificates(
        directory,
        directory / "ca.pem",
        directory / "client.crt",
        directory / "client.key",
        directory / "client.enc.key",
    )
    found.ca.write_bytes(_pem(ca))
    found.certificate.write_bytes(_pem(client))
    found.key.write_bytes(_key(client_key))
    found.encrypted_key.write_bytes(_key(client_key, KEY_PASSWORD.encode()))
    (directory / "server.pem").write_bytes(_key(server_key) + _pem(server))
    return found


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, is_ca: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
    )
    return builder.sign(by, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@dataclass(slots=True)
class TokenEndpoint:
    """What an identity provider was asked, and the URL where it answers."""

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def token_endpoint() -> Iterator[TokenEndpoint]:
    """An identity provider on loopback, which gives an unsigned token to the one client that it knows.

    To others it repeats what they said, as careless ones do.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            credentials = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            endpoint.asked.append((credentials, form))
            known = credentials == f"{CLIENT_ID}:{CLIENT_SECRET}"
            answer = {"access_token": _token()} if known else {"error": f"unknown client {credentials}"}
            body = json.dumps(answer | {"token_type": "Bearer", "expires_in": TOKEN_S}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing goes to the screen."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint = TokenEndpoint(f"http://127.0.0.1:{server.server_port}/token")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield endpoint
        server.shutdown()
        thread.join(10)


def _token() -> str:
    def part(claims: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    now = int(time.time())
    return part({"alg": "none"}) + "." + part({"sub": CLIENT_ID, "iat": now, "exp": now + TOKEN_S}) + "."
