"""What runs in production: batches of Kafka records become blobs queued for ingestion into ADX, exactly once."""
