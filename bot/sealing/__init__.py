"""Sealing the audit: a chain of digests behind the log, and the proof that nothing changed."""
