"""Certificates that a service makes for itself: carries out `certs_decide` on a Secret and a webhook configuration.

Responsible for: following both by watches, writing them with optimistic concurrency, and serving a new leaf once every
webhook publishes its CA.

Invariants: any replica may take any step, no Lease is needed: of two that take the same one, the API server refuses the
second, which then adopts the first's result. A caBundle is computed from the Secret as the API server has it at that
moment, since a replica whose watch lags must not take back what another has published. A configuration is only ever
changed in `clientConfig.caBundle`. No failure ends `run`; it tries again with backoff, and what is served goes on.

Must not know: what is served with the certificate.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import random
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from services.runtime import certs_decide, log, metrics
from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.certs import ServedCertificate, secret_pair
from services.runtime.certs_decide import Lifetimes, Step
from services.runtime.kube.errors import AlreadyExists, Conflict, Invalid, KubeError, NotFound
from services.runtime.kube.objects import EMPTY, KubeObject, ObjectKey, ObjectMeta, view
from services.runtime.kube.resource import Resource
from services.runtime.kube.transport import PatchKind
from services.runtime.pki import PkiError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

__all__ = ["CONFIGURATIONS", "SECRETS", "ManagedCertificates"]

SECRETS: Final = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIGURATIONS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
SETTLE_SECONDS: Final = 5.0
"""From seeing that a CA is published to showing its leaf: every API server follows the configuration by itself."""

_BACKOFF_SECONDS: Final = (1.0, 60.0)
_AGAIN_SECONDS: Final = 1.0
_LONGEST_WAIT: Final = 60.0  # nothing tells that the clock was set, and looking asks nobody
_TLS_SECRET: Final = "kubernetes.io/tls"  # noqa: S105 - the type of Secret
_LOG: Final = log.get("certs")
_TAKEN: Final = tuple((step.value,) for step in Step if step is not Step.WAIT)
_STEPS = metrics.counter(
    "groundwork_webhook_certificate_steps_total",
    "Steps of self-managed certificates that were carried out.",
    ("step",),
    known=_TAKEN,
)
_FAILURES = metrics.counter(
    "groundwork_webhook_certificate_step_failures_total",
    "Steps of self-managed certificates that failed.",
    ("step",),
    known=_TAKEN,
)
_PUBLISHED = metrics.gauge(
    "groundwork_webhook_ca_published",
    "1 while every webhook of the configuration publishes the CA of what is served; NaN where that is not done here.",
)
_PUBLISHED.set(float("nan"))


class Secret(KubeObject, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """core/v1 Secret."""

    type: str = ""
    immutable: bool | None = None
    data: dict[str, str] | None = None


class Configuration(KubeObject, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """admissionregistration.k8s.io/v1 MutatingWebhookConfiguration."""

    webhooks: Raw = EMPTY


class _ClientConfig(Struct, frozen=True, gc=False):
    caBundle: str = ""  # noqa: N815 - the wire's name


class _Webhook(Struct, frozen=True, gc=False):
    name: str = ""
    clientConfig: _ClientConfig = _ClientConfig()  # noqa: N815 - the wire's name


class ManagedCertificates(ServedCertificate):
    """Keeps a Secret and a configuration's caBundle; give `reflectors` and `run` to the manager."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        secret: str,
        configuration: str | None,
        names: Sequence[str],
        label: str,
        clock: Clock,
        writes: bool = True,
        lifetimes: Lifetimes | None = None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Make them; nothing is read or written before `run`.

        `client` must not be guarded by leadership. Without a `configuration` nothing is published. `label` begins the
        names of CAs. With `writes` false the Secret is only followed: for a process beside the one that rotates.
        """
        super().__init__(clock)
        self._client = client
        self._key = ObjectKey(namespace, secret)
        self._configuration = configuration
        self._names = tuple(dict.fromkeys(names))
        self._label = label
        self._writes = writes
        self._lifetimes = lifetimes or Lifetimes()
        self._settle_seconds = settle_seconds
        self._secrets: Store[Secret] = Store("webhook-secret")
        self._configurations: Store[Configuration] = Store("webhook-configuration")
        self._changed = asyncio.Event()
        for store in (self._secrets, self._configurations):
            store.subscribe(lambda *_: self._changed.set())
        self._trusted: tuple[str, float] = ("", 0.0)
        self._remembered = b""
        self._failures = 0
        self._error = ""

    @property
    def reflectors(self) -> list[Reflector[Secret] | Reflector[Configuration]]:
        """What fills the stores; each follows one object, so RBAC may name it."""
        followers: list[Reflector[Secret] | Reflector[Configuration]] = [
            Reflector(
                self._client,
                SECRETS,
                self._secrets,
                clock=self._clock,
                as_=Secret,
                namespace=self._key.namespace,
                field_selector=f"metadata.name={self._key.name}",
            )
        ]
        if self._configuration is not None:
            followers.append(
                Reflector(
                    self._client,
                    CONFIGURATIONS,
                    self._configurations,
                    clock=self._clock,
                    as_=Configuration,
                    field_selector=f"metadata.name={self._configuration}",
                )
            )
        return followers

    async def run(self) -> None:
        """Rotate, publish and adopt until cancelled; the stores must be synced."""
        while True:
            self._changed.clear()
            pause = min(self._adopt(), await self._advance() if self._writes else _LONGEST_WAIT)
            waiting = asyncio.ensure_future(self._changed.wait())
            over = asyncio.ensure_future(self._clock.sleep(pause))
            try:
                await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                over.cancel()

    # -- serving -------------------------------------------------------------------------------------------------------

    def _adopt(self) -> float:
        """Serve the Secret's leaf if clients trust it by now; return after how many seconds to look again."""
        data = _data(self._secrets.get(self._key))
        bundles = self._bundles()
        issuer = certs_decide.issuer(data) if data is not None else None
        trusted = issuer is not None and all(issuer in bundle for bundle in bundles or ())
        _PUBLISHED.set(trusted)
        if data is None or issuer is None:
            if data is not None:
                self.reject("the Secret has no certificate that can be used")
            return _LONGEST_WAIT
        now = self._clock.monotonic()
        if not trusted:
            self._trusted = ("", 0.0)
        elif self._trusted[0] != issuer:
            self._trusted = (issuer, now)
        if self.valid and bundles is not None:
            if not trusted:
                return _LONGEST_WAIT
            settled = self._trusted[1] + self._settle_seconds - now
            if settled > 0:
                return settled
        if self.take(secret_pair(data)):
            self._remembered = certs_decide.bundle(data, self._clock.now())
        return _LONGEST_WAIT

    def _bundles(self) -> certs_decide.Bundles | None:
        """Return what the configuration publishes; None when there is nothing to publish to."""
        if self._configuration is None:
            return None
        found = self._configurations.get(ObjectKey("", self._configuration))
        return certs_decide.published([_decoded(hook.clientConfig.caBundle) for hook in _webhooks(found)])

    # -- writing -------------------------------------------------------------------------------------------------------

    async def _advance(self) -> float:
        """Take the next step; return after how many seconds to look again if nothing changes."""
        secret = self._secrets.get(self._key)
        data = _data(secret)
        now = self._clock.now()
        decision = certs_decide.decide(data, now, self._bundles(), self._names, self._lifetimes)
        step = decision.step
        if step is Step.WAIT:
            assert decision.at is not None, "of every decision to wait"
            self._failures, self._error = 0, ""
            return min(_LONGEST_WAIT, max(_AGAIN_SECONDS, (decision.at - now).total_seconds()))
        try:
            if step is Step.PUBLISH:
                await self._publish(now)
            else:
                made = functools.partial(certs_decide.carried_out, step, data, now, self._names, self._lifetimes)
                await self._write(secret, made(label=self._label, remembered=self._remembered))
        except (AlreadyExists, Conflict) as error:
            _LOG.info("Another replica was faster", step=step.value, error=error)
            return _AGAIN_SECONDS
        except (KubeError, PkiError, msgspec.MsgspecError) as error:
            return self._failed(step, error)
        self._failures, self._error = 0, ""
        _STEPS.labels(step.value).inc()
        _LOG.info("Took a step with the webhook's certificates", step=step.value, reason=decision.reason)
        return _AGAIN_SECONDS

    def _failed(self, step: Step, error: Exception) -> float:
        _FAILURES.labels(step.value).inc()
        if str(error) != self._error:
            self._error = str(error)
            _LOG.warning("A step with the webhook's certificates failed", step=step.value, error=error)
        shortest, longest = _BACKOFF_SECONDS
        pause = min(longest, shortest * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return pause * (0.5 + random.random() / 2)

    async def _write(self, secret: Secret | None, data: dict[str, bytes]) -> None:
        encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
        if secret is None:
            fresh = Secret(
                apiVersion=SECRETS.api_version,
                kind=SECRETS.kind,
                metadata=ObjectMeta(name=self._key.name, namespace=self._key.namespace),
                type=_TLS_SECRET,
                data=encoded,
            )
            self._secrets.observe(await self._client.create(SECRETS, fresh))
        else:
            self._secrets.observe(await self._client.update(SECRETS, replace(secret, data=encoded)))

    async def _publish(self, now: dt.datetime) -> None:
        assert self._configuration is not None, "nothing is published without"
        seen = self._configurations.get(ObjectKey("", self._configuration))
        if seen is None:
            return
        try:
            secret = await self._client.get(SECRETS, self._key.name, self._key.namespace, as_=Secret)
        except NotFound:
            return  # the watch is about to show that
        bundle = certs_decide.bundle(_data(secret) or {}, now)
        (wanted,) = certs_decide.published([bundle])
        changes: list[dict[str, str]] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": seen.metadata.resourceVersion}
        ]
        for number, hook in enumerate(_webhooks(seen)):
            if certs_decide.published([_decoded(hook.clientConfig.caBundle)]) != (wanted,):
                path = f"/webhooks/{number}/clientConfig/caBundle"
                changes.append({"op": "add", "path": path, "value": base64.b64encode(bundle).decode()})
        if len(changes) == 1:
            return
        try:
            written = await self._client.patch(
                CONFIGURATIONS, self._configuration, "", changes, kind=PatchKind.JSON, as_=Configuration
            )
        except Invalid as error:  # how the API server says that a test has failed
            raise Conflict(error.status, error.reason, error.message) from error
        self._configurations.observe(written)


def _data(secret: Secret | None) -> dict[str, bytes] | None:
    """Return a Secret's data; an entry that is no base64 counts as empty."""
    return None if secret is None else {name: _decoded(value) for name, value in (secret.data or {}).items()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (ValueError, binascii.Error):
        return b""


def _webhooks(configuration: Configuration | None) -> list[_Webhook]:
    if configuration is None:
        return []
    try:
        return view(configuration.webhooks, list[_Webhook])
    except msgspec.MsgspecError:
        return []
