"""Whether a Kafka that the stack did not start answers and has the topics: asked once, by the KAFKA_* settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from localrunner.plan import Plan

ANSWER_S = 5.0
PEM_BEGINS = "-----BEGIN"
SECRETS = ("password", "oauth_client_secret", "ssl_key", "ssl_key_password")


def ask(plan: Plan) -> tuple[bool, list[str]]:
    """Whether the brokers of `plan` answered within 5 s, and a sentence for each thing that is wrong."""
    brokers, said = plan.brokers, list[str]()

    def keep(error: KafkaError) -> None:
        # "All brokers are down" follows upon the reason, and says less.
        if error.name() != "_ALL_BROKERS_DOWN":
            said.append(error.str())

    try:
        client = AdminClient(client_config(plan) | {"error_cb": keep})
    except KafkaException as fault:
        return False, [_clean(plan, f"kafka: no client can be made ({_text(fault)}); check KAFKA_*")]
    try:
        topics = client.list_topics(timeout=ANSWER_S).topics
    except KafkaException as fault:
        client.poll(0)  # it tells the callback why
        why = said[0] if said else _text(fault)
        return False, [_clean(plan, f"kafka: {brokers} does not answer ({why}); check --kafka and KAFKA_*")]
    return True, [
        f"kafka: {brokers} has no topic {topic}, or does not show it to this user; create it, or correct the route"
        for topic in plan.topics
        if topic not in topics
    ]


def client_config(plan: Plan) -> dict[str, Any]:
    """librdkafka's properties for the `KAFKA_*` settings of `plan`; only those that are set.

    Source: librdkafka's CONFIGURATION.md.
    """
    kafka = plan.settings.kafka
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.brokers,
        "security.protocol": kafka.protocol,
        "sasl.mechanism": kafka.authentication,
        "sasl.username": kafka.username,
        "sasl.password": kafka.password,
        "ssl.key.password": kafka.ssl_key_password,
        **_pem_or_path(plan.options.app, "ca", kafka.ssl_ca),
        **_pem_or_path(plan.options.app, "certificate", kafka.ssl_certificate),
        **_pem_or_path(plan.options.app, "key", kafka.ssl_key),
        "log_level": 0,  # its lines would be on the screen; what matters also comes as an error
    }
    if kafka.authentication == "OAUTHBEARER":
        config |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": kafka.oauth_token_url,
            "sasl.oauthbearer.client.id": kafka.oauth_client_id,
            "sasl.oauthbearer.client.secret": kafka.oauth_client_secret,
            "sasl.oauthbearer.scope": kafka.oauth_scope,
            "sasl.oauthbearer.extensions": kafka.oauth_extensions,
        }
    return {name: value for name, value in config.items() if value is not None}


def _pem_or_path(app: Path, name: str, value: str | None) -> dict[str, str]:
    """As the Kafka extension takes it: PEM text, a path, or the name of a file beside the app."""
    if value is None:
        return {}
    if value.startswith(PEM_BEGINS):
        return {f"ssl.{name}.pem": value.replace("\\n", "\n")}
    beside = app / Path(value).name
    return {f"ssl.{name}.location": str(beside) if beside.exists() and not Path(value).exists() else value}


def _text(fault: KafkaException) -> str:
    error = fault.args[0]
    return error.str() if isinstance(error, KafkaError) else str(error)


def _clean(plan: Plan, text: str) -> str:
    """`text` without any secret of the settings, whatever a library may have put there."""
    for name in SECRETS:
        secret = getattr(plan.settings.kafka, name)
        if secret:
            text = text.replace(secret, "***")
    return text
