"""What servers answer, as values; anything else is a fault, never a crash."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import EngineError
from model.openai.answers import Piece, ids_of, metric, piece_of, served_by
from model.openai.errors import ServerFaulty

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["text", "delta", "message", "content", "token_ids", "logprobs", "finish_reason", "tokens",
     "token_logprobs", "id", "logprob", "usage", "prompt_tokens", "prompt_tokens_details"]
)  # fmt: skip
ODD = st.dictionaries(FIELDS, st.one_of(JSON, st.dictionaries(FIELDS, JSON, max_size=3)))


def of(choice: dict[str, Any], **more: Any) -> Piece:
    return piece_of("there", {"model": "m", "choices": [choice], **more})


@given(JSON)
def test_anything_at_all_is_a_piece_or_a_named_fault(answer: Any) -> None:
    try:
        found: Piece | EngineError = piece_of("there", answer)
    except EngineError as error:
        found = error
    assert isinstance(found, Piece) or str(found).startswith("there ")


@given(ODD, ODD)
def test_odd_choices_are_pieces_or_named_faults(choice: Any, usage: Any) -> None:
    try:
        piece = of(choice, usage=usage)
    except EngineError:
        return
    assert isinstance(piece.text, str)
    assert all(logprob <= 0 for logprob in piece.logprobs)
    assert piece.prompt_tokens >= 0


def test_vllm_tells_ids_beside_and_log_probabilities_in_the_old_way() -> None:
    piece = of(
        {
            "text": " Paris",
            "token_ids": [7042],
            "logprobs": {"tokens": [" Paris"], "token_logprobs": [-0.03]},
            "finish_reason": None,
        }
    )
    assert piece == Piece(" Paris", (7042,), (-0.03,), None, "m")
    named = of({"text": "a", "logprobs": {"tokens": ["token_id:5"], "token_logprobs": [-1]}})
    assert named.ids == (5,)


def test_llama_tells_them_together() -> None:
    piece = of(
        {
            "text": " Paris",
            "logprobs": {"content": [{"id": 7042, "token": " Paris", "logprob": -0.03}]},
            "finish_reason": "stop",
        },
        usage={
            "prompt_tokens": 16,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 15},
        },
    )
    assert piece == Piece(" Paris", (7042,), (-0.03,), "stop", "m", 16, 15, 8)


def test_a_chat_tells_its_text_in_pieces_or_whole() -> None:
    assert of({"delta": {"role": "assistant", "content": None}}).text == ""
    assert of({"delta": {"content": "a"}}).text == "a"
    assert of({"message": {"content": "b"}, "finish_reason": "length"}).finish == "length"
    assert of({"delta": {"reasoning_content": "hm"}}).text == ""  # is not the answer


def test_what_is_no_number_is_left_out() -> None:
    for values in ([None], ["x"], [float("inf")], [float("nan")]):
        logprobs = {"tokens": ["a"], "token_logprobs": values}
        assert of({"text": "a", "logprobs": logprobs}).logprobs == ()
    assert of({"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [1e-7]}}).logprobs == (
        0.0,
    )
    for ids in ([True], [-1], ["1"], "1", {"a": 1}):
        assert of({"text": "a", "token_ids": ids}).ids is None


@pytest.mark.parametrize("answer", [None, [], {}, {"choices": {}}, {"choices": [1]}])
def test_what_is_not_the_protocol_is_a_fault(answer: Any) -> None:
    with pytest.raises(ServerFaulty, match="not OpenAI's protocol"):
        piece_of("there", answer)


def test_models_with_their_other_names_and_facts() -> None:
    vllm, llama = served_by(
        "there",
        {
            "data": [
                {"id": "a", "owned_by": "vllm", "root": "/models/a", "max_model_len": 4096},
                {
                    "id": "b",
                    "aliases": ["b", "c"],
                    "meta": {"n_ctx": 2048, "n_vocab": 9, "size": 1},
                },
                {"object": "model"},
                "odd",
            ]
        },
    )
    assert (vllm.names, vllm.context_length, vllm.root) == (("a",), 4096, "/models/a")
    assert (llama.names, llama.context_length, llama.vocabulary) == (("b", "c"), 2048, 9)
    assert dict(llama.facts) == {"n_vocab": "9", "size": "1"}
    with pytest.raises(ServerFaulty, match="no list of models"):
        served_by("there", {"object": "list"})


def test_a_metric_is_summed_over_its_labels() -> None:
    page = (
        "# HELP vllm:num_requests_waiting Number of requests waiting\n"
        'vllm:num_requests_waiting{model_name="a"} 3.0\n'
        'vllm:num_requests_waiting{model_name="b"} 2\n'
        'vllm:num_requests_waiting_by_reason{reason="x"} 9\n'
        "llamacpp:requests_deferred 4\n"
    )
    assert metric(page, "vllm:num_requests_waiting") == 5
    assert metric(page, "llamacpp:requests_deferred") == 4
    assert metric(page, "nothing") is None
    assert metric("odd eee", "odd") is None


def test_ids_of_a_tokenizer() -> None:
    assert ids_of("there", {"tokens": [1, 2]}) == [1, 2]
    odds: list[Any] = [{}, [], {"tokens": ["a"]}, {"tokens": None}]
    for odd in odds:
        with pytest.raises(ServerFaulty):
            ids_of("there", odd)
