"""An engine in a process of its own: its side, ours, and what they say to each other."""
