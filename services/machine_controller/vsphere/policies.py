"""Storage policies: finding one, and which datastores fit it.

vCenter serves them beside the inventory, at /pbm, with the same session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.errors import NotFound
from services.machine_controller.vsphere.soap import pbm
from services.machine_controller.vsphere.values import Ref, StoragePolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.machine_controller.vsphere.session import Api

_HUB: Final = "Datastore"


def _content(stub: Any) -> Any:
    return pbm.ServiceInstance("ServiceInstance", stub).RetrieveContent()


def find(api: Api, name: str) -> StoragePolicy:
    """Return the storage policy with a name or an id; NotFound with those there are."""
    profiles = api.policies(_content).profileManager
    ids = profiles.QueryProfile(
        resourceType=pbm.profile.ResourceType(resourceType="STORAGE"), profileCategory="REQUIREMENT"
    )
    found = [StoragePolicy(p.profileId.uniqueId, p.name) for p in (profiles.RetrieveContent(ids) if ids else ())]
    for policy in found:
        if name in (policy.name, policy.id):
            return policy
    raise NotFound("storage policy", name, nearby=[policy.name for policy in found])


def compatible(api: Api, policy_id: str, datastores: Sequence[Ref]) -> tuple[Ref, ...]:
    """Which of the datastores satisfy a policy, in the given order."""
    hubs = [pbm.placement.PlacementHub(hubType=_HUB, hubId=datastore.id) for datastore in datastores]
    wanted = pbm.placement.CapabilityProfileRequirement(profileId=pbm.profile.ProfileId(uniqueId=policy_id))
    results = api.policies(_content).placementSolver.CheckRequirements(
        hubsToSearch=hubs, placementSubjectRequirement=[wanted]
    )
    fitting = {result.hub.hubId for result in results if not result.error}
    return tuple(datastore for datastore in datastores if datastore.id in fitting)
