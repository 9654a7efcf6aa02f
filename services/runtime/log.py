"""Structured logs: a constant message and key=value fields, as JSON or as text, over the standard library's logging.

Responsible for: the logger API of all services, the fields that follow a task (`reconcileID` and the like, through
contextvars), the two formats, and what must never reach a log.

Invariants: one record is one line, whatever the values hold. Messages are constant, so that they can be searched and
counted; everything that varies is a field. The JSON keys are those of controller-runtime's production logs: level,
ts (RFC 3339, UTC, milliseconds), logger, msg, error, stacktrace. Kubernetes objects are logged as their kind and name,
never with their content, bytes as their length, and fields whose name says that they carry a credential not at all.

Must not know: Kubernetes, any service.
"""

import contextlib
import contextvars
import enum
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Literal, TextIO

import msgspec

__all__ = ["Format", "Logger", "bound", "configure", "get", "set_context"]

Format = Literal["json", "text"]
Fields = Mapping[str, object]

_EMPTY: Final[Fields] = MappingProxyType({})
_CONTEXT: contextvars.ContextVar[Fields] = contextvars.ContextVar("log_fields", default=_EMPTY)
_EXTRA: Final = "groundwork_fields"  # the attribute of a LogRecord that carries the fields
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "credentials", "password", "passwd", "privatekey", "token"})
_MAX_TEXT: Final = 4096  # characters of one value: an API server may answer with a page of HTML
_MAX_STACK: Final = 16384


class Logger:
    """A named logger. The message is constant; what varies goes into keyword fields.

    An exception passed as `error=` is logged as its type and text. `exception()` is `error()` plus the traceback of
    the exception being handled.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, /, **fields: object) -> None:
        """Log what only somebody who debugs the service wants to see."""
        self._emit(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Log a normal event that is worth a line."""
        self._emit(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Log what the service copes with but an administrator may want to know."""
        self._emit(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Log a failure."""
        self._emit(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """Log a failure with the traceback of the exception being handled."""
        self._emit(logging.ERROR, message, fields, exc_info=True)

    def log(self, level: int, message: str, /, **fields: object) -> None:
        """Log at a level (of `logging`) that is known only at run time."""
        self._emit(level, message, fields)

    def enabled(self, level: int) -> bool:
        """Return whether a record of this level would be written."""
        return self._logger.isEnabledFor(level)

    def _emit(self, level: int, message: str, fields: Fields, *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            context = _CONTEXT.get()
            merged = {**context, **fields} if context else fields
            self._logger.log(level, message, exc_info=exc_info, extra={_EXTRA: merged})


def get(name: str) -> Logger:
    """Return the logger of a component; names are dotted words, not module paths (`ipam.allocator`)."""
    return Logger(logging.getLogger(name))


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every record that is logged inside the block, in this task and in tasks started from it."""
    token = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def set_context(fields: Fields) -> None:
    """Replace the fields of the current task; for loops that own their task, where `bound` would cost too much.

    Values are turned into text when something is logged, not before.
    """
    _CONTEXT.set(fields)


def configure(level: str = "info", format_: Format = "json", stream: TextIO | None = None) -> None:
    """Send all records of the process, those of libraries included, to `stream` (default: stderr) in one format.

    `level` is debug, info, warning or error. Replaces earlier handlers.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if format_ == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # Libraries log bodies and connection details at DEBUG; ours are the debug records that were asked for.
    for library in ("aiohttp", "asyncio", "kubernetes_asyncio", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


class JSONFormatter(logging.Formatter):
    """One JSON object per record."""

    def __init__(self) -> None:
        super().__init__()
        self._encode = msgspec.json.Encoder().encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without its line end."""
        # The core keys come first in the line and win, so that a field named "msg" cannot replace the message.
        core: dict[str, object] = {
            "level": record.levelname.lower(),
            "ts": _timestamp(record.created),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line = {**core, **_fields(record), **core}
        if stack := _stack(record):
            line["stacktrace"] = stack
        try:
            return self._encode(line).decode()
        except (UnicodeEncodeError, OverflowError):  # a lone surrogate, an integer beyond 64 bits
            return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Lines for a person: time, level, logger, message, key=value pairs; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text; several lines only when it carries a traceback."""
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        message = _one_line(record.getMessage())
        line = f"{_timestamp(record.created)} {record.levelname:<7} {record.name}: {message}{pairs}"
        stack = _stack(record)
        return f"{line}\n{stack}" if stack else line


def _timestamp(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(created * 1000) % 1000:03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: Fields = getattr(record, _EXTRA, _EMPTY)
    return {name: _shown(name, value) for name, value in fields.items()}


def _plain(value: object) -> object:
    """Turn a field value into something that JSON has and that is safe to show."""
    match value:
        case None | bool() | int() | float():
            return value
        case enum.Enum():
            return _plain(value.value)
        case Mapping():
            return {str(name): _shown(str(name), item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset() if not hasattr(value, "_fields"):
            # A named tuple is one value, not a list: an object key prints as namespace/name.
            return [_plain(item) for item in value]
        case _:
            return _cut(_text(value), _MAX_TEXT)


def _text(value: object) -> str:
    match value:
        case BaseException():
            text = str(value)
            return f"{type(value).__name__}: {text}" if text else type(value).__name__
        case bytes() | bytearray() | memoryview() | msgspec.Raw():
            return f"<{memoryview(value).nbytes} bytes>"
        case msgspec.Struct():
            return _name_of(value)
        case _:
            return str(value)


def _shown(name: str, value: object) -> object:
    folded = name.lower().replace("_", "").replace("-", "")
    hidden = folded in _CREDENTIALS or folded.endswith(("password", "token"))
    return "[redacted]" if hidden else _plain(value)


def _name_of(struct: msgspec.Struct) -> str:
    """Name a Kubernetes object without its content, which may be a Secret's."""
    kind = getattr(struct, "kind", "") or type(struct).__name__
    key = getattr(struct, "key", None)
    return f"{kind} {key}" if key is not None else str(kind)


def _stack(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return _cut("".join(traceback.format_exception(*record.exc_info)).rstrip(), _MAX_STACK)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _quoted(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and not any(mark in value for mark in ' "='):
        return value
    return json.dumps(value)  # escapes everything that could start a new line or steer a terminal


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
