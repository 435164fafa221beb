"""Kafka, Azurite, an ADX double and a Functions host for one machine; never published."""
