"""The command as it is installed, and a real bash at a terminal that completes it.

Invariant: bash reads no start-up file, so that what it completes comes from the script under test alone.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
_SCRIPTS = {
    "groundwork": "services.cli:main",
    "kubectl-groundwork": "services.cli:main",
    "kubectl_complete-groundwork": "services.completion.command:kubectl",
}


def install(folder):
    """Write the console scripts as an installation does, and return the folder."""
    folder.mkdir(exist_ok=True)
    for name, entry in _SCRIPTS.items():
        module, function = entry.split(":")
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from {module} import {function}\nsys.exit({function}())\n"
        )
        path.chmod(0o755)
    return folder


class Bash:
    """An interactive bash; a context manager, since it is a process and a terminal."""

    def __init__(self, folder, **environ):
        """`folder` has the commands; `environ` is added to a bare environment."""
        plain = {"PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder), "PS1": "", **environ}
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], plain)
        self._said = ""

    def __enter__(self):
        self.run("bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; stty -echo; PS1=; echo rea''dy")
        self.until("ready")
        return self

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def run(self, line):
        os.write(self._terminal, f"{line}\n".encode())

    def until(self, text):
        """Read until something is said, and return all since the last time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self._said:
            assert time.monotonic() < deadline, f"{text!r} was not said; this was: {self._said!r}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    self._said += os.read(self._terminal, 65536).decode(errors="replace")
        said, self._said = self._said, ""
        return said

    def completed(self, line):
        """Return the words of a line after the tabulator key, as bash would hand them to the command."""
        # The line that is being written becomes the arguments of a command that shows them.
        os.write(self._terminal, f"{line}\t".encode() + b"\x01printf '[%s]' \x05; echo '[en''d]'\n")
        said = self.until("[end]")
        shown = said[said.rindex("[groundwork") : said.rindex("[end]")]
        return shown.strip("[]").split("][")
