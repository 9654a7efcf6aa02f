"""Where the API server is and who we are: kubeconfig or in-cluster, TLS, and credentials that renew themselves.

Responsible for: finding a configuration (a given path, $KUBECONFIG, the pod's service account), and saying what was
tried when there is none; the TLS context; the authorization header, renewed when a token file is rotated, when an exec
plugin's token is about to expire, and when the server refuses it.
Invariants: a source is read once at a time and within a limit, and nobody who gives up waiting for it ends that. The
only module that imports kubernetes_asyncio, and only its loaders (they cover OIDC and merged files). HTTP(S)_PROXY is
ignored, since the API server is inside; a `proxy-url` of the kubeconfig counts. No credential is logged.
Must not know: requests.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from msgspec import Struct

from services.runtime import log
from services.runtime.kube import plugin
from services.runtime.kube.connector import Connector
from services.runtime.kube.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_PERIOD = 60.0
"""Seconds after which a token file is read again; the kubelet rotates it minutes before the old token expires."""
EXPIRY_MARGIN = 60.0
RETRY_PERIOD = 10.0
READ_LIMIT = 10.0
"""Seconds that reading a source may take, an exec plugin included."""
CONNECT_TIMEOUT = 5.0
CONNECTION_LIMIT = 128
"""Requests in flight at a time; more of them wait. Streams are not counted: they would take every connection."""
KEEPALIVE = 30.0
"""Seconds for which an idle connection is kept: shorter than what load balancers in front of API servers allow."""

IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")

_logger = log.get("runtime.config")


class Source(Protocol):
    """What can be read again: address and TLS once, credentials whenever they may have changed."""

    @property
    def description(self) -> str:
        """Where this comes from, for messages."""

    async def read(self) -> Settings:
        """Read everything anew. Raises ConfigError."""


class Settings(Struct, frozen=True, kw_only=True):
    """One reading of a source. `renew_in`: seconds after which the credentials should be read again, None for never."""

    url: str
    authorization: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    server_hostname: str | None = None
    proxy: str | None = None
    renew_in: float | None = None


class Connection:
    """How to reach one API server: `url` without a trailing slash, sessions with TLS, and the authorization header.

    `authorization` is the value of the header or None; `tls` is what a connection is opened with, None without TLS, and
    another object whenever a certificate has changed; `generation` counts the changes of both. `renew_at` is the
    monotonic time from which the credentials should be read again; `renew_when_due` is called before each request.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._reading: asyncio.Task[bool] | None = None
        self._files = _stamps(settings)
        self.url = settings.url.rstrip("/")
        self.server_hostname = settings.server_hostname
        self.proxy = settings.proxy
        self.tls = _tls_context(settings) if settings.url.startswith("https:") else None
        self.authorization = settings.authorization
        self.generation = 0
        self.renew_at = _when(settings.renew_in)

    def session(self, *, streams: bool = False) -> aiohttp.ClientSession:
        """Return a new session for this server, for requests or for `streams` without end; the caller closes it.

        No cookies, no proxies of the environment, no automatic headers: a request is exactly what the transport asks
        for.
        """
        connector = Connector(
            ssl=self.tls or True,
            limit=0 if streams else CONNECTION_LIMIT,
            keepalive_timeout=KEEPALIVE,
            ttl_dns_cache=30,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            proxy=self.proxy,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    def renew_when_due(self) -> None:
        """Begin to read the credentials again when it is time; nobody waits, since those there are last a while yet."""
        if self._due:
            self._read_again()

    async def renew(self, refused: int | None = None) -> bool:
        """Read the credentials again; whether they may be worth another try.

        `refused` is the `generation` that the server answered 401 to: nothing is read when another task has renewed it
        in the meantime. Without it nothing is read before `renew_at`. A source that cannot be read within READ_LIMIT is
        logged and leaves the credentials as they are. Whoever asks meanwhile waits for the same reading, which goes on
        when one of them is cancelled.
        """
        if not self._due if refused is None else refused != self.generation:
            return True
        return await asyncio.shield(self._read_again())

    @property
    def _due(self) -> bool:
        return self.renew_at is not None and time.monotonic() >= self.renew_at

    def _read_again(self) -> asyncio.Task[bool]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renewed())
        return self._reading

    async def _renewed(self) -> bool:
        try:
            settings = await _read(self._source, READ_LIMIT)
        except ConfigError as error:
            _logger.warning("Cannot renew the credentials", source=self._source.description, error=error)
            self.renew_at = time.monotonic() + RETRY_PERIOD
            return False
        return self._take(settings)

    def _take(self, settings: Settings) -> bool:
        """Adopt the credentials of a reading; whether anything is new."""
        changed = settings.authorization != self.authorization
        files = _stamps(settings)
        if files != self._files:
            try:
                if self.tls is not None:
                    self.tls = _tls_context(settings, self.tls)
            except ConfigError as error:
                # Such as a certificate whose key is yet to be written: the next reading tries again.
                _logger.warning("Cannot load the certificates", source=self._source.description, error=error)
            else:
                self._files = files
                changed = True
        self.authorization = settings.authorization
        self.generation += changed
        self.renew_at = _when(settings.renew_in)
        return changed


async def load(
    kubeconfig: str | os.PathLike[str] | None = None, context: str = "", *, limit: float = READ_LIMIT
) -> Connection:
    """Find the configuration: `kubeconfig`, else $KUBECONFIG, else the pod's service account. Raises ConfigError.

    `context` is one of the kubeconfig's, "" for its current one; `limit` is in seconds, for an exec plugin.
    """
    source = find(kubeconfig, os.environ, context)
    return Connection(source, await _read(source, limit))


async def _read(source: Source, limit: float) -> Settings:
    try:
        async with asyncio.timeout(limit):
            return await source.read()
    except TimeoutError as error:
        raise ConfigError(f"{source.description} gave no credentials within {limit:g} s") from error


def find(kubeconfig: str | os.PathLike[str] | None, environ: Mapping[str, str], context: str = "") -> Source:
    """Choose the source of the configuration; the ConfigError says what was tried."""
    if kubeconfig:
        return Kubeconfig(os.fspath(kubeconfig), "--kubeconfig", context)
    if environ.get("KUBECONFIG"):
        return Kubeconfig(environ["KUBECONFIG"], "$KUBECONFIG", context)
    if context:
        raise ConfigError(f"the context {context} is one of a kubeconfig, and there is none")
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if host and port:
        return InCluster(host, port)
    raise ConfigError(
        "no Kubernetes configuration: --kubeconfig is not given, $KUBECONFIG is not set, and this is not a pod "
        "($KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT are not set)"
    )


class InCluster:
    """The service account of the pod. Source: Kubernetes docs, "Accessing the Kubernetes API from a Pod"."""

    def __init__(self, host: str, port: str, folder: Path = SERVICE_ACCOUNT) -> None:
        self._url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._folder = folder

    @property
    def description(self) -> str:
        """The folder of the service account."""
        return f"the service account in {self._folder}"

    async def read(self) -> Settings:
        """As `Source.read`."""
        ca_file = self._folder / "ca.crt"
        token = _read_token(self._folder / "token")
        if not _stamp(str(ca_file)):
            raise ConfigError(f"{self.description}: ca.crt is missing")
        return Settings(url=self._url, authorization=f"Bearer {token}", ca_file=str(ca_file), renew_in=TOKEN_PERIOD)


class Kubeconfig:
    """One or more kubeconfig files (separated as in $PATH) and one of their contexts, the current one by default."""

    def __init__(self, paths: str, origin: str, context: str = "") -> None:
        self._paths = paths
        self._origin = origin
        self._context = context

    @property
    def description(self) -> str:
        """The path and where it was given."""
        return f"the kubeconfig {self._paths} ({self._origin})"

    async def read(self) -> Settings:
        """As `Source.read`; runs the exec plugin when there is one."""
        if not _any_exists(self._paths):
            raise ConfigError(f"{self.description} does not exist")
        # 40 MB and half a second that a pod, which has no kubeconfig, is spared.
        from kubernetes_asyncio import client as upstream_client  # noqa: PLC0415 - see above
        from kubernetes_asyncio.config import kube_config as upstream  # noqa: PLC0415 - see above

        configuration = upstream_client.Configuration()
        try:
            # Without a persister: it would write renewed tokens into the user's file, which is not a service's to
            # change.
            loader = upstream.KubeConfigLoader(
                config_dict=upstream.KubeConfigMerger(self._paths).config,
                active_context=self._context or None,
                config_base_path=None,
            )
            node = loader._user  # noqa: SLF001 - the loader has no public way to tell which user it found
            user: dict[str, Any] = {} if node is None else node.value
            self._refuse_impersonation(user)
            renew_in = await _run_plugin(user) if "exec" in user else TOKEN_PERIOD if "tokenFile" in user else None
            await loader.load_and_set(configuration)
        except ConfigError:
            raise
        except Exception as error:  # a malformed file surfaces as nearly any type (TypeError, KeyError, YAML's)
            if self._context and f"name {self._context} in" in str(error):
                raise ConfigError(
                    f"{self.description} has no context {self._context} (kubectl config get-contexts lists them)"
                ) from error
            raise ConfigError(f"{self.description} cannot be used: {type(error).__name__}: {error}") from error
        return Settings(
            url=str(configuration.host),
            authorization=configuration.api_key.get("BearerToken"),
            ca_file=configuration.ssl_ca_cert,
            cert_file=configuration.cert_file,
            key_file=configuration.key_file,
            verify=configuration.verify_ssl,
            server_hostname=configuration.tls_server_name,
            proxy=configuration.proxy,
            renew_in=renew_in,
        )

    def _refuse_impersonation(self, user: Mapping[str, Any]) -> None:
        """Raise ConfigError for a user who acts as another one, which is not supported: he would have more rights."""
        fields = [field for field in IMPERSONATION if user.get(field)]
        if fields:
            raise ConfigError(
                f"{self.description} cannot be used: "
                f"its user has {', '.join(fields)}, and impersonation is not supported"
            )


async def _run_plugin(user: dict[str, Any]) -> float | None:
    """Put what the exec plugin of a kubeconfig's user gives in its place: the loader would leave one that hangs behind.

    Returns the seconds until it should be run again, None when it gives no expiry.
    """
    status = await plugin.run(user.pop("exec"))
    token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if not token and not (certificate and key):
        raise plugin.PluginError("the exec plugin gave neither a token nor a certificate with its key")
    if token:
        user["token"] = token
    if certificate and key:
        user["client-certificate-data"] = base64.b64encode(certificate.encode())
        user["client-key-data"] = base64.b64encode(key.encode())
    if not status.get("expirationTimestamp"):
        return None
    left: float = (datetime.fromisoformat(status["expirationTimestamp"]) - datetime.now(UTC)).total_seconds()
    return max(RETRY_PERIOD, left - EXPIRY_MARGIN)


def _tls_context(settings: Settings, before: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """Make what connections are opened with. Raises ConfigError.

    It trusts what the one `before` it trusts, too: a server may show its old certificate for a while.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        # Python 3.13 turned this on; a private CA of an older cluster often lacks an extension that it demands.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if before is not None and (trusted := b"".join(before.get_ca_certs(binary_form=True))):
            context.load_verify_locations(cadata=trusted)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates of {settings.url} cannot be loaded: {error}") from error
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _when(seconds: float | None) -> float | None:
    """Return the monotonic time in so many seconds."""
    return None if seconds is None else time.monotonic() + seconds


def _stamps(settings: Settings) -> tuple[object, ...]:
    return tuple(_stamp(path) for path in (settings.ca_file, settings.cert_file, settings.key_file))


def _stamp(path: str | None) -> tuple[str, int, int] | None:
    """Identity of a file's content, None when there is no file."""
    if path is None:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return path, status.st_mtime_ns, status.st_ino


def _any_exists(paths: str) -> bool:
    return any(path and Path(path).expanduser().exists() for path in paths.split(os.pathsep))


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the service account token cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"the service account token {path} is empty")
    return token
