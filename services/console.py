"""What the subcommands of `groundwork` share as processes: exit codes, one-line errors, progress.

Responsible for: running a command so that everything a user can meet ends in one line on stderr that says what to do,
and in a documented exit code.
Invariants: stdout carries the answer and nothing else, so that it can be piped. Progress goes to stderr, after two
seconds where a person watches and only now and then where nobody does.
Must not know: any subcommand.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

import msgspec

from services.runtime.kube import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OK = 0
FOUND = 1
"""The command did its work and found something that needs attention."""
UNUSABLE = 2
"""The command could not do its work: bad flags, no cluster, no permission."""
INTERRUPTED = 130
BROKEN_PIPE = 141

_TERMINAL_AFTER = 2.0
_TERMINAL_EVERY = 0.5
_LOG_EVERY = 10.0
_CLEAR_LINE = "\r\x1b[K"


PROGRAM = "groundwork"
PLUGIN = "kubectl-groundwork"
"""What the command is called as a plugin of kubectl, which then is a part of its name for users."""

COMPLETER = "completer"
"""Attribute of an argparse action that says what its values are the names of."""


class UnusableError(Exception):
    """The command cannot do its work; the message is one line that says why and what to do."""


class CommandLine(argparse.ArgumentParser):
    """A parser whose complaints are one line; its subparsers are of this class too."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        groups = self._subparsers._group_actions if self._subparsers is not None else ()  # noqa: SLF001 - argparse has no public way to read a parser
        if message.endswith("required: COMMAND") and groups:
            message = f"no COMMAND: use one of {', '.join(groups[0].choices or ())}"
        raise UnusableError(f"{message} (see {self.prog} --help)")


def run(parser: CommandLine, arguments: Sequence[str]) -> int:
    """Parse, run the coroutine function that the chosen subparser has as its default `work`, return the exit code."""
    try:
        options = parser.parse_args(arguments)
        code: int = asyncio.run(options.work(options))
        sys.stdout.flush()
    except (UnusableError, errors.KubeError, msgspec.DecodeError) as error:
        sys.stderr.write(f"{parser.prog}: {explain(error)}\n")
        return UNUSABLE
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout at its end, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def explain(error: Exception) -> str:
    """One line for a failure: what happened and what to do about it."""
    text = " ".join(str(error).split())
    match error:
        case errors.ConfigError():
            return f"{text}: give --kubeconfig PATH or set KUBECONFIG"
        case errors.Unauthorized():
            return f"the API server refuses the credentials ({text}): renew the kubeconfig"
        case errors.Forbidden():
            return f"not permitted ({text}): ask for a role that allows it"
        case msgspec.ValidationError():
            return f"an object does not have the shape of its definition ({text}): install this version's deploy/crds"
        case errors.Unreadable() | msgspec.DecodeError():
            return f"what answers is no API server ({text}): is there a proxy or a login page before it?"
        case errors.ConnectionFailed():
            return f"cannot reach the API server ({text}): check that it is up and that the kubeconfig names it"
        case errors.ApiError():
            return f"the API server answers {text}"
        case _:
            return text


def program() -> str:
    """Return what the user calls this command: `groundwork`, or `kubectl groundwork` when kubectl started it."""
    return f"kubectl {PROGRAM}" if Path(sys.argv[0]).name == PLUGIN else PROGRAM


def complete_with(action: argparse.Action, names: str) -> argparse.Action:
    """Say what the values of a flag are the names of, for shells that complete them."""
    setattr(action, COMPLETER, names)
    return action


def version() -> str:
    """Version of the installed distribution."""
    try:
        return importlib.metadata.version("groundwork")
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"


class Progress:
    """Says on stderr what takes long; a context manager around the work.

    `step` names what is being done now, `advance` counts in it. A terminal gets one line that changes, anything else a
    line every ten seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._started = clock()
        self._label = ""
        self._done = 0
        self._total = 0
        self._shown = False
        self._next = self._started + (_TERMINAL_AFTER if self._terminal else _LOG_EVERY)
        self._finished = threading.Event()
        self._writing = threading.Lock()
        # A thread, because long work may be the event loop's own (sorting, YAML).
        self._thread = threading.Thread(target=self._tick_until_finished, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()
        self._clear()

    def _clear(self) -> None:
        if self._shown and self._terminal:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Write nothing while a person is asked, which would be written over."""
        with self._writing:
            self._clear()
            yield

    def step(self, label: str, total: int = 0) -> None:
        """Name what is done from now on, and of how many pieces it consists when that is known."""
        self._label, self._done, self._total = label, 0, total

    def advance(self) -> None:
        """Count one piece of the current step."""
        self._done += 1

    def tick(self) -> None:
        """Show the state if it is time to."""
        now = self._clock()
        if now < self._next or not self._writing.acquire(blocking=False):
            return
        try:
            self._show(now)
        finally:
            self._writing.release()

    def _show(self, now: float) -> None:
        counted = f" {self._done}/{self._total}" if self._total else ""
        line = f"{self._label}{counted} ({now - self._started:.0f} s)"
        self._stream.write(f"{_CLEAR_LINE}{line}" if self._terminal else f"{line}\n")
        self._stream.flush()
        self._shown = True
        self._next = now + (_TERMINAL_EVERY if self._terminal else _LOG_EVERY)

    def _tick_until_finished(self) -> None:
        while not self._finished.wait(_TERMINAL_EVERY):
            self.tick()
