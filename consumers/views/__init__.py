"""Views: what is remembered of topics, in SQLite files that can always be built again."""
