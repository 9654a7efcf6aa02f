"""What can go wrong with vCenter, in the words of the machine controller.

Responsible for: the error types that leave this package. pyVmomi's faults and REST's errors are mapped to them in one
place each (`faults`, `tags`).
Invariants: a message tells an administrator what to look at, and never holds a credential. An error says whether the
call may have been carried out all the same (`outcome_unknown`).
Must not know: pyVmomi, aiohttp.
"""
# ruff: noqa: N818 - names of states, as vCenter's own faults have them

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_LIMIT = 512
_SHOWN_NAMES = 8


class VSphereError(Exception):
    """Base of everything this package raises. `outcome_unknown`: the call may have been carried out."""

    outcome_unknown = False

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 3] + "...")


class InvalidValue(VSphereError):
    """A value of ours that vCenter cannot be given; `what` names it."""

    def __init__(self, what: str, message: str) -> None:
        self.what = what
        super().__init__(f"invalid {what}: {message}")


class Unreachable(VSphereError):
    """No connection, a broken one, or a server that does not speak as vCenter does."""

    def __init__(self, server: str, message: str, *, outcome_unknown: bool = False) -> None:
        self.server = server
        self.outcome_unknown = outcome_unknown
        super().__init__(f"vCenter {server} is unreachable: {message}")


class DeadlineExceeded(Unreachable):
    """No answer in time; the call was given up and its connection closed."""

    def __init__(self, server: str, operation: str, seconds: float) -> None:
        self.operation = operation
        self.seconds = seconds
        super().__init__(server, f"no answer to {operation} within {seconds:g} s", outcome_unknown=True)


class Overloaded(Unreachable):
    """Too many calls wait for a free thread; this one was never sent."""

    def __init__(self, server: str, waiting: int) -> None:
        super().__init__(server, f"{waiting} calls wait already")


class CertificateMismatch(VSphereError):
    """The server's certificate is not the one that was pinned, or no trusted authority signed it.

    `sha256` is the thumbprint that the server showed, "" when it is unknown.
    """

    def __init__(self, server: str, message: str, sha256: str = "") -> None:
        self.server = server
        self.sha256 = sha256
        super().__init__(f"the certificate of vCenter {server} is not trusted: {message}")


class AuthenticationFailed(VSphereError):
    """The user name or password is wrong, or the account is locked."""

    def __init__(self, server: str, username: str, message: str = "user name or password is wrong") -> None:
        self.server = server
        self.username = username
        super().__init__(f"vCenter {server} refuses {username}: {message}")


class PermissionDenied(VSphereError):
    """The identity lacks a privilege on an object."""

    def __init__(self, privilege: str, target: str = "", message: str = "") -> None:
        self.privilege = privilege
        self.target = target
        on = f" on {target}" if target else ""
        super().__init__(
            f"permission denied: privilege {privilege or 'unknown'}{on}" + (f": {message}" if message else "")
        )


class NotFound(VSphereError):
    """Nothing has this name, path or id. `nearby` are names of the same kind in the same place."""

    def __init__(self, kind: str, name: str, *, where: str = "", nearby: Sequence[str] = ()) -> None:
        self.kind = kind
        self.name = name
        self.nearby = tuple(sorted(nearby))
        message = f"{kind} {name!r} not found" + (f" in {where}" if where else "")
        if self.nearby:
            more = len(self.nearby) - _SHOWN_NAMES
            there = ", ".join(self.nearby[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
            message += f"; there are: {there}"
        super().__init__(message)


class Ambiguous(VSphereError):
    """Several objects answer to the name; a path tells them apart."""

    def __init__(self, kind: str, name: str, candidates: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.candidates = tuple(sorted(candidates))
        shown = ", ".join(self.candidates[:_SHOWN_NAMES])
        super().__init__(f"{kind} {name!r} is ambiguous; it may be: {shown}")


class DuplicateName(VSphereError):
    """A folder has a child of this name already, perhaps one that a running clone is making."""

    def __init__(self, name: str, holder: str = "") -> None:
        self.name = name
        self.holder = holder  # str(Ref) of the object that has it
        super().__init__(f"the name {name!r} is taken" + (f" by {holder}" if holder else ""))


class InsufficientResources(VSphereError):
    """The cluster, host or datastore has no room; `fault` is vCenter's own name for which."""

    def __init__(self, fault: str, message: str) -> None:
        self.fault = fault
        super().__init__(f"insufficient resources ({fault}): {message}")


class InvalidPowerState(VSphereError):
    """The VM is not in the power state that the operation needs."""

    def __init__(self, existing: str, requested: str = "") -> None:
        self.existing = existing
        self.requested = requested
        super().__init__(f"the VM is {existing}" + (f", it has to be {requested}" if requested else ""))


class ToolsUnavailable(VSphereError):
    """VMware Tools do not run in the guest, so it cannot be asked to shut down."""

    def __init__(self, message: str = "VMware Tools do not run in the guest") -> None:
        super().__init__(message)


class Busy(VSphereError):
    """Another operation holds the object; the same call may work later."""

    def __init__(self, message: str) -> None:
        super().__init__(f"in use by another operation: {message}")


class Cancelled(VSphereError):
    """The task was cancelled in vCenter."""

    def __init__(self, message: str = "") -> None:
        super().__init__("the task was cancelled" + (f": {message}" if message else ""))


class TaskFailed(VSphereError):
    """vCenter refused or could not finish an operation, for a reason without a type of its own.

    `fault` is the name of vCenter's fault type ("InvalidDeviceSpec"), `message` its text.
    """

    def __init__(self, fault: str, message: str) -> None:
        self.fault = fault
        self.message = message
        super().__init__(f"{fault}: {message}" if message else fault)
