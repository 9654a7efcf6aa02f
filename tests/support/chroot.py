"""A throw-away root folder with the programs of this machine, for scripts that set a host up.

Responsible for: a mount namespace in which a folder is /, with this machine's /usr read from below it and everything a
script may write (/etc, /opt, /run, /tmp, /usr/local) its own.
Invariant: nothing of this machine is changed: the mounts are gone with the process.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SYSTEM = ("bin", "sbin", "lib", "lib64", "lib32", "usr")
_ENTER = """
set -e
mount --rbind /usr "$1/usr"
mount --bind "$1/local" "$1/usr/local"
for folder in bin sbin lib lib64 lib32; do
  if [ -d "$1/$folder" ] && [ ! -L "$1/$folder" ]; then mount --rbind "/$folder" "$1/$folder"; fi
done
touch "$1/dev/null"
mount --bind /dev/null "$1/dev/null"
cd "$1"
shell=$2
exec chroot "$1" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ "$shell" /tmp/script
"""


class Root:
    """The folder, by absolute paths inside of it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("etc", "opt", "run", "tmp", "dev", "local/bin", "var"):
            (folder / name).mkdir(parents=True)
        for name in _SYSTEM:
            there = Path("/") / name
            if there.is_symlink():
                (folder / name).symlink_to(there.readlink())
            elif there.is_dir():
                (folder / name).mkdir()

    def path(self, inside):
        """Where a path inside of the root is; /usr/local is a folder of its own."""
        relative = inside.lstrip("/")
        return self.folder / (relative.removeprefix("usr/") if relative.startswith("usr/local") else relative)

    def write(self, inside, content="", mode=0o644):
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path

    def read(self, inside):
        return self.path(inside).read_text()

    def program(self, name, body=""):
        """A program that notes how it was called; before it does what `body` says."""
        self.write(f"/usr/local/bin/{name}", f'#!/bin/sh\necho "{name} $*" >>/tmp/calls\n{body}\n', 0o755)

    def calls(self):
        """The calls of `program`s since the last time."""
        path = self.path("/tmp/calls")
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def run(self, script, shell="/bin/sh"):
        """Run a script inside; returns the finished process. Needs root, or user namespaces."""
        self.write("/tmp/script", script)
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", *as_root, "--mount", "/bin/sh", "-c", _ENTER, "enter", str(self.folder), shell]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        refused = "unshare: " in done.stderr
        assert not refused, f"scripts are run in a mount namespace of their own, which is refused here: {done.stderr}"
        return done

    def files(self):
        """Everything that can have been written: {path inside: (mode, content)}."""
        return {
            f"/{path.relative_to(self.folder)}": (oct(path.stat().st_mode & 0o777), path.read_text())
            for top in ("etc", "opt", "run", "local/share")
            for path in sorted((self.folder / top).rglob("*"))
            if path.is_file()
        }
