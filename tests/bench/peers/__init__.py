"""Programs of other frameworks that do what P2's worker does, each in a venv of its own.

Nothing here imports the project, and the project never imports what these need. Settings are
the best that were found for each (see P2's table for what they promise in return).
"""
