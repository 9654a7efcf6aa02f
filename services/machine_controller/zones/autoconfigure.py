"""Reading the tags that failure domains need, and making what is missing.

Responsible for: carrying out the plan of `tagging` through vCenter's REST API.
Invariants: the same plan carried out twice, or by two processes at once, gives the same. Nothing is changed while
something about the plan cannot be done.
Must not know: Kubernetes, who may do this and when.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from services.machine_controller.vsphere.errors import Busy, DuplicateName
from services.machine_controller.vsphere.values import Cardinality
from services.machine_controller.zones.tagging import (
    Attach,
    Change,
    ConflictError,
    CreateCategory,
    CreateTag,
    ExtendCategory,
    Present,
    Wanted,
    conflicts,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.machine_controller.vsphere.tags import Tags
    from services.machine_controller.vsphere.values import Ref

_ROUNDS: Final = 5
_DESCRIPTION: Final = "Failure domains of Kubernetes clusters"


async def read(tags: Tags, categories: Iterable[str], objects: Iterable[Ref]) -> Present:
    """Read what the plan for these categories and objects needs."""
    asked = set(categories)
    found = {category.name: category for category in await tags.categories() if category.name in asked}
    listed = {name: await tags.tags(category.id) for name, category in found.items()}
    by_name = {(name, tag.name): tag for name, each in listed.items() for tag in each}
    return Present(found, by_name, await tags.attached(objects))


async def carry_out(
    tags: Tags, wants: Iterable[Wanted], names: Mapping[Ref, str] = MappingProxyType({})
) -> tuple[Change, ...]:
    """Make what is missing and return what was done. Raises VSphereError; what was done until then stays.

    Others may be at it too: what somebody has made in between is taken as it is. `names` are for messages.
    """
    wants = tuple(wants)
    done: list[Change] = []
    for _ in range(_ROUNDS):
        present = await read(
            tags, (want.category for want in wants), (target for want in wants for target in want.objects)
        )
        refused = conflicts(wants, present)
        if refused:
            raise ConflictError(refused, names)
        changes = plan(wants, present)
        if not changes:
            return tuple(done)
        try:
            for change in changes:
                present = await _make(tags, change, present)
                done.append(change)
        except DuplicateName:
            continue
    raise Busy("somebody else changes these tags all the time")


async def _make(tags: Tags, change: Change, present: Present) -> Present:
    """Make one change and return what there is then."""
    match change:
        case CreateCategory(name, types):
            made = await tags.create_category(
                name,
                description=_DESCRIPTION,
                cardinality=Cardinality.SINGLE,
                types=types,
            )
            return present._replace(categories={**present.categories, name: made})
        case ExtendCategory(name, types):
            category = present.categories[name]
            extended = await tags.update_category(category, types=category.types | set(types))
            return present._replace(categories={**present.categories, name: extended})
        case CreateTag(category_name, name):
            tag = await tags.create_tag(name, present.categories[category_name].id)
            return present._replace(tags={**present.tags, (category_name, name): tag})
        case Attach(category_name, name, target):
            await tags.attach(present.tags[category_name, name].id, target)
    return present
