"""Prompt files: found, checked, chosen.

The settings come in, ``Prompts`` goes out: the template of each surface and its canary. A file is
``NAME.txt``, UTF-8, in which ``{bot}`` stands for the bot's name; one of the operator's own folder
(``prompts.directory``) goes before one that comes with Twite. Guaranteed: a faulty file is refused
when a worker starts, with what is wrong and where; a template is known by the sha256 of its
file's bytes; which conversations get a canary depends on nothing but their id, so a growing
share keeps those that have it. Next: ``bot/prompt.py``.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import regex

from bot.errors import Trouble
from bot.files import read_regular
from bot.settings import PromptsSettings
from bot.text import safe
from bot.values import Prompts, Question, Template, conversation_of
from schemas.feed import MentionCreated

SUFFIX = ".txt"
MAX_BYTES = 64 * 1024
SHOWN = 200  # characters of a name or path that are told
BOT = "{bot}"
HERE = "comes with Twite"

_PLACEHOLDER = regex.compile(r"\{[A-Za-z_]\w*\}")
_WHOLE = 2**64
_PACKAGED: Traversable = resources.files("bot") / "prompts"


class PromptError(Trouble):
    """A prompt file that cannot be used; ``where`` names it."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt that can be chosen, and where it is: a path, or ``HERE``."""

    template: Template
    place: str

    @property
    def is_own(self) -> bool:
        """Whether it is the operator's, not one that comes with Twite."""
        return self.place != HERE


def chosen(settings: PromptsSettings) -> list[PromptFile]:
    """The files that the settings choose, each once. Raises ``PromptError``."""
    names = (settings.mention, settings.direct, settings.canary_mention, settings.canary_direct)
    return [find(name, settings.directory) for name in dict.fromkeys(filter(None, names))]


def load_prompts(settings: PromptsSettings | None = None) -> Prompts:
    """The prompts that the settings choose. Raises ``PromptError``."""
    settings = settings or PromptsSettings()

    def load(name: str | None) -> Template | None:
        return find(name, settings.directory).template if name else None

    return Prompts(
        mention=find(settings.mention, settings.directory).template,
        direct=find(settings.direct, settings.directory).template,
        canary_mention=load(settings.canary_mention),
        canary_mention_share=settings.canary_mention_share,
        canary_direct=load(settings.canary_direct),
        canary_direct_share=settings.canary_direct_share,
        language=settings.language,
        language_hint=settings.language_hint,
    )


def choose(prompts: Prompts, question: Question) -> Template:
    """The template for a question: that of its surface, or the canary's where its conversation
    is among those that get it."""
    conversation = conversation_of(question)
    if isinstance(question, MentionCreated):
        plain, canary, share = prompts.mention, prompts.canary_mention, prompts.canary_mention_share
    else:
        plain, canary, share = prompts.direct, prompts.canary_direct, prompts.canary_direct_share
    return canary if canary and in_share(conversation, canary.name, share) else plain


def in_share(conversation_id: str, canary: str, share: float) -> bool:
    """Whether a conversation is among the ``share`` (0 to 1) of all that get a canary."""
    digest = hashlib.sha256(f"{canary}\n{conversation_id}".encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8]) < share * _WHOLE


def find(name: str, directory: Path | None) -> PromptFile:
    """The prompt called ``name``. Raises ``PromptError`` where there is none, or a faulty one."""
    for folder in _folders(directory):
        file = folder / f"{name}{SUFFIX}"
        if _is_file(file):
            return _read(name, file, HERE if folder is _PACKAGED else str(file))
    known = ", ".join(sorted(set(_names(directory))))
    file_name = f"{short(name)}{SUFFIX}"
    put = f"Put {file_name} there" if directory else f"Set it to one that has {file_name}"
    raise PromptError(
        f"there is no prompt called {short(name)!r}.",
        where=f"prompts.directory, which is {directory or 'not set'}",
        todo=f"{put}, or choose one of: {known}.",
    )


def every_prompt(directory: Path | None) -> list[PromptFile]:
    """All that can be chosen, by name. Raises ``PromptError`` at the first faulty one."""
    return [find(name, directory) for name in sorted(set(_names(directory)))]


def listed(directory: Path | None) -> "list[tuple[str, PromptFile | PromptError]]":
    """The same with what is wrong with the faulty ones, each with its name. Raises
    ``PromptError`` where the folder can't be read."""
    return [(name, _found(name, directory)) for name in sorted(set(_names(directory)))]


def _found(name: str, directory: Path | None) -> "PromptFile | PromptError":
    try:
        return find(name, directory)
    except PromptError as error:
        return error


def short(text: str) -> str:
    """The beginning of a name or path that may be of any length."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def template_of(name: str, data: bytes, where: str | None = None) -> Template:
    """A template from the bytes of its file. Raises ``PromptError``."""
    place = where or name
    if len(data) > MAX_BYTES:
        raise PromptError(
            f"a prompt of more than {MAX_BYTES} bytes.", where=place, todo="Make it shorter."
        )
    try:
        text = data.decode().replace("\r\n", "\n").strip()
    except UnicodeDecodeError as error:
        raise PromptError(
            f"not UTF-8 at byte {error.start}.", where=place, todo="Save it as UTF-8."
        ) from None
    for problem in _problems(text):
        raise PromptError(problem, where=place, todo="Mend that line.")
    if not text:
        raise PromptError("an empty prompt.", where=place, todo="Write what the bot is to do.")
    return Template(name, text, hashlib.sha256(data).hexdigest())


def _problems(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if safe(line) != line:
            yield f"line {number} holds control or invisible characters."
        unknown = [found for found in _PLACEHOLDER.findall(line) if found != BOT]
        if unknown:
            yield f"line {number} has {unknown[0]}, and only {BOT} is known."


def _read(name: str, file: Traversable | Path, place: str) -> PromptFile:
    try:
        data = read_regular(file, MAX_BYTES + 1) if isinstance(file, Path) else file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from None
    return PromptFile(template_of(name, data, str(file)), place)


def _is_file(file: Traversable | Path) -> bool:
    """Whether it is a regular file. Raises ``PromptError`` where that can't be told."""
    try:
        return file.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise _unreadable(file, error) from None


def _unreadable(file: Traversable | Path, error: OSError) -> PromptError:
    what, todo = f"cannot be read: {error.strerror}.", "Let this user read it."
    return PromptError(what, where=short(str(file)), todo=todo)


def _folders(directory: Path | None) -> Iterator[Traversable | Path]:
    if directory is not None:
        if not _is_folder(directory):
            what, todo = "there is no such folder.", "Set prompts.directory to one."
            raise PromptError(what, where=short(str(directory)), todo=todo)
        yield directory
    yield _PACKAGED


def _is_folder(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except OSError:  # a path that is too long, or leads through what this user can't see
        return False


def _names(directory: Path | None) -> Iterator[str]:
    for folder in _folders(directory):
        for file in _content(folder):
            is_one = file.name.endswith(SUFFIX) and not file.name.startswith(".")
            if is_one and _is_file(file):
                yield file.name.removesuffix(SUFFIX)


def _content(folder: Traversable | Path) -> "list[Traversable | Path]":
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from None
