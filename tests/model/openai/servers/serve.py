"""``transformers serve`` as a process: ``python serve.py FOLDER PORT``.

Runs in a venv of its own, with the libraries of ours. Ends with its standard input, so that it
never outlives the test.
"""

import os
import sys
import threading

from transformers.cli.transformers import main


def end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_standard_input, daemon=True).start()
sys.argv = ["transformers", "serve", sys.argv[1], "--port", sys.argv[2], "--device", "cpu"]
sys.argv += ["--host", "127.0.0.1"]
main()
