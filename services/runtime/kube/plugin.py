"""Credentials from a program, which the `exec` section of a kubeconfig's user names.

Responsible for: running the program as client-go does, reading the ExecCredential that it prints, and its end: one that
hangs is killed when whoever waits for it gives up, with what it has started, unless it may talk to a user.
Source: Kubernetes docs, "client-go credential plugins".
Must not know: what the credentials are for, and for how long a program may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

_END_SECONDS: Final = 2.0


class PluginError(Exception):
    """The plugin cannot be run, has failed, or what it prints are no credentials."""


async def run(section: Mapping[str, Any]) -> dict[str, Any]:
    """Run the program of an `exec` section to its end; return the `status` of the ExecCredential that it prints.

    Raises PluginError, with what the program says on stderr, and OSError when there is no such program. Cancelled, it
    kills the program.
    """
    try:
        command, version = str(section["command"]), str(section["apiVersion"])
    except KeyError as error:
        raise PluginError(f"the exec section has no {error.args[0]}") from None
    # A user at a terminal may be asked for a password, for which a program must stay in the session of the terminal.
    interactive = sys.stdin is not None and sys.stdin.isatty()
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": interactive}}
    environment = {str(entry["name"]): str(entry["value"]) for entry in section.get("env") or ()}
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            command,
            *map(str, section.get("args") or ()),
            env={**os.environ, **environment, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()},
            stdin=None if interactive else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=not interactive,
        )
    )
    try:
        # A start that is cancelled half-way would wait for all that holds the pipes, which may be what hangs.
        process = await asyncio.shield(starting)
        printed, said = await process.communicate()
    except asyncio.CancelledError:
        await _kill(await starting, group=not interactive)
        raise
    if process.returncode:
        words = said.decode("utf-8", "replace").strip()
        raise PluginError(f"{command} ended with exit code {process.returncode}{words and f': {words}'}")
    return _status(command, version, printed)


def _status(command: str, version: str, printed: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(printed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PluginError(f"{command} printed no JSON: {error}") from error
    if not isinstance(answer, dict) or answer.get("apiVersion") != version:
        raise PluginError(f"{command} printed no ExecCredential of {version}")
    status = answer.get("status")
    if not isinstance(status, dict):
        raise PluginError(f"{command} printed an ExecCredential without a status")
    return status


async def _kill(process: Process, *, group: bool) -> None:
    """End a program, and see it and its pipes closed."""
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await process.communicate()
