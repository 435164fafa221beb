"""The process that imports the app and runs its functions; it never talks to Kafka."""
