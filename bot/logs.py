"""Logging of a worker: structlog to standard error, as JSON lines or pretty at a terminal.

The logs of libraries go the same way. What people wrote is in no log line: ours carry places
and digests only, of libraries only warnings are kept, and exceptions are told without what
they were raised about: a traceback has no local variables, and a ``UnicodeError`` or a
``ValidationError``, whose text or ``repr`` holds its input, gives its kind and place only.
"""

import logging
import sys
import traceback
from collections.abc import Iterator

import regex
import structlog
from pydantic import ValidationError

from bot.settings import LoggingSettings

_REPR = regex.compile(r"\b(Unicode(?:De|En|Translate)\w*Error)\(.*", regex.DOTALL)


def configure_logging(settings: LoggingSettings) -> None:
    """Set up structlog and the standard library's logging for this process."""
    pretty = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    _route(_renderers(pretty), shared, level)


def told(error: BaseException) -> str:
    """An exception in a line, without the text that it was raised about."""
    name = type(error).__name__
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError | UnicodeTranslateError):
        return f"{name}: {error.reason}, position {error.start} to {error.end}"
    if isinstance(error, ValidationError):
        kinds = ", ".join(sorted({str(item["type"]) for item in error.errors()}))
        return f"{name}: {error.error_count()} errors in {error.title} ({kinds})"
    words = _without_input(str(error))
    return f"{name}: {words}" if words else name


def without_input(
    logger: object, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor: exceptions as ``told``, in values and as a traceback."""
    error = _raised(line.pop("exc_info", None))
    if error is not None:
        line["exception"] = "\n".join(_traceback(error, set()))
    for name, value in line.items():
        if isinstance(value, BaseException):
            line[name] = told(value)
        elif isinstance(value, str):
            line[name] = _without_input(value)
    return line


def _without_input(text: str) -> str:
    """``text`` without what the ``repr`` of a ``UnicodeError`` says of its input."""
    return _REPR.sub(r"\1(…)", text) if "Unicode" in text else text


def _raised(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _traceback(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Places in the code and ``told``, first what led to the exception."""
    seen.add(id(error))
    hidden = None if error.__suppress_context__ else error.__context__
    before = error.__cause__ or hidden
    if before is not None and id(before) not in seen:
        yield from _traceback(before, seen)
        yield "which led to:"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield told(error)
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(inner) not in seen:
            yield "which holds:"
            yield from _traceback(inner, seen)


def _renderers(pretty: bool) -> list[structlog.typing.Processor]:
    if pretty:
        plain = structlog.dev.plain_traceback  # the other one shows local variables
        return [without_input, structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    return [without_input, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _route(
    renderers: list[structlog.typing.Processor],
    shared: list[structlog.typing.Processor],
    level: int,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for room in ("bot", "consumers", "model", "infra", "schemas"):
        logging.getLogger(room).setLevel(level)
