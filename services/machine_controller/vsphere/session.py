"""One session with one vCenter for one identity: signed in when needed, kept alive, renewed, ended.

Responsible for: signing in and out, carrying calls out in the threads, and repeating a call once after vCenter forgot
the session (it expired, vCenter was restarted).
Invariants: whatever number of calls finds the session lost, one of them signs in and the others wait for it. A call is
repeated only when vCenter said that it did not carry it out. The session of replaced credentials is ended at once.
Must not know: what the calls do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from services.machine_controller.vsphere import calls, faults, wire
from services.machine_controller.vsphere.calls import Threads
from services.machine_controller.vsphere.errors import AuthenticationFailed, DeadlineExceeded, Unreachable, VSphereError
from services.machine_controller.vsphere.refs import managed
from services.machine_controller.vsphere.soap import vim
from services.runtime import log, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from services.machine_controller.vsphere.access import Access
    from services.machine_controller.vsphere.credentials import Credentials
    from services.machine_controller.vsphere.values import Ref

T = TypeVar("T")

CALL_SECONDS: Final = 30.0
"""Deadline of a call unless it states another; the wait for a free thread counts."""

KEEP_ALIVE_SECONDS: Final = 300.0
"""vCenter ends sessions that are idle for 30 minutes (its default is 120, administrators shorten it)."""

_SIGN_OUT_SECONDS: Final = 5.0

_LOG: Final = log.get("vcenter.session")
_SIGN_INS = metrics.counter("groundwork_vcenter_logins_total", "Sign-ins to vCenter by outcome.", ("server", "outcome"))


class About(msgspec.Struct, frozen=True):
    """What a vCenter says about itself."""

    name: str
    version: str
    build: str
    instance_uuid: str


class Api:
    """A signed-in session as work in a thread sees it: the stub, the service's singletons, and objects by reference."""

    def __init__(self, stub: wire.Stub, content: Any) -> None:
        self.stub = stub
        self.content = content
        self.about = About(
            name=content.about.fullName or "",
            version=content.about.version or "",
            build=content.about.build or "",
            instance_uuid=content.about.instanceUuid or "",
        )
        self._policies: tuple[wire.Stub, Any] | None = None

    def object(self, reference: Ref) -> Any:
        """Return the managed object behind a reference."""
        return managed(reference, self.stub)

    def policies(self, connect: Callable[[wire.Stub], Any]) -> Any:
        """Return what `connect` makes of a stub for the storage policy service, made once for each session."""
        if self._policies is None:
            stub = self.stub.sibling("/pbm", wire.PBM_VERSION)
            self._policies = stub, connect(stub)
        return self._policies[1]

    def close(self) -> None:
        """Close what is idle, and what comes back from now on."""
        self.stub.close()
        if self._policies is not None:
            self._policies[0].close()


class Session:
    """See the module. Bound to the running event loop; `aclose` ends it."""

    def __init__(self, access: Access, *, threads: int) -> None:
        self.server = access.server
        self.clock = access.clock
        self.calls_made: Counter[str] = Counter()
        self.logins = 0
        self._access = access
        self._threads = Threads(str(access.server), size=threads)
        self._api: Api | None = None
        self._signing_in: asyncio.Task[Api] | None = None
        self._used = access.clock.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._closed = False
        self._silent = False
        access.on_replaced(self._replaced)
        for outcome in ("success", "refused", "error"):
            _SIGN_INS.labels(str(self.server), outcome)

    def __repr__(self) -> str:
        return f"Session({self._access.credentials.username} at {self.server})"

    @property
    def running(self) -> int:
        """Calls in flight."""
        return self._threads.running

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._threads.waiting

    @property
    def answers(self) -> bool:
        """Whether it is signed in, and the last call that was answered or given up was answered."""
        return self._api is not None and not self._silent

    def on_changed(self, listener: Callable[[], None]) -> None:
        """Call `listener` in the event loop whenever the session in use has ended, or its credentials are replaced."""
        self._listeners.append(listener)

    def in_use(self, api: Api) -> bool:
        """Whether this is the present session."""
        return self._api is api

    async def call(self, operation: str, work: Callable[[Api], T], *, seconds: float = CALL_SECONDS) -> T:
        """Return what `work` returns in a thread, signed in.

        `operation` names it in errors. Raises VSphereError; a lost session is dealt with here.
        """
        self._used = self.clock.monotonic()
        try:
            answer = await self._call(operation, work, seconds)
        except VSphereError as error:
            self._silent = isinstance(error, Unreachable)
            raise
        self._silent = False
        return answer

    async def _call(self, operation: str, work: Callable[[Api], T], seconds: float) -> T:
        api = await self.api()
        try:
            return await self.attempt(operation, work, api, seconds=seconds)
        except faults.SessionLostError:
            self.lost(api)
        api = await self.api()
        try:
            return await self.attempt(operation, work, api, seconds=seconds)
        except faults.SessionLostError:
            self.lost(api)
            raise Unreachable(str(self.server), "it forgets sessions right after signing in") from None

    async def api(self) -> Api:
        """Return the signed-in session, signing in when there is none: once for all who ask meanwhile."""
        while self._api is None:
            if self._signing_in is None:
                self._signing_in = asyncio.create_task(self._sign_in())
                self._signing_in.add_done_callback(self._signed_in)
            await asyncio.shield(self._signing_in)
        return self._api

    async def attempt(
        self, operation: str, work: Callable[[Api], T], api: Api, *, seconds: float, threads: Threads | None = None
    ) -> T:
        """Carry `work` out once under a given session; raises faults.SessionLostError when vCenter does not know it."""
        username = self._access.credentials.username

        def translated() -> T:
            try:
                return work(api)
            except TimeoutError:  # the socket's, which ends with the deadline as well
                late = DeadlineExceeded(str(self.server), operation, seconds)
                late.outcome_unknown = calls.current().sent
                raise late from None
            except Exception as error:
                mapped = faults.translate(error, str(self.server), username=username, sent=calls.current().sent)
                if mapped is None or mapped is error:
                    raise
                raise mapped from None  # the cause may hold what was sent

        return await (threads or self._threads).run(operation, translated, seconds=seconds)

    def lost(self, api: Api) -> None:
        """Say that vCenter does not know the session of `api` any more."""
        if self._api is not api:
            return  # somebody else noticed first; the present session is a new one
        self._api = None
        api.close()
        self._tell()

    async def aclose(self) -> None:
        """Give up what runs, sign out and end the threads."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        self._threads.give_up()
        if self._signing_in is not None:
            await asyncio.wait({self._signing_in})
        try:
            if (api := self._api) is not None:
                self.lost(api)
                await self._sign_out(api)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self._threads.aclose()

    async def _sign_in(self) -> Api:
        if self._closed:
            raise Unreachable(str(self.server), "the connection is closed")
        self._access.check()
        credentials, trust = self._access.credentials, self._access.trust

        def work(_: Api) -> Api:
            context = self._access.context(trust)
            stub = wire.Stub(self.server, trust, context=context, calls_made=self.calls_made)
            try:
                return _signed_in(stub, credentials)
            except BaseException:
                stub.close()
                raise

        try:
            api = await self.attempt("Login", work, _NOBODY, seconds=CALL_SECONDS)
        except AuthenticationFailed as error:
            _SIGN_INS.labels(str(self.server), "refused").inc()
            self._access.refused(credentials, error)
            raise
        except BaseException:
            _SIGN_INS.labels(str(self.server), "error").inc()
            raise
        _SIGN_INS.labels(str(self.server), "success").inc()
        self.logins += 1
        if self._closed:
            api.close()
            raise Unreachable(str(self.server), "the connection is closed")
        if (credentials, trust) != (self._access.credentials, self._access.trust):
            self._start(self._sign_out(api))  # replaced meanwhile: what is used has to be the new identity
            return await self._sign_in()
        self._access.accepted()
        self._api = api
        _LOG.info("Signed in to vCenter", server=str(self.server), user=credentials.username, version=api.about.version)
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.create_task(self._kept_alive())
        return api

    def _signed_in(self, task: asyncio.Task[Api]) -> None:
        self._signing_in = None
        if not task.cancelled():
            task.exception()  # who waited has seen it; perhaps nobody waits any more

    def _replaced(self) -> None:
        if (api := self._api) is not None:
            self.lost(api)
            self._start(self._sign_out(api))
        else:
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    async def _sign_out(self, api: Api) -> None:
        # Best effort: a session that cannot be ended expires.
        try:
            with contextlib.suppress(VSphereError):
                await self.attempt(
                    "Logout", lambda a: a.content.sessionManager.Logout(), api, seconds=_SIGN_OUT_SECONDS
                )
        finally:
            api.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kept_alive(self) -> None:
        while True:
            await self.clock.sleep(KEEP_ALIVE_SECONDS)
            api = self._api
            if api is None or self.clock.monotonic() - self._used < KEEP_ALIVE_SECONDS:
                continue
            try:
                await self.call("CurrentTime", current_time)
            except VSphereError as error:
                _LOG.warning("Cannot keep the session with vCenter alive", server=str(self.server), error=error)


def current_time(api: Api) -> Any:
    """Ask for vCenter's time: the cheapest call that needs a session."""
    return vim.ServiceInstance("ServiceInstance", api.stub).CurrentTime()


def _signed_in(stub: wire.Stub, credentials: Credentials) -> Api:
    content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    if content is None:
        raise Unreachable(stub.host, "it does not answer as a vCenter does")
    if content.about.apiType != "VirtualCenter":
        raise Unreachable(stub.host, f"it is no vCenter but {content.about.apiType}")
    content.sessionManager.Login(credentials.username, credentials.password, None)
    return Api(stub, content)


class _Nobody(Api):
    """Stands where no session exists yet."""

    def __init__(self) -> None:
        pass


_NOBODY: Final = _Nobody()
