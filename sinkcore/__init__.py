"""What runs in production: batches of Kafka records become blobs that are queued for ingestion into ADX."""
