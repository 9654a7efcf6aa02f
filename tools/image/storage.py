"""Drives buildah with a storage of its own, so that no image of this machine is seen or changed.

Responsible for: finding or installing buildah, and the flags that every call has in common. Invariants: nothing of this
machine gets into an image: no proxies, no time but the one given. Must not know what the images are for.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools import paths
from tools.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_POLICY = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
"""Required to exist even to write an archive. Signatures are for whoever pulls from a registry to check."""


class BuildError(RuntimeError):
    """An image cannot be made; the message has buildah's last words."""


def ensure() -> str:
    """Return the path of buildah, installing Debian's package when there is none. Raises BuildError."""
    if (found := shutil.which("buildah")) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError("no buildah here: install it (apt-get install buildah), or use docker as the docs say")
    with step("installing buildah", expected="under a minute, once"):
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "buildah"]):
            command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(f"apt-get {arguments[0]}: {done.stderr.strip()[-1000:]}")
    return ensure()


@dataclass(frozen=True)
class Storage:
    """Images below one folder."""

    folder: Path

    @classmethod
    def own(cls) -> Storage:
        """The one in the user's cache folder. Raises BuildError when buildah cannot be used here."""
        ensure()
        if os.geteuid() != 0:
            raise BuildError("building without a registry mounts file systems: run it as root, or in `buildah unshare`")
        folder = paths.cache() / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policy.json").write_text(_POLICY)
        return cls(folder)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes that make images waiting."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with step("waiting for another process that makes images"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # closing the file releases the lock, also when this process is killed

    def run(self, command: str, *arguments: str | Path) -> str:
        """Run one buildah command and return what it printed; raises BuildError when it fails."""
        flags = ("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"))
        done = subprocess.run(
            ["buildah", *flags, command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd="/"
        )
        if done.returncode != 0:
            raise BuildError(f"buildah {command}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout.strip()

    def has(self, name: str) -> bool:
        """Whether there is an image of this name."""
        try:
            return bool(self.run("inspect", "--type", "image", "--format", "{{.FromImageID}}", name))
        except BuildError:
            return False

    def from_layer(self, layer: Path, name: str, epoch: int, command: Sequence[str] = ()) -> None:
        """Make an image of one layer, a tar archive, and of what it runs when nothing else is said."""
        container = self.run("from", "scratch")
        try:
            self.run("add", "--quiet", container, layer, "/")
            self.run("config", "--env", "PATH=/usr/bin:/usr/sbin", "--cmd", json.dumps(command), container)
            self.run("commit", "--quiet", "--timestamp", str(epoch), container, name)
        finally:
            self.run("rm", container)

    def from_dockerfile(
        self,
        dockerfile: Path,
        context: Path,
        name: str,
        epoch: int,
        *,
        args: Mapping[str, str],
        contexts: Mapping[str, Path],
    ) -> None:
        """Build a Dockerfile whose bases are in this storage, or in a registry that can be reached."""
        flags: list[str | Path] = ["--isolation", "chroot", "--network", "host", "--http-proxy=false", "--layers=false"]
        # Images of one's own are in no registry, so they must not be asked for there.
        flags += ["--pull", "--timestamp", str(epoch), "--format", "oci"]
        flags += [flag for key, value in args.items() for flag in ("--build-arg", f"{key}={value}")]
        flags += [flag for key, folder in contexts.items() for flag in ("--build-context", f"{key}={folder}")]
        flags += ["--ignorefile", dockerfile.with_name(f"{dockerfile.name}.dockerignore")]
        self.run("bud", "--quiet", *flags, "--file", dockerfile, "--tag", name, context)

    def prune(self) -> None:
        """Delete the images that lost their names to newer ones."""
        self.run("rmi", "--prune")

    def export(self, name: str, target: Path) -> None:
        """Write the image as an archive that `docker load`, `podman load` and `ctr images import` read."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as partial:
            file = Path(partial) / "image.tar"
            policy = ("--signature-policy", self.folder / "policy.json")
            self.run("push", "--quiet", *policy, name, f"docker-archive:{file}:{name}")
            file.replace(target)
