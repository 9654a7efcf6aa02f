"""Tags of regions and zones: which a failure domain wants, which there are, and the changes that lie between.

Responsible for: the plan, and the words in which it is shown.
Invariants: pure. A plan only adds: a category gets the types of objects it has to be attached to, nothing is narrowed,
detached, renamed or deleted. A category that allows one tag for each object keeps that: two zones on one object is a
mistake that an administrator has to mend.
Must not know: how tags are read and made, who may do this and when.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Cardinality, Category, Ref, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.machine_controller import api

DATACENTER = "Datacenter"
COMPUTE_CLUSTER = "ComputeCluster"
HOST_GROUP = "HostGroup"
_CARRIERS = {DATACENTER: "Datacenter", COMPUTE_CLUSTER: "ClusterComputeResource", HOST_GROUP: "HostSystem"}
_SHOWN = 5


class Wanted(NamedTuple):
    """A tag that every one of `objects` shall carry; `type` is that of the region or zone, objects are of `carrier`."""

    category: str
    tag: str
    type: str
    objects: tuple[Ref, ...] = ()

    @property
    def carrier(self) -> str:
        """Managed object type that the tag is attached to."""
        return _CARRIERS.get(self.type, self.type)


class Present(NamedTuple):
    """What there is: categories and their tags by name, and ids of the tags that objects carry."""

    categories: Mapping[str, Category] = MappingProxyType({})
    tags: Mapping[tuple[str, str], Tag] = MappingProxyType({})
    attached: Mapping[Ref, frozenset[str]] = MappingProxyType({})


class Missing(NamedTuple):
    """What a wanted tag lacks; false when nothing."""

    wanted: Wanted
    category: bool = False
    tag: bool = False
    objects: tuple[Ref, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return self.category or self.tag or bool(self.objects)

    def sentence(self, names: Mapping[Ref, str] = MappingProxyType({})) -> str:
        """Say it, objects by their names where these are known."""
        category, tag = self.wanted.category, self.wanted.tag
        if self.category:
            return f"there is no tag category {category!r}"
        if self.tag:
            return f"there is no tag {tag!r} in category {category!r}"
        shown = ", ".join(names.get(target, str(target)) for target in self.objects[:_SHOWN])
        more = f" and {len(self.objects) - _SHOWN} more" if len(self.objects) > _SHOWN else ""
        return f"tag {tag!r} of category {category!r} is not attached to {shown}{more}"


class CreateCategory(NamedTuple):
    """A category that is not there."""

    name: str
    types: tuple[str, ...]

    def text(self, _names: Mapping[Ref, str]) -> str:
        """Say what is done."""
        return f"create tag category {self.name} for {', '.join(self.types)}"


class ExtendCategory(NamedTuple):
    """Types that a category cannot be attached to yet."""

    name: str
    types: tuple[str, ...]

    def text(self, _names: Mapping[Ref, str]) -> str:
        """Say what is done."""
        return f"allow tags of category {self.name} on {', '.join(self.types)}"


class CreateTag(NamedTuple):
    """A tag that is not there."""

    category: str
    name: str

    def text(self, _names: Mapping[Ref, str]) -> str:
        """Say what is done."""
        return f"create tag {self.name} in category {self.category}"


class Attach(NamedTuple):
    """A tag that an object lacks."""

    category: str
    name: str
    target: Ref

    def text(self, names: Mapping[Ref, str]) -> str:
        """Say what is done, the object by its name."""
        return f"attach tag {self.name} of category {self.category} to {names.get(self.target, str(self.target))}"


class Conflict(NamedTuple):
    """An object that has, or is about to get, another tag of a category that allows one for each object."""

    target: Ref
    category: str
    has: str
    wanted: str

    def text(self, names: Mapping[Ref, str]) -> str:
        """Say it, the object by its name."""
        return (
            f"{names.get(self.target, str(self.target))} has tag {self.has!r} of category {self.category!r}, which "
            f"allows one for each object, so it cannot have {self.wanted!r}"
        )


class ConflictError(VSphereError):
    """Tags cannot be attached as they are wanted; nothing was changed."""

    def __init__(self, found: Sequence[Conflict], names: Mapping[Ref, str] = MappingProxyType({})) -> None:
        self.conflicts = tuple(found)
        super().__init__("; ".join(conflict.text(names) for conflict in found))


Change = CreateCategory | ExtendCategory | CreateTag | Attach


def wanted(target: api.TagTarget, datacenter: Ref | None, cluster: Ref | None, hosts: Iterable[Ref]) -> Wanted:
    """Return the tag of a region or zone, for what there is of the objects that it means."""
    carriers = {DATACENTER: (datacenter,), COMPUTE_CLUSTER: (cluster,), HOST_GROUP: tuple(hosts)}
    objects = tuple(carrier for carrier in carriers.get(target.type, ()) if carrier is not None)
    return Wanted(target.tag_category, target.name, target.type, objects)


def missing(want: Wanted, present: Present) -> Missing:
    """Return what a wanted tag lacks."""
    if want.category not in present.categories:
        return Missing(want, category=True, tag=True, objects=want.objects)
    tag = present.tags.get((want.category, want.tag))
    if tag is None:
        return Missing(want, tag=True, objects=want.objects)
    return Missing(
        want, objects=tuple(target for target in want.objects if tag.id not in present.attached.get(target, ()))
    )


def plan(wants: Iterable[Wanted], present: Present) -> tuple[Change, ...]:
    """Return the changes that give every object its tags, in an order in which they can be made."""
    wants = tuple(dict.fromkeys(wants))
    changes: list[Change] = []
    for name in dict.fromkeys(want.category for want in wants):
        types = tuple(sorted({want.carrier for want in wants if want.category == name}))
        category = present.categories.get(name)
        if category is None:
            changes.append(CreateCategory(name, types))
        elif category.types and (lacking := tuple(type_ for type_ in types if type_ not in category.types)):
            changes.append(ExtendCategory(name, lacking))
    tags = dict.fromkeys((want.category, want.tag) for want in wants)
    changes += [CreateTag(*key) for key in tags if key not in present.tags]
    changes += dict.fromkeys(
        Attach(want.category, want.tag, target) for want in wants for target in missing(want, present).objects
    )
    return tuple(changes)


def conflicts(wants: Iterable[Wanted], present: Present) -> tuple[Conflict, ...]:
    """Return the tags that cannot be attached: no repetition mends that, so it is said before anything is changed."""
    found: list[Conflict] = []
    claimed: dict[tuple[Ref, str], str] = {}
    for want in wants:
        category = present.categories.get(want.category)
        if category is not None and category.cardinality is not Cardinality.SINGLE:
            continue
        own = {tag.id: tag.name for (name, _), tag in present.tags.items() if name == want.category}
        for target in want.objects:
            has = next((own[id_] for id_ in sorted(present.attached.get(target, ())) if id_ in own), "")
            has = has or claimed.setdefault((target, want.category), want.tag)
            if has != want.tag:
                found.append(Conflict(target, want.category, has, want.tag))
    return tuple(found)
