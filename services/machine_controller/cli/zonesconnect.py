"""How the command line gets at a vCenter: flags, variables and files, and a connection made of them.

Responsible for: server, user, password and trust. The variables are those of clusterctl's vSphere provider, so that a
shell that is set up for it is set up for this.
Invariants: a password is no flag, since everybody on the machine sees those, and is in no message. The certificate is
verified unless the user says otherwise.
Must not know: what vCenter is asked.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from services import access, console
from services.console import UnusableError
from services.machine_controller.vsphere.credentials import Credentials, Trust
from services.machine_controller.vsphere.errors import CertificateMismatch, VSphereError
from services.machine_controller.vsphere.values import Server
from services.machine_controller.vsphere.vcenter import VCenters

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Mapping

    from services.console import CommandLine, Progress
    from services.machine_controller.vsphere.vcenter import VCenter

SERVER, USERNAME, PASSWORD = "VSPHERE_SERVER", "VSPHERE_USERNAME", "VSPHERE_PASSWORD"
THUMBPRINT = "VSPHERE_TLS_THUMBPRINT"


def add_flags(parser: CommandLine) -> None:
    """Add what says where vCenter is and who signs in."""
    group = parser.add_argument_group("vCenter")
    group.add_argument(
        "--server", default="", metavar="HOST[:PORT]", help=f"as VSphereClusters name it (default: ${SERVER})"
    )
    group.add_argument("--username", default="", metavar="USER", help=f"who signs in (default: ${USERNAME})")
    for flag, text in (
        ("--password-file", f"file with the password alone (default: ${PASSWORD}, else it is asked for)"),
        ("--credentials-file", "YAML with username and password: the two keys, or a Secret's manifest"),
        ("--ca-file", "PEM certificates of who signed vCenter's certificate"),
    ):
        console.complete_with(group.add_argument(flag, metavar="FILE", help=text), access.FILES)
    group.add_argument(
        "--thumbprint",
        default="",
        metavar="HEX",
        help=f"SHA-1 or SHA-256 of vCenter's certificate, instead of a CA (default: ${THUMBPRINT})",
    )
    group.add_argument("--insecure", action="store_true", help="do not verify the certificate: for labs")


def server_of(options: argparse.Namespace) -> str:
    """Name of the server as the user gave it; "" when nobody did."""
    return str(options.server or os.environ.get(SERVER, ""))


@asynccontextmanager
async def connect(options: argparse.Namespace, server: str, progress: Progress) -> AsyncIterator[VCenter]:
    """Sign in; errors of vCenter's, here and in the body, end as one line that says what to do."""
    if not server:
        raise UnusableError(f"no vCenter: give --server or set {SERVER}")
    try:
        parsed = Server.parse(server)
        trust = _trust(options)
        credentials = _credentials(options, progress)
        async with VCenters() as vcenters:
            progress.step(f"signing in at {parsed}")
            vcenter = vcenters.get(parsed, "command line", credentials, trust)
            await vcenter.check()
            yield vcenter
    except CertificateMismatch as error:
        hint = f", if it is the right one: --thumbprint {error.sha256}" if error.sha256 else ""
        raise UnusableError(f"{error}: give --ca-file or --thumbprint{hint}") from None
    except VSphereError as error:
        raise UnusableError(str(error)) from None


def _trust(options: argparse.Namespace) -> Trust:
    ca = _read(options.ca_file) if options.ca_file else ""
    if options.insecure:
        return Trust(thumbprint=options.thumbprint, ca=ca, insecure=True)
    # What is set in the environment yields to a file that was named.
    thumbprint = options.thumbprint or ("" if ca else os.environ.get(THUMBPRINT, ""))
    return Trust(thumbprint=thumbprint, ca=ca)


def _credentials(options: argparse.Namespace, progress: Progress) -> Credentials:
    stored = _stored(options.credentials_file) if options.credentials_file else {}
    username = options.username or stored.get("username") or os.environ.get(USERNAME, "")
    if not username:
        raise UnusableError(f"nobody to sign in as: give --username or --credentials-file, or set {USERNAME}")
    if options.password_file:
        password = _read(options.password_file).rstrip("\r\n")
    else:
        password = stored.get("password") or os.environ.get(PASSWORD, "")
    if not password and sys.stdin.isatty():
        with progress.quiet():
            password = getpass.getpass(f"Password of {username}: ")
    if not password:
        raise UnusableError(f"no password: give --password-file or --credentials-file, or set {PASSWORD}")
    return Credentials(username, password)


def _stored(path: str) -> Mapping[str, str]:
    try:
        # Every scalar is text: a password of digits is not the number that YAML would read, in whatever base.
        content = yaml.load(_read(path), Loader=yaml.BaseLoader)  # noqa: S506 - it makes nothing but text
    except yaml.YAMLError:
        content = None  # its message would show a piece of the file
    if not isinstance(content, dict):
        raise UnusableError(f"{path} is no YAML with username and password")
    if content.get("kind") != "Secret":
        return _texts(content)
    encoded = _texts(content.get("data"))
    try:
        decoded = {key: base64.b64decode(value, validate=True).decode() for key, value in encoded.items()}
    except (binascii.Error, UnicodeDecodeError):
        raise UnusableError(f"the data of the Secret in {path} is not base64 of text") from None
    return {**decoded, **_texts(content.get("stringData"))}


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UnusableError(f"cannot read {path}: {reason}") from None
