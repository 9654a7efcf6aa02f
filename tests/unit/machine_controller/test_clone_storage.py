"""Which datastore a clone gets where the machine names a storage policy."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest

from services.machine_controller.cloning import _by_policy
from services.machine_controller.vsphere.errors import InvalidValue
from services.machine_controller.vsphere.values import Found, Ref, StoragePolicy, Template

POOL = Found(Ref("ResourcePool", "resgroup-1"), "Resources", "/dc/host/c/Resources")


def stores(ids):
    """Datastores by their one-letter ids."""
    return tuple(Ref("Datastore", each) for each in ids)


class Inventory:
    """A vCenter with one pool, whose hosts see some datastores, and one policy, which some fit."""

    def __init__(self, seen, fit):
        self._seen, self._fit = stores(seen), stores(fit)

    async def storage_policy(self, name):
        return StoragePolicy(f"{name}-id", name)

    async def pool_datastores(self, pool):
        assert pool == POOL.ref
        return self._seen

    async def compatible_datastores(self, policy, datastores):
        assert policy.id == "gold-id"
        return tuple(each for each in datastores if each in self._fit)


@pytest.mark.parametrize(
    ("seen", "fit", "template", "named", "wanted"),
    [
        ("abc", "abc", "b", "", "b"),  # the template's, told rather than left to vCenter
        ("ac", "abc", "b", "", "ac"),  # the template's, which these hosts do not see
        ("abc", "ac", "b", "", "ac"),
        ("abc", "abc", "bcx", "", "bc"),
        ("abc", "abc", "b", "c", "c"),
        ("abc", "c", "b", "c", "c"),
        ("abc", "ab", "b", "c", "gold does not fit datastore store-c"),
        ("abc", "", "b", "", "gold does not fit any datastore of /dc/host/c/Resources"),
        ("", "b", "b", "", "gold does not fit any datastore of /dc/host/c/Resources"),
    ],
)
async def test_a_clone_gets_a_datastore_that_its_hosts_see_and_its_policy_accepts(seen, fit, template, named, wanted):
    origin = Template(ref=Ref("VirtualMachine", "vm-t"), name="t", datastores=stores(template))
    datastore = Found(Ref("Datastore", named), f"store-{named}") if named else None
    refused = "gold" in wanted
    told = pytest.raises(InvalidValue, match=re.escape(wanted)) if refused else nullcontext()
    with told:
        chosen = {
            await _by_policy(Inventory(seen, fit), "gold", datastore, POOL, origin, f"uuid-{number}")
            for number in range(20)
        }
        assert chosen == {("gold-id", store) for store in stores(wanted)}


async def test_a_second_try_takes_the_same_datastore():
    origin = Template(ref=Ref("VirtualMachine", "vm-t"), name="t")
    tries = {await _by_policy(Inventory("abcdef", "abcdef"), "gold", None, POOL, origin, "uuid") for _ in range(5)}
    assert len(tries) == 1
