"""pyVmomi's faults, and what sockets and TLS raise, as the errors of this package.

Responsible for: the one table that maps them.
Invariants: whatever a call raises leaves as a VSphereError, save for bugs of ours; a message is vCenter's own text.
Must not know: which call raised.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from xml.parsers.expat import ExpatError

from services.machine_controller.vsphere.errors import (
    AuthenticationFailed,
    Busy,
    Cancelled,
    CertificateMismatch,
    DuplicateName,
    InsufficientResources,
    InvalidPowerState,
    NotFound,
    PermissionDenied,
    TaskFailed,
    ToolsUnavailable,
    Unreachable,
    VSphereError,
)
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import vim, vmodl

_NO_ROOM = (vim.fault.InsufficientResourcesFault, vim.fault.NoDiskSpace)
_BUSY = (vim.fault.TaskInProgress, vim.fault.ConcurrentAccess, vim.fault.ResourceInUse, vim.fault.FileLocked)
_BAD_LOGIN = (vim.fault.InvalidLogin, vim.fault.PasswordExpired, vim.fault.NoClientCertificate)


class SessionLostError(VSphereError):
    """vCenter does not know the session (any more). The call was not carried out. Never leaves `session`."""

    def __init__(self) -> None:
        super().__init__("the session is not known to vCenter")


def translate(error: Exception, server: str, *, username: str = "", sent: bool = True) -> VSphereError | None:
    """Map what a call raised; None for what is no failure of vCenter or the network, a bug therefore.

    `sent`: whether a request may have reached the server, so that a broken connection leaves its outcome open.
    """
    if isinstance(error, VSphereError):
        return error
    if isinstance(error, vmodl.MethodFault):
        return _fault(error, server, username)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateMismatch(server, error.verify_message or "verification failed")
    if isinstance(error, OSError | http.client.HTTPException):
        return Unreachable(server, _network_message(error), outcome_unknown=sent)
    if isinstance(error, ExpatError):
        return Unreachable(server, "the answer is not XML", outcome_unknown=sent)
    return None


def _network_message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def fault_error(fault: Any) -> VSphereError:
    """Map the fault that a task ended with."""
    found = _fault(fault, "", "")
    return TaskFailed("NotAuthenticated", str(found)) if isinstance(found, SessionLostError) else found


def _fault(fault: Any, server: str, username: str) -> VSphereError:
    message = _message(fault)
    match fault:
        case vim.fault.NotAuthenticated():
            return SessionLostError()
        case _ if isinstance(fault, _BAD_LOGIN):
            return AuthenticationFailed(server, username, message or "user name or password is wrong")
        case vim.fault.NoPermission():
            return PermissionDenied(
                fault.privilegeId or "", str(ref(fault.object)) if fault.object is not None else "", message
            )
        case vmodl.fault.ManagedObjectNotFound():
            return (
                NotFound(ref(fault.obj).type, ref(fault.obj).id)
                if fault.obj is not None
                else NotFound("object", "unknown")
            )
        case vim.fault.DuplicateName():
            return DuplicateName(fault.name or "", str(ref(fault.object)) if fault.object is not None else "")
        case _ if isinstance(fault, _NO_ROOM):
            return InsufficientResources(_name(fault), message)
        case vim.fault.InvalidPowerState():
            return InvalidPowerState(str(fault.existingState), str(fault.requestedState or ""))
        case vim.fault.ToolsUnavailable():
            return ToolsUnavailable(message or "VMware Tools do not run in the guest")
        case _ if isinstance(fault, _BUSY):
            return Busy(message or _name(fault))
        case vmodl.fault.RequestCanceled():
            return Cancelled(message)
        case _:
            return TaskFailed(_name(fault), message)


def _name(fault: Any) -> str:
    return str(type(fault).__name__).rpartition(".")[2]


def _message(fault: Any) -> str:
    """The first text there is: of the fault, of its localizable messages, of its cause."""
    if fault.msg:
        return str(fault.msg)
    for part in fault.faultMessage or ():
        if part.message:
            return str(part.message)
    cause = fault.faultCause
    return _message(cause) if isinstance(cause, vmodl.MethodFault) else ""
