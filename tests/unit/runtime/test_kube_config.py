import asyncio
import json
import ssl
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from services.runtime.kube import config, plugin
from services.runtime.kube.config import Connection, InCluster, Kubeconfig, Settings, find
from services.runtime.kube.errors import ConfigError
from tools.pki import Pki

SERVER = "https://api.example:6443"


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """Two certificate authorities, as PEM files."""
    return [Pki(tmp_path_factory.mktemp(name)).ca.certificate for name in ("first", "second")]


@pytest.fixture
def account(tmp_path, authorities):
    """The folder of a service account."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(authorities[0].read_bytes())
    return tmp_path


def kubeconfig(folder, user=None, cluster=None, **changes):
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": SERVER + "/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **changes,
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


async def connect(source):
    return Connection(source, await source.read())


class Counting:
    """A source whose token is the number of the reading; it fails on demand."""

    description = "a counting source"

    def __init__(self):
        self.reads = 0
        self.broken = False

    async def read(self):
        await asyncio.sleep(0)
        if self.broken:
            raise ConfigError("gone")
        self.reads += 1
        return Settings(url="http://x", authorization=f"Bearer {self.reads}", renew_in=60.0)


# Where the configuration is found


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        ("/a", {"KUBECONFIG": "/b"}, "the kubeconfig /a (--kubeconfig)"),
        (None, {"KUBECONFIG": "/b"}, "the kubeconfig /b ($KUBECONFIG)"),
        ("", {"KUBECONFIG": "/b", "KUBERNETES_SERVICE_HOST": "h"}, "the kubeconfig /b ($KUBECONFIG)"),
        (
            None,
            {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"},
            "the service account in /var/run/secrets/kubernetes.io/serviceaccount",
        ),
    ],
)
def test_the_configuration_is_looked_for_in_order(given, environ, found):
    assert find(given, environ).description == found


@pytest.mark.parametrize("environ", [{}, {"KUBECONFIG": ""}, {"KUBERNETES_SERVICE_HOST": "h"}])
def test_without_any_configuration_the_error_says_what_was_tried(environ):
    with pytest.raises(ConfigError, match=r"--kubeconfig.*\$KUBECONFIG.*not a pod"):
        find(None, environ)


async def test_a_kubeconfig_that_does_not_exist_is_named(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match=r"missing \(--kubeconfig\) does not exist"):
        await config.load(missing)


async def test_a_context_of_the_kubeconfig_may_be_chosen(tmp_path):
    contexts = [{"name": name, "context": {"cluster": name, "user": "u"}} for name in ("c", "d")]
    clusters = [{"name": name, "cluster": {"server": f"https://{name}:6443"}} for name in ("c", "d")]
    path = kubeconfig(tmp_path, {"token": "t"}, contexts=contexts, clusters=clusters)
    assert (await config.load(path)).url == "https://c:6443"
    assert (await config.load(path, "d")).url == "https://d:6443"


async def test_a_context_that_is_not_in_the_kubeconfig_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"has no context nowhere \(kubectl config get-contexts lists them\)"):
        await config.load(kubeconfig(tmp_path, {"token": "t"}), "nowhere")


def test_a_context_needs_a_kubeconfig():
    with pytest.raises(ConfigError, match="the context c is one of a kubeconfig"):
        find(None, {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}, "c")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "apiVersion: v1\nkind: Config\n",
        yaml.safe_dump({"current-context": "x", "contexts": [], "clusters": [], "users": []}),
    ],
)
async def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path, content):
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(ConfigError, match="cannot be used"):
        await config.load(path)


async def test_a_certificate_that_cannot_be_loaded_is_refused(tmp_path):
    broken = tmp_path / "ca.crt"
    broken.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"certificates of https://api.example:6443"):
        await config.load(kubeconfig(tmp_path, {"token": "t"}, {"certificate-authority": str(broken)}))


@pytest.mark.parametrize(
    "field", [{"as": "viewer"}, {"as-uid": "1"}, {"as-groups": ["g"]}, {"as-user-extra": {"k": ["v"]}}]
)
async def test_a_user_who_acts_as_another_is_refused_since_he_would_have_more_rights(tmp_path, field):
    with pytest.raises(ConfigError, match=f"its user has {next(iter(field))}, and impersonation is not supported"):
        await config.load(kubeconfig(tmp_path, {"token": "t", **field}))


# What it says


async def test_a_kubeconfig_gives_address_token_and_options(tmp_path, authorities):
    options = {
        "certificate-authority": str(authorities[0]),
        "tls-server-name": "kubernetes.default",
        "proxy-url": "http://proxy:3128",
    }
    connection = await config.load(kubeconfig(tmp_path, {"token": "t"}, options))
    assert (connection.url, connection.authorization) == (SERVER, "Bearer t")
    assert (connection.server_hostname, connection.proxy) == ("kubernetes.default", "http://proxy:3128")
    assert connection.tls.verify_mode is ssl.CERT_REQUIRED
    assert connection.renew_at is None


async def test_verification_is_off_only_when_the_kubeconfig_says_so(tmp_path):
    connection = await config.load(kubeconfig(tmp_path, {"token": "t"}, {"insecure-skip-tls-verify": True}))
    assert connection.tls.verify_mode is ssl.CERT_NONE
    assert not connection.tls.check_hostname


async def test_a_plain_http_server_has_no_tls(tmp_path):
    connection = await config.load(
        kubeconfig(tmp_path, {"username": "u", "password": "p"}, {"server": "http://x:8001"})
    )
    assert connection.tls is None
    assert connection.authorization == "Basic dTpw"


async def test_proxies_of_the_environment_are_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    connection = await config.load(kubeconfig(tmp_path, {"token": "t"}))
    assert connection.proxy is None
    async with connection.session() as session:
        assert not session.trust_env


@pytest.mark.parametrize(("host", "url"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
async def test_a_pod_finds_its_service_account(account, host, url):
    connection = await connect(InCluster(host, "443", account))
    assert (connection.url, connection.authorization) == (url, "Bearer first")
    assert len(connection.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [("token", None, "token cannot be read"), ("token", " \n", "is empty"), ("ca.crt", None, "ca.crt is missing")],
)
async def test_an_incomplete_service_account_is_refused(account, file, content, message):
    (account / file).unlink()
    if content is not None:
        (account / file).write_text(content)
    with pytest.raises(ConfigError, match=message):
        await InCluster("10.0.0.1", "443", account).read()


# Renewal


async def test_a_rotated_token_and_a_rotated_authority_are_taken_when_due(account, authorities):
    connection = await connect(InCluster("10.0.0.1", "443", account))
    (account / "token").write_text("second")
    (account / "ca.crt").write_bytes(authorities[1].read_bytes())
    await connection.renew()
    assert connection.authorization == "Bearer first", "a minute has not passed"
    connection.renew_at = 0.0
    await connection.renew()
    assert connection.authorization == "Bearer second"
    assert len(connection.tls.get_ca_certs()) == 2
    assert connection.renew_at > time.monotonic() + 30


async def test_a_token_file_named_in_a_kubeconfig_is_read_again(tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    connection = await config.load(kubeconfig(tmp_path, {"tokenFile": str(token)}))
    token.write_text("second")
    connection.renew_at = 0.0
    await connection.renew()
    assert connection.authorization == "Bearer second"


async def test_many_refused_requests_renew_once():
    source = Counting()
    connection = await connect(source)
    renewed = await asyncio.gather(*(connection.renew(0) for _ in range(20)))
    assert source.reads == 2
    assert connection.authorization == "Bearer 2"
    assert renewed == [True] * 20


async def test_a_refusal_is_final_when_reading_again_gives_the_same(tmp_path):
    connection = await config.load(kubeconfig(tmp_path, {"token": "t"}))
    assert not await connection.renew(connection.generation)


async def test_a_source_that_cannot_be_read_leaves_the_credentials_and_is_tried_again_soon(logged):
    source = Counting()
    connection = await connect(source)
    source.broken = True
    connection.renew_at = 0.0
    assert not await connection.renew()
    assert connection.authorization == "Bearer 1"
    assert [record["msg"] for record in logged()] == ["Cannot renew the credentials"]
    await connection.renew()
    assert len(logged()) == 1, "not with every request"
    source.broken, connection.renew_at = False, 0.0
    await connection.renew()
    assert connection.authorization == "Bearer 2"


def exec_plugin(folder, expires_in):
    """A kubeconfig whose plugin answers with the number of its run."""
    expiry = (datetime.now(UTC) + timedelta(seconds=expires_in)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"token": "TOKEN", "expirationTimestamp": expiry}
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    script = folder / "plugin.py"
    script.write_text(
        "import pathlib\n"
        f"runs = pathlib.Path({str(folder / 'runs')!r})\n"
        "runs.write_text(runs.read_text() + 'x' if runs.exists() else 'x')\n"
        f"print({json.dumps(answer)!r}.replace('TOKEN', f'run-{{len(runs.read_text())}}'))\n"
    )
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)]}
    return kubeconfig(folder, {"exec": plugin})


async def test_an_exec_plugin_is_run_again_before_its_token_expires(tmp_path):
    connection = await config.load(exec_plugin(tmp_path, expires_in=1000))
    assert connection.authorization == "Bearer run-1"
    assert 900 < connection.renew_at - time.monotonic() < 960
    connection.renew_at = 0.0
    await connection.renew()
    assert connection.authorization == "Bearer run-2"


async def test_an_exec_plugin_is_run_again_when_its_token_is_refused(tmp_path):
    connection = await config.load(exec_plugin(tmp_path, expires_in=100_000))
    assert await connection.renew(connection.generation)
    assert connection.authorization == "Bearer run-2"


async def test_a_token_that_expires_at_once_does_not_run_the_plugin_for_each_request(tmp_path):
    connection = await config.load(exec_plugin(tmp_path, expires_in=-5))
    assert connection.renew_at > time.monotonic() + 5


async def test_an_exec_plugin_that_fails_is_an_error_with_its_words(tmp_path):
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", "raise SystemExit('log in first')"],
    }
    with pytest.raises(ConfigError, match="log in first"):
        await Kubeconfig(str(kubeconfig(tmp_path, {"exec": plugin})), "--kubeconfig").read()


def hanging_plugin(folder):
    """A kubeconfig whose plugin hangs, with a process of its own, and writes the numbers of both to `pids`."""
    script = f"echo $$ > {folder}/new; sleep 600 & echo $! >> {folder}/new; mv {folder}/new {folder}/pids; wait"
    version = "client.authentication.k8s.io/v1"
    return kubeconfig(folder, {"exec": {"apiVersion": version, "command": "sh", "args": ["-c", script]}})


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read(path):
    return Path(path).read_text()


async def ended(pids):
    async with asyncio.timeout(20):
        while any(alive(pid) for pid in pids.read_text().split()):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.01)


async def test_an_exec_plugin_that_hangs_is_given_up_and_ended_with_what_it_has_started(tmp_path):
    path, pids = hanging_plugin(tmp_path), tmp_path / "pids"
    async with asyncio.timeout(20):
        with pytest.raises(ConfigError, match=r"gave no credentials within 0\.5 s"):
            await config.load(path, limit=0.5)
        while not pids.exists():  # on a busy machine it may not have come so far
            with pytest.raises(ConfigError):
                await config.load(path, limit=2.0)
    await ended(pids)


async def test_an_exec_plugin_ends_with_whoever_waits_for_it(tmp_path):
    path, pids = hanging_plugin(tmp_path), tmp_path / "pids"
    reading = asyncio.create_task(Kubeconfig(str(path), "--kubeconfig").read())
    async with asyncio.timeout(20):
        while not pids.exists():  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await ended(pids)


async def test_an_exec_plugin_that_is_given_up_while_it_starts_is_ended_too():
    section = {"apiVersion": "v1", "command": "sh", "args": ["-c", "sleep 600 & wait"]}
    for turns in range(6):
        running = asyncio.create_task(plugin.run(section))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.05)  # so that it has come to start its own process  # noqa: ASYNC251
        running.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await running


async def test_a_renewal_that_takes_too_long_is_given_up_and_tried_again_later(monkeypatch, logged):
    class Hung(Counting):
        async def read(self):
            if self.reads:
                await asyncio.Event().wait()
            return await super().read()

    monkeypatch.setattr(config, "READ_LIMIT", 0.05)
    connection = await connect(Hung())
    assert not await connection.renew(connection.generation)
    assert "gave no credentials within 0.05 s" in logged()[0]["error"]
    assert connection.renew_at > time.monotonic() + 5


def answering_plugin(folder, answer):
    version = "client.authentication.k8s.io/v1"
    if isinstance(answer, dict):
        answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", **answer})
    script = "import os, sys; sys.stdout.write(sys.argv[1].replace('TOKEN', os.environ.get('WORD', '')))"
    section = {"apiVersion": version, "command": sys.executable, "args": ["-c", script, answer]}
    section["env"] = [{"name": "WORD", "value": "from-env"}]
    return kubeconfig(folder, {"exec": section, "token": "not-this"})


async def test_an_exec_plugin_may_give_a_certificate_and_gets_its_environment(tmp_path):
    pair = Pki(tmp_path / "pki").client("admin", "admin", "")
    texts = {"clientCertificateData": pair.certificate.read_text(), "clientKeyData": pair.key.read_text()}
    source = Kubeconfig(str(answering_plugin(tmp_path, {"status": {"token": "TOKEN", **texts}})), "--kubeconfig")
    settings = await source.read()
    assert (settings.authorization, settings.renew_in) == ("Bearer from-env", None)
    assert [read(path) for path in (settings.cert_file, settings.key_file)] == list(texts.values())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("<html>", "printed no JSON"),
        ("[]", "printed no ExecCredential of client.authentication.k8s.io/v1"),
        ({"apiVersion": "client.authentication.k8s.io/v1beta1"}, "printed no ExecCredential of"),
        ({}, "without a status"),
        ({"status": {}}, "neither a token nor a certificate with its key"),
        ({"status": {"clientCertificateData": "c"}}, "neither a token nor a certificate with its key"),
        ({"status": {"token": "t", "expirationTimestamp": "soon"}}, "soon"),
    ],
)
async def test_an_exec_plugin_that_gives_no_credentials_is_an_error_that_says_so(tmp_path, answer, message):
    with pytest.raises(ConfigError, match=message):
        await Kubeconfig(str(answering_plugin(tmp_path, answer)), "--kubeconfig").read()


async def test_an_exec_section_without_a_command_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ConfigError, match="the exec section has no command"):
        await config.load(kubeconfig(tmp_path, {"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}))
