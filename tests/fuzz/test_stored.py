"""What the real API server stores of generated objects: the allocator lives on, makes no mistake, and serves others."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ipam.api import CAPI_CLAIMS, GLOBAL_IP_POOLS, IP_CLAIMS, IP_POOLS, IP_RESERVATIONS
from services.runtime.kube.errors import BadRequest, Invalid
from tests.fuzz.schemas import ANYTHING, TEXTS, specs
from tests.support.capv_services import InProcess, Mistakes
from tests.support.kube import Kube, manifest
from tests.support.tenant import Tenant

_OBJECTS = 12
CLAIMS = st.fixed_dictionaries({"poolRef": st.fixed_dictionaries({"kind": TEXTS, "name": TEXTS, "apiGroup": TEXTS})})
KINDS = st.one_of(
    st.tuples(st.just(IP_POOLS), specs("IPPool")),
    st.tuples(st.just(GLOBAL_IP_POOLS), specs("GlobalIPPool")),
    st.tuples(st.just(IP_CLAIMS), specs("IPClaim")),
    st.tuples(st.just(CAPI_CLAIMS[0]), CLAIMS | ANYTHING),
    st.tuples(st.just(IP_RESERVATIONS), specs("IPReservation")),
)
ANNOTATIONS = st.dictionaries(st.sampled_from(["ipAddress", "cluster.x-k8s.io/paused"]), TEXTS, max_size=2)


async def live_through(kubeconfig, objects):
    """Store what can be stored, and have the allocator serve somebody else after all of it."""
    mistakes = Mistakes()
    async with Kube.connect(kubeconfig) as kube:
        tenant = await Tenant.create(kube)
        allocator = InProcess.allocator(kubeconfig, [tenant.namespace])
        made = []
        with mistakes.watching():
            async with allocator.running():
                for (resource, spec), annotations in objects:
                    name, where = f"fuzz-{uuid.uuid4().hex[:8]}", tenant.namespace if resource.namespaced else ""
                    obj = manifest(resource, name, where, spec, annotations=annotations)
                    with suppress(BadRequest, Invalid):
                        await kube.create(resource, obj)
                        made.append((resource, name, where))
                await tenant.pool("sound", "192.0.2.1-192.0.2.1")
                assert await tenant.give("sound", "sound") == "192.0.2.1"
                await tenant.release("sound")
                for resource, name, where in made:
                    await kube.force_delete(resource, name, where)
    assert mistakes.records == []
    return len(made)


def test_the_allocator_lives_through_whatever_is_stored(cluster):
    stored = []

    @settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.lists(st.tuples(KINDS, ANNOTATIONS), min_size=_OBJECTS, max_size=_OBJECTS))
    def examples(objects):
        stored.append(asyncio.run(live_through(cluster.kubeconfig, objects)))

    examples()
    assert sum(stored) > 0
