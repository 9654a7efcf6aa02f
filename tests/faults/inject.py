"""Carrying out one fault on the estate, and taking it back.

Responsible for: what each kind of the plan does. Every function returns when the fault is over and healed, save for
what heals by itself.
Invariants: one fault at a time for each process, each gate, the control plane, vCenter and the certificates; every kind
of `plan.KINDS` has a function here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import functools
import random
import signal
from collections import defaultdict

from services.runtime import pki
from services.runtime.kube.errors import KubeError
from services.runtime.kube.resource import Resource
from tests.faults.estate import CERTIFICATES, CONFIGURATION_NAME
from tests.support.vcenter import PASSWORD, USER

_SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
_CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
_JUMPS = (-86_400, -3_600, -10, 10, 3_600, 86_400)
_STOPPED, _RUNS = (0.15, 0.5), (0.02, 0.15)
_KUBE_SECONDS = 30.0


class Injector:
    """`await injector.make(fault)`."""

    def __init__(self, estate):
        self._estate = estate
        self._locks = defaultdict(asyncio.Lock)

    async def make(self, fault):
        """Make a fault and heal it."""
        rng = random.Random(fault.salt)
        kind = _KINDS[fault.kind]
        place = "control plane" if fault.target in {"apiserver", "etcd"} else f"{kind.place} {fault.target}"
        async with self._locks[place]:
            await kind(self._estate, fault, rng)


class _Kind:
    """A function and what it must not run beside of the same: `process`, `gate` or `thing`."""

    def __init__(self, place, function):
        self.place = place
        self._function = function

    async def __call__(self, estate, fault, rng):
        await self._function(estate, fault, rng)


_KINDS = {}


def _kind(name, place="thing"):
    def add(function):
        _KINDS[name] = _Kind(place, function)
        return function

    return add


# Processes


@_kind("kill", "process")
async def _kill(estate, fault, rng):
    await asyncio.to_thread(estate.replicas[fault.target].kill)


@_kind("terminate", "process")
async def _terminate(estate, fault, rng):
    estate.replicas[fault.target].signal(signal.SIGTERM)


@_kind("pause", "process")
@_kind("pause beyond the lease", "process")
async def _pause(estate, fault, rng):
    replica = estate.replicas[fault.target]
    replica.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        replica.signal(signal.SIGCONT)


@_kind("full disk for logs", "process")
async def _full_disk(estate, fault, rng):
    replica = estate.replicas[fault.target]
    replica.full_disk = True
    try:
        await asyncio.to_thread(replica.kill)
        await asyncio.sleep(fault.seconds)
    finally:
        replica.full_disk = False
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(replica.kill)


@_kind("clock jump", "process")
async def _clock_jump(estate, fault, rng):
    replica = estate.replicas[fault.target]
    replica.set_clock(rng.choice(_JUMPS))
    try:
        await asyncio.sleep(fault.seconds + 1)
    finally:
        replica.set_clock(0)


# The control plane


@_kind("kill the API server")
async def _kill_apiserver(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.kill_apiserver)
    await asyncio.to_thread(estate.cluster.start_apiserver)


@_kind("restart the API server")
async def _restart_apiserver(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.stop_apiserver, grace=2.0)
    await asyncio.to_thread(estate.cluster.start_apiserver)


@_kind("pause the API server")
async def _pause_apiserver(estate, fault, rng):
    daemon = estate.cluster.apiserver.daemon
    daemon.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        daemon.signal(signal.SIGCONT)


@_kind("kill etcd")
async def _kill_etcd(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.kill_etcd)
    await asyncio.to_thread(estate.cluster.start_etcd)


@_kind("restart etcd")
async def _restart_etcd(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.stop_etcd)
    await asyncio.to_thread(estate.cluster.start_etcd)


@_kind("compact etcd")
async def _compact(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.compact_etcd)


@_kind("expire every watch")
async def _expire(estate, fault, rng):
    await asyncio.to_thread(estate.cluster.expire_watches)


@_kind("slow disk for etcd")
async def _slow_disk(estate, fault, rng):
    """What an fsync that takes long does to etcd: nothing is answered meanwhile."""
    daemon = estate.cluster.etcd.daemon
    end = asyncio.get_running_loop().time() + fault.seconds
    while asyncio.get_running_loop().time() < end:
        daemon.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(rng.uniform(*_STOPPED))
        finally:
            daemon.signal(signal.SIGCONT)
        await asyncio.sleep(rng.uniform(*_RUNS))


# Between a service and the API server


def _gate(name, act):
    @_kind(name, "gate")
    async def make(estate, fault, rng):
        gate = estate.gates[fault.target]
        act(gate)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            gate.heal()


_gate("watch stall", lambda gate: gate.stall_watches())
_gate("half-open watches", lambda gate: gate.half_open(watches=True))
_gate("half-open requests", lambda gate: gate.half_open(watches=False))
_gate("cut connections", lambda gate: gate.cut())
_gate("refused connections", lambda gate: gate.refuse())
_gate("storm of 5xx", lambda gate: gate.storm(500, 502, 503, 504))
_gate("storm of 429", lambda gate: gate.storm(429))
_gate("storm of conflicts", lambda gate: gate.storm(409, writes_only=True))
_gate("lost answers", lambda gate: gate.lose_answers())
_gate("slow answers", lambda gate: gate.slow(2.0))
_gate("expired credentials", lambda gate: gate.storm(401, share=1.0))
_gate("partition", lambda gate: gate.partition())


@_kind("partition of its network namespace", "gate")
async def _netns(estate, fault, rng):
    await asyncio.to_thread(estate.network.cut)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await asyncio.to_thread(estate.network.join)


# The webhook's certificates


async def _change_secret(estate, change):
    """Change the data of the certificates' Secret: `change` is given texts of PEM by key."""
    with contextlib.suppress(KubeError):
        found = await estate.kube.find(_SECRETS, CERTIFICATES, "default")
        if found is not None:
            data = {name: base64.b64decode(value) for name, value in found["data"].items()}
            encoded = {name: base64.b64encode(value).decode() for name, value in change(data).items()}
            await estate.kube.patch(_SECRETS, CERTIFICATES, "default", data=encoded)


@_kind("expired certificate")
async def _expired(estate, fault, rng):
    """A leaf and its CA that ended an hour ago, as after a long time without a running replica."""

    def change(data):
        then, day = dt.datetime.now(dt.UTC) - dt.timedelta(days=1, hours=1), dt.timedelta(days=1)
        authority = pki.make_authority("expired", then, day)
        leaf = pki.issue(authority, ["127.0.0.1"], then, day)
        return {**data, "tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.certificate}

    await _change_secret(estate, change)


@_kind("half-rotated certificate")
async def _half_rotated(estate, fault, rng):
    """A new key beside the old certificate, or the other way round."""

    def change(data):
        now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
        leaf = pki.issue(pki.make_authority("half", now, day), ["127.0.0.1"], now, day)
        return {**data, **rng.choice([{"tls.crt": leaf.certificate}, {"tls.key": leaf.key}, {"tls.key": b""}])}

    await _change_secret(estate, change)


@_kind("lost certificate")
async def _lost(estate, fault, rng):
    with contextlib.suppress(KubeError):
        await estate.kube.delete(_SECRETS, CERTIFICATES, "default")


@_kind("wrong caBundle")
async def _wrong_bundle(estate, fault, rng):
    now = dt.datetime.now(dt.UTC)
    stranger = pki.make_authority("stranger", now, dt.timedelta(days=1)).certificate
    with contextlib.suppress(KubeError):
        found = await estate.kube.get(_CONFIGURATIONS, CONFIGURATION_NAME)
        for hook in found["webhooks"]:
            hook["clientConfig"]["caBundle"] = base64.b64encode(stranger).decode()
        await estate.kube.patch(_CONFIGURATIONS, CONFIGURATION_NAME, webhooks=found["webhooks"])


# vCenter


async def _vcenter(estate, fault, begin):
    await asyncio.to_thread(begin)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await asyncio.to_thread(estate.sim.release)


@_kind("vCenter outage")
async def _outage(estate, fault, rng):
    await asyncio.to_thread(estate.sim.down)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await asyncio.to_thread(estate.sim.up)


@_kind("vCenter forgets its sessions")
async def _sessions(estate, fault, rng):
    await asyncio.to_thread(estate.sim.expire)


@_kind("vCenter tasks fail")
async def _tasks(estate, fault, rng):
    operation, name = rng.choice(
        [
            ("cloneVm", "NoDiskSpace"),
            ("reconfigVm", "ConcurrentAccess"),
            ("powerOn", "InsufficientCpuResourcesFault"),
            ("destroy", "ResourceInUse"),
        ]
    )
    await _vcenter(estate, fault, functools.partial(estate.sim.task, operation, fault=name))


@_kind("vCenter answers are lost")
async def _answers(estate, fault, rng):
    method = rng.choice(["CloneVM_Task", "ReconfigVM_Task", "PowerOnVM_Task", "Destroy_Task"])
    drop = rng.choice(["before", "after"])
    await _vcenter(estate, fault, functools.partial(estate.sim.request, method, drop=drop))


@_kind("vCenter is slow")
async def _slow_vcenter(estate, fault, rng):
    operation = rng.choice(["cloneVm", "reconfigVm", "powerOn", "destroy"])
    delay = rng.randrange(200, 2000)
    await _vcenter(estate, fault, functools.partial(estate.sim.task, operation, delayMs=delay))


@_kind("vCenter refuses the password")
async def _password(estate, fault, rng):
    await asyncio.to_thread(estate.sim.users, {USER: "another-Passw0rd"})
    await asyncio.to_thread(estate.sim.expire)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        await asyncio.to_thread(estate.sim.users, {USER: PASSWORD})
