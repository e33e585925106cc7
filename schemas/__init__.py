"""The event vocabulary: what travels on the topics, and nothing about how it gets there."""
