"""What is found out about a server before the first request."""

from typing import Any

import pytest

from model.echo import ByteChatTokenizer
from model.engine import ChatTokenizer, EngineError, ModelNotFound
from model.openai.client import Client
from model.openai.estimate import EstimatingTokenizer
from model.openai.options import Options
from model.openai.probe import Server, look
from tests.model.openai.bad_server import BadServer, status
from tests.model.openai.wire import Reply, Request


async def looked_at(
    server: BadServer, tokenizer: ChatTokenizer | None = None, **options: Any
) -> Server:
    client = Client(server.address, api_key=None, connect=5.0)
    wanted = Options(endpoints=(server.address,), **options)
    try:
        return await look(client, wanted, tokenizer or ByteChatTokenizer())
    finally:
        await client.close()


def pages(server: BadServer, **other: Any) -> None:
    """Other pages than its own, by their names; None: there is none."""

    async def answer(request: Request, reply: Reply) -> None:
        name = request.path.strip("/").replace("/", "_").replace(".", "_")
        if name not in other:
            await server.echo(request, reply)
        elif other[name] is None:
            await reply.json({"detail": "Not Found"}, 404)
        else:
            await reply.json(other[name])

    server.fault_of_pages = answer


async def test_a_server_like_vllm() -> None:
    async with BadServer() as server:
        found = await looked_at(server)
    assert (found.dialect.kind, found.version, found.model) == ("vllm", "0.echo", "echo-model")
    assert found.by_ids
    assert found.path == "/v1/completions"
    assert found.gives == {"ids", "logprobs"}
    assert (found.context_length, found.vocabulary, found.slots) == (32768, 260, None)
    assert found.metrics
    assert found.counts is not None
    assert found.counts[0] == found.counts[1]


async def test_a_server_like_llama() -> None:
    entry = {"id": "m.gguf", "owned_by": "llamacpp", "meta": {"n_ctx": 512, "n_vocab": 260}}
    properties = {
        "total_slots": 4,
        "build_info": "b1",
        "bos_token": "<start>",
        "chat_template": "{{ '<turn>' }}",
    }
    async with BadServer() as server:
        pages(server, v1_models={"data": [entry]}, props=properties, tokenize=None)
        server.echo.model = "m.gguf"
        found = await looked_at(server)
    assert (found.dialect.kind, found.version, found.slots) == ("llama.cpp", "b1", 4)
    assert found.control_texts == {"<start>", "<turn>"}
    assert (found.context_length, found.vocabulary, found.counts) == (512, 260, None)


@pytest.mark.parametrize(
    ("paths", "kind"),
    [
        (["/load_model", "/v1/responses"], "transformers"),
        (["/version", "/tokenize"], "vllm"),
        (["/v1/models"], "other"),
    ],
)
async def test_who_does_not_say_its_name_is_told_by_its_pages(paths: list[str], kind: str) -> None:
    async with BadServer() as server:
        server.echo.owner = "somebody"
        pages(server, openapi_json={"paths": {path: {} for path in paths}})
        assert (await looked_at(server)).dialect.kind == kind
        assert (await looked_at(server, kind="sglang")).dialect.kind == "sglang"


async def test_transformers_serve_may_have_no_list_of_models() -> None:
    async with BadServer() as server:

        async def answer(request: Request, reply: Reply) -> None:
            if request.path == "/v1/models":
                await status(500)(request, reply)
            else:
                await reply.json({"paths": {"/load_model": {}, "/v1/responses": {}}})

        server.fault_of_pages = answer
        found = await looked_at(server, model="echo-model")
        assert found.dialect.kind == "transformers"
        assert found.names == {"echo-model", "echo-model@main"}
        with pytest.raises(ModelNotFound, match=r"Set model\.openai\.model"):
            await looked_at(server)


async def test_transformers_serve_is_the_same_when_its_cache_has_the_model() -> None:
    """Its list of models is that of the cache, and the first request fills it."""
    async with BadServer() as server:
        options: dict[str, Any] = {"model": "echo-model", "kind": "transformers"}
        pages(server, v1_models={"data": []})
        before = await looked_at(server, **options)
        pages(server, v1_models={"data": [{"id": "echo-model", "root": "here"}]})
        assert (await looked_at(server, **options)).fingerprint == before.fingerprint


async def test_one_of_several_models_has_to_be_named() -> None:
    async with BadServer() as server:
        pages(server, v1_models={"data": [{"id": "one"}, {"id": "echo-model"}]})
        with pytest.raises(ModelNotFound, match="echo-model, one"):
            await looked_at(server)
        with pytest.raises(ModelNotFound, match="no model 'three', but echo-model, one"):
            await looked_at(server, model="three")
        found = await looked_at(server, model="echo-model")
        assert found.model == "echo-model"
        assert found.others == {"one"}


async def test_a_tokenizer_that_is_not_the_models_is_told() -> None:
    async with BadServer() as server:
        pages(server, tokenize={"tokens": [1, 2, 3]})
        with pytest.raises(EngineError, match="is not that of echo-model"):
            await looked_at(server)
        found = await looked_at(server, EstimatingTokenizer())
        assert found.counts is not None
        assert found.counts[0] == 3
        assert not found.by_ids


async def test_a_server_that_reads_other_tokens_than_were_sent_gets_chats() -> None:
    async with BadServer() as server:
        server.echo.one_more = 1  # it puts a token of its own before the prompt
        assert not (await looked_at(server)).by_ids
        with pytest.raises(EngineError, match="takes no token ids"):
            await looked_at(server, way="tokens")


async def test_weights_that_differ_make_another_fingerprint() -> None:
    async with BadServer() as server:
        one = (await looked_at(server)).fingerprint
        entry = {"id": "echo-model", "root": "/models/echo", "meta": {"size": 7}}
        pages(server, v1_models={"data": [entry]})
        other = (await looked_at(server)).fingerprint
        again = (await looked_at(server)).fingerprint
    assert one != other == again
