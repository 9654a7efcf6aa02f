"""Self-made certificates on a real API server: replicas that agree, rotations nobody notices, repair, and rights."""

import asyncio
import base64
import contextlib
import datetime as dt

import pytest

from services.runtime import certs_decide, pki
from services.runtime.certs import MountedCertificates, secret_pair
from services.runtime.certs_decide import Lifetimes, Step
from services.runtime.certs_managed import CONFIGURATIONS, SECRETS, ManagedCertificates
from services.runtime.clock import SystemClock
from services.runtime.kube.transport import PatchKind
from services.runtime.settings import Address
from services.runtime.webhook import WebhookServer
from tests.support.hooks import Balancer, Load, configuration, configured, noted, review, serving, trusting
from tests.support.kube import Kube, eventually, manifest
from tests.support.toy_webhook import annotate
from tests.support.waiting import until

LOCAL = Address("127.0.0.1", 0)
NAMES = ("hook.ns.svc", "127.0.0.1")
LIVES = Lifetimes(dt.timedelta(days=300), dt.timedelta(days=30), overlap=dt.timedelta(seconds=1))
SETTLE = 0.5


class Replica:
    """The certificates of one process, with everything that the manager would run."""

    def __init__(self, client, namespace, hooks, names=NAMES, **options):
        self.certificates = ManagedCertificates(
            client,
            namespace=namespace,
            secret="hook-certs",
            configuration=hooks,
            names=names,
            label="hook",
            clock=SystemClock(),
            lifetimes=LIVES,
            settle_seconds=SETTLE,
            **options,
        )

    @contextlib.asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            reflectors = self.certificates.reflectors
            tasks = [group.create_task(reflector.run()) for reflector in reflectors]
            for reflector in reflectors:
                await reflector.store.wait_synced()
            tasks.append(group.create_task(self.certificates.run()))
            yield self.certificates
            for task in tasks:
                task.cancel()


def secret_data(secret):
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


async def stored(kube, namespace):
    return secret_data(await kube.get(SECRETS, "hook-certs", namespace))


async def put(kube, namespace, data):
    """Write the Secret as somebody else would."""
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    found = await kube.find(SECRETS, "hook-certs", namespace)
    if found is None:
        await kube.create(SECRETS, {**manifest(SECRETS, "hook-certs", namespace), "data": encoded})
    else:
        removed = {name: None for name in found["data"] if name not in encoded}
        await kube.patch(SECRETS, "hook-certs", namespace, data={**removed, **encoded})


async def published(kube, name):
    """What each webhook of a configuration publishes, as fingerprints."""
    found = await kube.get(CONFIGURATIONS, name)
    texts = [base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in found["webhooks"]]
    return certs_decide.published(texts)


def trusted(data):
    return certs_decide.published([certs_decide.bundle(data, SystemClock().now())])[0]


def aged(days, *steps):
    """A Secret that was made some days ago."""
    then = SystemClock().now() - dt.timedelta(days=days)
    data = None
    for step in (Step.CREATE, *steps):
        data = certs_decide.carried_out(step, data, then, NAMES, LIVES, label="hook")
    return data


async def test_two_replicas_that_start_at_once_agree_on_one_ca_and_publish_it(kube, namespace):
    wanted = configuration(namespace, namespace, 1, hooks=3)
    async with configured(kube, wanted) as hooks, contextlib.AsyncExitStack() as stack:
        replicas = [Replica(kube.client, namespace, hooks) for _ in range(4)]
        running = [await stack.enter_async_context(replica.running()) for replica in replicas]
        for certificates in running:
            await certificates.wait_loaded()
        data = await stored(kube, namespace)
        assert {certificates.fingerprint for certificates in running} == {pki.read(data["tls.crt"]).fingerprint}
        assert pki.read(data["tls.crt"]).names == set(NAMES)
        await eventually(lambda: published(kube, hooks), lambda seen: seen == (trusted(data),) * 3)
        assert (await kube.get(SECRETS, "hook-certs", namespace))["type"] == "kubernetes.io/tls"


async def test_a_ca_bundle_that_somebody_wipes_or_replaces_is_put_back(kube, namespace):
    wanted = configuration(namespace, namespace, 1, hooks=2)
    async with configured(kube, wanted) as hooks, Replica(kube.client, namespace, hooks).running() as certificates:
        await certificates.wait_loaded()
        mine = (trusted(await stored(kube, namespace)),) * 2
        await eventually(lambda: published(kube, hooks), lambda seen: seen == mine)
        foreign = pki.make_authority("foreign", SystemClock().now(), dt.timedelta(days=1)).certificate
        for bundle in (b"", foreign):
            changed = configuration(namespace, namespace, 1, hooks=2, bundle=bundle, timeout=7)
            await kube.patch(CONFIGURATIONS, hooks, webhooks=changed["webhooks"])
            await eventually(lambda: published(kube, hooks), lambda seen: seen == mine)
            found = await kube.get(CONFIGURATIONS, hooks)
            assert [hook["timeoutSeconds"] for hook in found["webhooks"]] == [7, 7], "nothing else is touched"


async def test_a_configuration_that_comes_later_is_given_the_ca(kube, namespace):
    async with Replica(kube.client, namespace, namespace).running() as certificates:
        await certificates.wait_loaded()
        async with configured(kube, configuration(namespace, namespace, 1)) as hooks:
            mine = (trusted(await stored(kube, namespace)),)
            await eventually(lambda: published(kube, hooks), lambda seen: seen == mine)


@pytest.mark.parametrize(
    "start",
    ["leaf is old", "leaf and CA are old", "Secret is deleted", "CA key is lost"],
)
async def test_a_rotation_under_load_costs_no_admission(kube, namespace, start):
    ages = {"leaf is old": aged(21), "leaf and CA are old": aged(280, Step.RENEW)}
    before = ages.get(start, aged(1))
    if start == "leaf and CA are old":
        recent = SystemClock().now() - dt.timedelta(days=1)
        before = certs_decide.carried_out(Step.RENEW, before, recent, NAMES, LIVES, label="hook")
    await put(kube, namespace, before)
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(Balancer())
        bundle = certs_decide.bundle(before, SystemClock().now())
        wanted = configuration(namespace, namespace, service.port, bundle=bundle)
        hooks = await stack.enter_async_context(configured(kube, wanted))
        # Two that follow and serve, as other replicas and processes do; they must not be ahead of what is published.
        replicas = [Replica(kube.client, namespace, hooks, writes=False) for _ in range(2)]
        running = [await stack.enter_async_context(replica.running()) for replica in replicas]
        for certificates in running:
            server = WebhookServer(LOCAL, certificates, {"/annotate": annotate})
            await stack.enter_async_context(serving(server))
            service.backends.append(server.address.port)
        await eventually(lambda: review(kube, namespace), noted)
        old = pki.read(before["tls.crt"]).fingerprint
        assert {certificates.fingerprint for certificates in running} == {old}
        async with Load(kube, namespace) as load:
            shaking = asyncio.create_task(_shake_hands(kube, hooks, service.port, load))
            await load.more(20)
            if start == "Secret is deleted":
                await kube.delete(SECRETS, "hook-certs", namespace)
            elif start == "CA key is lost":
                await kube.patch(SECRETS, "hook-certs", namespace, data={"ca.key": None})
            async with Replica(kube.client, namespace, hooks).running() as writer:
                if start == "Secret is deleted":  # the one that writes had seen the Secret before
                    writer._remembered = bundle
                await until(lambda: old not in {one.fingerprint for one in running})
                if start == "leaf and CA are old":
                    after = await eventually(lambda: stored(kube, namespace), lambda data: "old-ca.crt" in data)
                    issuer = certs_decide.issuer(after)
                    assert issuer != certs_decide.issuer(before)
                    await until(
                        lambda: {pki.read(after["tls.crt"]).fingerprint} == {one.fingerprint for one in running}
                    )
            await load.more(60)
            shaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shaking
        assert load.refused == []
    after = await stored(kube, namespace)
    if start == "leaf is old":
        assert certs_decide.issuer(after) == certs_decide.issuer(before)
    else:
        assert certs_decide.issuer(after) != certs_decide.issuer(before)
        assert pki.read(before["ca.crt"]).fingerprint in trusted(after), "who serves the old leaf is still trusted"


async def _shake_hands(kube, hooks, port, load):
    """New handshakes all the time, with what the configuration publishes at that moment: the API server's are few."""
    while True:
        found = await kube.get(CONFIGURATIONS, hooks)
        bundle = base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(bundle), server_hostname="127.0.0.1"
            )
        except OSError as error:
            load.refused.append(f"a handshake failed: {error}")
            return
        writer.close()
        await asyncio.sleep(0.005)


async def test_no_replica_shows_a_leaf_before_its_ca_is_published(kube, namespace):
    before = aged(1)
    await put(kube, namespace, before)
    wanted = configuration(namespace, namespace, 1, bundle=certs_decide.bundle(before, SystemClock().now()), hooks=2)
    async with (
        configured(kube, wanted) as hooks,
        Replica(kube.client, namespace, hooks, writes=False).running() as follower,
    ):
        await follower.wait_loaded()
        old = follower.fingerprint
        after = aged(0)
        await put(kube, namespace, after)
        await asyncio.sleep(2 * SETTLE)
        assert follower.fingerprint == old, "nobody trusts the new one"
        both = base64.b64encode(before["ca.crt"] + after["ca.crt"]).decode()
        path = "/webhooks/{}/clientConfig/caBundle"
        for number in range(2):
            assert follower.fingerprint == old, "one webhook does not trust it"
            change = [{"op": "add", "path": path.format(number), "value": both}]
            await kube._send("PATCH", CONFIGURATIONS.path("", hooks), change, PatchKind.JSON)
        await until(lambda: follower.fingerprint == pki.read(after["tls.crt"]).fingerprint)


async def test_a_secret_that_cannot_be_used_leaves_the_old_pair_serving_and_is_repaired(kube, namespace):
    async with configured(kube, configuration(namespace, namespace, 1)) as hooks:
        async with Replica(kube.client, namespace, hooks).running() as writer:
            await writer.wait_loaded()
        async with Replica(kube.client, namespace, hooks, writes=False).running() as follower:
            await follower.wait_loaded()
            old = follower.fingerprint
            await kube.patch(SECRETS, "hook-certs", namespace, data={"tls.key": base64.b64encode(b"broken").decode()})
            await until(lambda: follower._problem)
            assert follower.fingerprint == old
            assert follower.check() is True
            async with Replica(kube.client, namespace, hooks).running():
                await until(lambda: follower.fingerprint != old)
            assert not follower._problem


async def test_the_rights_to_one_secret_and_one_configuration_are_enough(kube, cluster, namespace):
    def rule(group, resource, verbs, *names):
        return {"apiGroups": [group], "resources": [resource], "verbs": verbs, "resourceNames": list(names)}

    rules = [
        rule("", "secrets", ["create"]),
        rule("", "secrets", ["get", "list", "watch", "update"], "hook-certs"),
        rule("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ["list", "watch", "patch"], namespace),
    ]
    path = await asyncio.to_thread(cluster.service_account_kubeconfig, namespace, f"hook-{namespace}", rules)
    async with (
        configured(kube, configuration(namespace, namespace, 1)) as hooks,
        Kube.connect(path) as limited,
        Replica(limited.client, namespace, hooks).running() as certificates,
    ):
        await certificates.wait_loaded()
        mine = (trusted(await stored(kube, namespace)),)
        await eventually(lambda: published(kube, hooks), lambda seen: seen == mine)


async def test_without_the_right_to_publish_it_serves_all_the_same_and_says_what_is_missing(
    kube, cluster, namespace, caplog
):
    rules = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["list", "watch"]},
    ]
    path = await asyncio.to_thread(cluster.service_account_kubeconfig, namespace, f"hook-{namespace}", rules)
    async with (
        configured(kube, configuration(namespace, namespace, 1)) as hooks,
        Kube.connect(path) as limited,
        Replica(limited.client, namespace, hooks).running() as certificates,
    ):
        await certificates.wait_loaded()
        await until(lambda: "A step with the webhook's certificates failed" in caplog.text)
        assert certificates.check() is True
    (record,) = [record for record in caplog.records if record.message.startswith("A step with")]
    assert record.groundwork_fields["step"] == "publish"
    assert "mutatingwebhookconfigurations" in str(record.groundwork_fields["error"])


async def test_a_mounted_pair_that_is_rotated_under_load_costs_no_admission(kube, namespace, tmp_path):
    def write(data):
        pair = secret_pair(data)
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / "tls.key").write_bytes(pair.key)

    data = aged(1)
    write(data)
    mounted = MountedCertificates(tmp_path, SystemClock(), look_seconds=0.02)
    looking = asyncio.create_task(mounted.run())
    server = WebhookServer(LOCAL, mounted, {"/annotate": annotate})
    try:
        async with serving(server):
            bundle = certs_decide.bundle(data, SystemClock().now())
            async with configured(
                kube, configuration(namespace, namespace, server.address.port, bundle=bundle)
            ) as hooks:
                await eventually(lambda: review(kube, namespace), noted)
                async with Load(kube, namespace) as load:
                    shaking = asyncio.create_task(_shake_hands(kube, hooks, server.address.port, load))
                    for _ in range(5):
                        await load.more(20)
                        old = mounted.fingerprint
                        data = certs_decide.carried_out(
                            Step.RENEW, data, SystemClock().now(), NAMES, LIVES, label="hook"
                        )
                        (tmp_path / "tls.crt").write_bytes(data["tls.crt"])  # for a while it belongs to another key
                        await asyncio.sleep(0.1)
                        assert mounted.fingerprint == old
                        (tmp_path / "tls.key").write_bytes(data["tls.key"])
                        await until(lambda old=old: mounted.fingerprint != old)
                    shaking.cancel()
                    await asyncio.gather(shaking, return_exceptions=True)
                assert load.refused == []
    finally:
        looking.cancel()
