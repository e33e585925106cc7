"""The bot's views: what it remembers, as tables made of topics."""
