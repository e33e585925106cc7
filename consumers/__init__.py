"""The Kafka runtime. It knows nothing of bots: a worker is given a handler."""
