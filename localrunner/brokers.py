"""Whether a Kafka that the stack did not start answers and has the topics: asked once, by the KAFKA_* settings."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from localrunner.plan import Plan

ANSWER_S = 5.0


def ask(plan: Plan) -> tuple[bool, list[str]]:
    """Whether the brokers of `plan` answered within 5 s, and a sentence for each thing that is wrong."""
    kafka, said = plan.settings.kafka, list[str]()

    def keep(error: KafkaError) -> None:
        # "All brokers are down" follows upon the reason, and says less.
        if error.name() != "_ALL_BROKERS_DOWN":
            said.append(error.str())

    try:
        client = AdminClient(kafka.client_config(plan.options.app) | {"error_cb": keep})
    except KafkaException as fault:
        return False, [kafka.without_secrets(f"kafka: no client can be made ({_text(fault)}); check KAFKA_*")]
    try:
        topics = client.list_topics(timeout=ANSWER_S).topics
    except KafkaException as fault:
        client.poll(0)  # it tells the callback why
        why = kafka.without_secrets(said[0] if said else _text(fault))
        return False, [f"kafka: {kafka.brokers} does not answer ({why}); check --kafka and KAFKA_*"]
    return True, [
        f"kafka: {kafka.brokers} has no topic {topic}, or does not show it to this user; create it, or correct"
        " the route"
        for topic in plan.topics
        if topic not in topics
    ]


def _text(fault: KafkaException) -> str:
    error = fault.args[0]
    return error.str() if isinstance(error, KafkaError) else str(error)
