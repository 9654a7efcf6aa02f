"""How one identity gets at one server: credentials and trust, replaceable, and what the server said of them.

Responsible for: the values that SOAP and REST sign in with, and the pause after a refusal.
Invariants: a refused password is not tried again before a growing pause is over, because vCenter locks accounts; new
credentials are tried at once. Nothing here shows a password.
Must not know: how signing in is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from services.machine_controller.vsphere.credentials import Credentials, Trust
    from services.machine_controller.vsphere.errors import AuthenticationFailed
    from services.machine_controller.vsphere.values import Server
    from services.runtime.clock import Clock

FIRST_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 600.0


class Access:
    """Credentials and trust of an identity at a server."""

    def __init__(self, server: Server, credentials: Credentials, trust: Trust, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self._credentials = credentials
        self._trust = trust
        self._context: tuple[Trust, ssl.SSLContext] | None = None
        self._pause = 0.0
        self._refused: tuple[float, AuthenticationFailed] | None = None
        self._listeners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"Access({self._credentials.username} at {self.server})"

    @property
    def credentials(self) -> Credentials:
        """Who signs in."""
        return self._credentials

    @property
    def trust(self) -> Trust:
        """How the server is known."""
        return self._trust

    def context(self, trust: Trust) -> ssl.SSLContext:
        """Return the TLS context of a trust, made once; InvalidValue for a CA that cannot be read.

        For threads: reading the system's authorities takes tens of milliseconds.
        """
        made = self._context
        if made is None or made[0] != trust:
            made = self._context = (trust, trust.context())
        return made[1]

    def on_replaced(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever credentials or trust have been replaced."""
        self._listeners.append(listener)

    def replace(self, credentials: Credentials, trust: Trust) -> bool:
        """Take other credentials or another trust; False when nothing differs."""
        if (credentials, trust) == (self._credentials, self._trust):
            return False
        self._credentials = credentials
        self._trust = trust
        self.accepted()
        for listener in self._listeners:
            listener()
        return True

    def check(self) -> None:
        """Raise the last refusal while its pause lasts."""
        if self._refused is not None and self.clock.monotonic() < self._refused[0]:
            raise self._refused[1].with_traceback(None)  # it would grow with each time it is raised

    def refused(self, credentials: Credentials, error: AuthenticationFailed) -> None:
        """Take note that the server refused these credentials."""
        if credentials == self._credentials:
            self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
            self._refused = (self.clock.monotonic() + self._pause, error)

    def accepted(self) -> None:
        """Take note that there is no reason to wait any more."""
        self._refused = None
        self._pause = 0.0
