"""llama.cpp's own server, by the package xllamacpp, as a process: ``python llama.py GGUF SLOTS``.

Runs in a venv of its own and knows nothing of this project. Prints its port; ends with its standard
input, so that it never outlives the test.
"""

import sys

import xllamacpp  # type: ignore[import-not-found]  # it is in the venv that runs this

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = int(sys.argv[2])
params.n_ctx = 2048 * params.n_parallel
params.endpoint_metrics = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("port", server.listening_address.rsplit(":", 1)[1], flush=True)
sys.stdin.read()
