"""An Azure Functions host for one machine: Kafka and timer triggers, with the semantics of the real one."""
