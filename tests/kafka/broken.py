"""A record that Kafka's own clients refuse to write, written past them by librdkafka's C interface."""

from __future__ import annotations

import ctypes

import confluent_kafka.cimpl

PRODUCER = 0
FLUSH_MS = 20_000
ERROR_BYTES = 512
COPY = 2  # RD_KAFKA_MSG_F_COPY
# Tags of rd_kafka_producev's arguments, from rdkafka.h.
END, TOPIC, PARTITION, VALUE, FLAGS, HEADERS = 0, 1, 3, 4, 7, 10


def produce_with_broken_header(bootstrap: str, topic: str, value: bytes) -> None:
    """A record is in partition 0 that has a header whose name is not UTF-8.

    Source: brokers look into headers as little as they do into values.
    """
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, size]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, size]
    library.rd_kafka_headers_new.restype = pointer
    library.rd_kafka_headers_new.argtypes = [size]
    library.rd_kafka_header_add.argtypes = [pointer, text, ctypes.c_ssize_t, text, ctypes.c_ssize_t]
    library.rd_kafka_flush.argtypes = [pointer, number]
    library.rd_kafka_destroy.argtypes = [pointer]

    error = ctypes.create_string_buffer(ERROR_BYTES)
    config = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(config, b"bootstrap.servers", bootstrap.encode(), error, ERROR_BYTES)
    client = library.rd_kafka_new(PRODUCER, config, error, ERROR_BYTES)
    headers = library.rd_kafka_headers_new(2)
    for name in (b"\xff\xfe", b"fine"):
        library.rd_kafka_header_add(headers, name, len(name), b"v", 1)
    place = (number(TOPIC), text(topic.encode()), number(PARTITION), ctypes.c_int32(0))
    body = (number(VALUE), text(value), size(len(value)), number(FLAGS), number(COPY))
    refused = library.rd_kafka_producev(
        pointer(client), *place, *body, number(HEADERS), pointer(headers), number(END)
    )
    left = library.rd_kafka_flush(client, FLUSH_MS)
    library.rd_kafka_destroy(client)
    assert (refused, left) == (0, 0)
