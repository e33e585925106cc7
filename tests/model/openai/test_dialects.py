"""One sampling in the words of each kind of server."""

import json

import pytest

from model.engine import Sampling
from model.openai.dialects import DIALECTS, SEEDS, cannot, sampling_words, tokenize_body

FULL = Sampling(
    max_tokens=50, temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1, seed=7
)
COMMON = {"max_tokens": 50, "temperature": 0.7, "top_p": 0.9, "seed": 7}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_vllm_and_sglang_use_our_names(kind: str) -> None:
    words = sampling_words(DIALECTS[kind], FULL, 100)
    assert words == {**COMMON, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}
    assert sampling_words(DIALECTS[kind], Sampling(), 100)["top_k"] == -1  # off


def test_llama_has_a_name_and_an_order_of_its_own() -> None:
    words = sampling_words(DIALECTS["llama.cpp"], FULL, 100)
    assert words.items() >= {**COMMON, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1}.items()
    assert words["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    off = sampling_words(DIALECTS["llama.cpp"], Sampling(), 100)
    assert (off["top_k"], off["min_p"], off["repeat_penalty"]) == (0, 0.0, 1.0)  # not its defaults


def test_transformers_serve_takes_json_in_json_and_is_told_to_draw() -> None:
    words = sampling_words(DIALECTS["transformers"], FULL, 100)
    config = json.loads(words.pop("generation_config"))
    assert words == COMMON
    assert config == {"do_sample": True, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}
    greedy = sampling_words(DIALECTS["transformers"], Sampling(), 100)
    assert json.loads(greedy["generation_config"])["do_sample"] is False


def test_another_server_gets_the_protocol_alone_and_the_rest_is_named() -> None:
    assert sampling_words(DIALECTS["other"], FULL, 100) == COMMON
    assert cannot(DIALECTS["other"], FULL) == ("top_k", "min_p", "repetition_penalty")
    assert cannot(DIALECTS["other"], Sampling(temperature=1.0, top_p=0.5)) == ()
    assert cannot(DIALECTS["vllm"], FULL) == ()


@pytest.mark.parametrize("kind", DIALECTS)
def test_room_and_seeds_are_kept_in_their_bounds(kind: str) -> None:
    words = sampling_words(DIALECTS[kind], Sampling(max_tokens=1000, seed=2**53 - 1), 12)
    assert words["max_tokens"] == 12
    assert 0 <= words["seed"] < SEEDS
    assert "stop" not in words


def test_text_goes_to_a_tokenizer_without_special_tokens() -> None:
    assert tokenize_body(DIALECTS["llama.cpp"], "m", "x")["parse_special"] is False
    assert tokenize_body(DIALECTS["vllm"], "m", "x")["add_special_tokens"] is False
