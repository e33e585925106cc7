# mypy: ignore-errors
"""llama.cpp (``xllamacpp``): its server in this process, asked from as many threads as there are
replies in flight. Orders and answers as in ``tests.bench.programs.motor``.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import xllamacpp

SPEC = json.loads(sys.argv[1])


def tell(event, **news):
    print(json.dumps({"event": event, **news}), flush=True)


def parameters():
    made = xllamacpp.CommonParams()
    made.model.path = SPEC["gguf"]
    made.n_parallel = SPEC["slots"]
    made.n_ctx = SPEC["slots"] * SPEC["context"]
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = SPEC["threads"]
    made.kv_unified = SPEC["kv_unified"]
    if not SPEC["flash"]:
        made.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    made.verbosity = 0
    return made


def answer(server, order):
    def one(ids):
        asked = {"prompt": ids, "n_predict": order["tokens"], "temperature": 0.0}
        found = server.handle_completions({**asked, "cache_prompt": True})
        usage = found["usage"]
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return usage["completion_tokens"], found["timings"]["prompt_ms"] / 1000, cached

    before, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(order["in_flight"]) as pool:
        made = list(pool.map(one, order["prompts"]))
    return {
        "seconds": time.perf_counter() - before,
        "processor_s": time.process_time() - processor,
        "lengths": [length for length, _, _ in made],
        "first_token_s": [first for _, first, _ in made],
        "cached_tokens": sum(cached for _, _, cached in made),
    }


started = time.monotonic()
server = xllamacpp.Server(parameters())
tell("ready", seconds=time.monotonic() - started)
for line in sys.stdin:
    tell("done", **answer(server, json.loads(line)))
os._exit(0)  # its threads would be waited for
