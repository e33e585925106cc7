"""``python -m bot.cli`` is the ``twite`` command."""

from bot.cli import main

main()
