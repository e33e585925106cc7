"""Why the bot said this, or did not, from what stands on the log."""
