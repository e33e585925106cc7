"""``bot.templates``: prompt files, faulty ones, and who gets the canary."""

import hashlib
import os
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app import run_worker
from bot.checks import check_prompts
from bot.settings import KafkaSettings, PromptsSettings, Settings
from bot.templates import (
    HERE,
    MAX_BYTES,
    PromptError,
    choose,
    every_prompt,
    find,
    in_share,
    listed,
    load_prompts,
    template_of,
)
from bot.values import Prompts
from tests.bot.make import direct, mention


def test_prompts_are_files_with_the_hash_of_their_bytes() -> None:
    prompts = load_prompts()
    for template in (prompts.mention, prompts.direct):
        file = resources.files("bot") / "prompts" / f"{template.name}.txt"
        data = file.read_bytes()
        assert template.hash == hashlib.sha256(data).hexdigest()
        assert template == template_of(template.name, data)
        assert len(template.text) < 400
    assert (prompts.canary_mention, prompts.canary_direct) == (None, None)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"You are \xff", "p.txt: not UTF-8 at byte 8."),
        (b" \n ", "p.txt: an empty prompt."),
        (b"x" * (MAX_BYTES + 1), "p.txt: a prompt of more than 65536 bytes."),
        (b"You are {bot}.\nCall {name}.", "p.txt: line 2 has {name}, and only {bot} is known."),
        ("Be\u202e kind".encode(), "p.txt: line 1 holds control or invisible characters."),
        (b"\xef\xbb\xbfBe kind", "p.txt: line 1 holds control or invisible characters."),
    ],
)
def test_a_faulty_file_says_what_and_where(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "p.txt").write_bytes(data)
    with pytest.raises(PromptError) as error:
        load_prompts(PromptsSettings(directory=tmp_path, mention="p"))
    assert str(error.value).startswith(f"{tmp_path}/{told}")
    assert error.value.todo


def test_braces_that_are_no_placeholders_stay() -> None:
    text = 'You are {bot}. JSON is {"a": 1}, {} and { b }.'
    assert template_of("p", text.encode()).text == text


def test_a_missing_prompt_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Be kind.")
    with pytest.raises(PromptError, match="choose one of: direct, mention, mine"):
        load_prompts(PromptsSettings(directory=tmp_path, direct="other"))
    with pytest.raises(PromptError, match="no such folder"):
        load_prompts(PromptsSettings(directory=tmp_path / "none"))


def test_config_check_tells_of_a_faulty_prompt(tmp_path: Path) -> None:
    (tmp_path / "mention.txt").write_text("You are {bto}.")
    check = check_prompts(Settings(prompts=PromptsSettings(directory=tmp_path)))
    assert not check.ok
    assert "{bto}" in check.found
    fine = check_prompts(Settings())
    assert fine.ok
    assert fine.found.startswith("mention ")


async def test_a_worker_with_a_faulty_prompt_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "direct.txt").write_bytes(b"\xff")
    settings = Settings(
        prompts=PromptsSettings(directory=tmp_path), kafka=KafkaSettings(bootstrap_servers="x:1")
    )
    with pytest.raises(PromptError, match="not UTF-8"):
        await run_worker(settings)


def test_ones_own_file_goes_first(tmp_path: Path) -> None:
    (tmp_path / "mention.txt").write_text("Be kind.\r\nBe short.\r\n")
    (tmp_path / "notes.md").write_text("{not} a prompt")
    prompts = load_prompts(PromptsSettings(directory=tmp_path))
    assert prompts.mention.text == "Be kind.\nBe short."
    assert prompts.direct == load_prompts().direct
    places = {file.template.name: file.place for file in every_prompt(tmp_path)}
    assert places == {"mention": str(tmp_path / "mention.txt"), "direct": HERE}
    assert find("mention", None).place == HERE


def test_only_files_are_prompts_and_a_faulty_one_stands_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    (tmp_path / "good.txt").write_text("Be kind.")
    told = {name: str(getattr(found, "place", found)) for name, found in listed(tmp_path)}
    assert told == {
        "bad": f"{tmp_path / 'bad.txt'}: not UTF-8 at byte 0. Save it as UTF-8.",
        "direct": HERE,
        "good": str(tmp_path / "good.txt"),
        "mention": HERE,
    }
    with pytest.raises(PromptError, match="choose one of: bad, direct, good, mention"):
        find("folder", tmp_path)


def test_a_file_is_read_no_further_than_a_prompt_may_be_long(tmp_path: Path) -> None:
    with (tmp_path / "long.txt").open("wb") as file:
        file.truncate(2**20)
    with pytest.raises(PromptError, match="more than 65536 bytes"):
        find("long", tmp_path)


@pytest.mark.parametrize("name", ["x" * 5_000, "y/" * 3_000, "a\0b", ""])
def test_what_can_be_no_files_name_is_no_prompt(tmp_path: Path, name: str) -> None:
    with pytest.raises(PromptError, match="there is no prompt called") as caught:
        find(name, tmp_path)
    assert len(str(caught.value)) < 700


def test_a_folder_that_cannot_be_looked_at_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(PromptError, match="cannot be read: Permission denied"):
        find("mention", tmp_path)
    with pytest.raises(PromptError, match="there is no such folder"):
        find("mention", Path("x" * 5_000))


def canaries(share: float) -> Prompts:
    own = load_prompts()
    return Prompts(
        mention=own.mention,
        direct=own.direct,
        canary_mention=own.direct,
        canary_mention_share=share,
        canary_direct=own.mention,
        canary_direct_share=share,
    )


def test_each_surface_has_its_prompt_and_its_canary() -> None:
    own = load_prompts()
    assert choose(own, mention()) == own.mention
    assert choose(own, direct()) == own.direct
    assert choose(canaries(1.0), mention()) == own.direct
    assert choose(canaries(1.0), direct()) == own.mention
    assert choose(canaries(0.0), mention()) == own.mention


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_conversation_that_has_the_canary_keeps_it(conversation: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert in_share(conversation, "new", high) or not in_share(conversation, "new", low)


def test_the_share_is_about_what_it_says_and_stable() -> None:
    chosen = [n for n in range(10_000) if in_share(f"conv-{n}", "new", 0.1)]
    assert 900 < len(chosen) < 1100
    assert chosen == [n for n in range(10_000) if in_share(f"conv-{n}", "new", 0.1)]
    other = [n for n in range(10_000) if in_share(f"conv-{n}", "other", 0.1)]
    assert chosen != other
    assert in_share("c", "new", 1.0)
    assert not in_share("c", "new", 0.0)
