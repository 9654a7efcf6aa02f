"""`python -m tools.image`: build the container image without Docker and, where needed, without a registry.

    python -m tools.image build --out FILE [--suite NAME | --base NAME [--builder NAME] [--python PATH]] [--tag NAME]
    python -m tools.image base [--suite trixie]
    python -m tools.image client --out FILE [--tag NAME]

Knows only the command line; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.image import build, debian
from tools.image.debian import PackageError
from tools.image.storage import BuildError, Storage
from tools.image.wheels import WheelError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.image", description="container images without Docker")
    commands = parser.add_subparsers(dest="command", required=True)
    image = commands.add_parser("build", help="Groundwork's image, as an archive")
    image.add_argument("--out", required=True, type=Path, help="the archive to write")
    image.add_argument("--tag", default=build.NAME, help="its name (default: %(default)s)")
    image.add_argument(
        "--suite", choices=build.SUITES, default=debian.SUITE, help="Debian release of the base that is made here"
    )
    image.add_argument("--base", default="", help="base image (default: one made of Debian packages)")
    image.add_argument("--builder", default="", help="image with venv and pip that builds (default: the base)")
    image.add_argument("--python", default="", help="where the base has Python (default: /usr/bin/python3)")
    base = commands.add_parser("base", help="make the base images anew, with Debian's newest packages")
    base.add_argument(
        "--suite", choices=build.SUITES, default=debian.SUITE, help="Debian release (default: %(default)s)"
    )
    client = commands.add_parser("client", help="a small image for tests, as an archive")
    client.add_argument("--out", required=True, type=Path, help="the archive to write")
    client.add_argument("--tag", default=build.CLIENT, help="its name (default: %(default)s)")
    return parser


def _run(given: argparse.Namespace, storage: Storage) -> None:
    match given.command:
        case "build":
            build.build(
                storage,
                given.out.resolve(),
                name=given.tag,
                suite=given.suite,
                base_image=given.base,
                builder=given.builder,
                python=given.python,
            )
        case "base":
            print("\n".join(build.base(storage, given.suite)))
        case _:
            build.client(storage, given.out.resolve(), given.tag)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 1 when an image cannot be made."""
    given = _parser().parse_args(arguments)
    try:
        storage = Storage.own()
        with storage.exclusive():
            _run(given, storage)
            storage.prune()
    except (BuildError, PackageError, WheelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
