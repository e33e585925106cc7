"""What Twite stands on: a broker for development and tests, topics, images."""
