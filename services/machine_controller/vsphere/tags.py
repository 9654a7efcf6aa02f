"""Tags and their categories, through vCenter's REST API; SOAP knows nothing of them.

Responsible for: reading, creating, changing and deleting categories and tags, and what they are attached to.
Invariants: every list is complete; objects are named by Ref, whose type is the one that REST uses as well.
Must not know: regions and zones. Reference: vSphere Automation API, com.vmware.cis.tagging.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere.errors import NotFound
from services.machine_controller.vsphere.values import Cardinality, Category, Ref, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.machine_controller.vsphere.rest import Rest

_CATEGORY: Final = "/com/vmware/cis/tagging/category"
_TAG: Final = "/com/vmware/cis/tagging/tag"
_ASSOCIATION: Final = "/com/vmware/cis/tagging/tag-association"
_BATCH: Final = 500  # objects in one request


class Tags:
    """See the module; every method raises VSphereError."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def categories(self) -> tuple[Category, ...]:
        """Every category, by name."""
        ids: list[str] = await self._rest.get(_CATEGORY) or []
        found = await asyncio.gather(*(self._category(id_) for id_ in ids))
        return tuple(sorted((category for category in found if category), key=lambda category: category.name))

    async def category(self, name: str) -> Category | None:
        """Return the category with a name; None when there is none."""
        return next((category for category in await self.categories() if category.name == name), None)

    async def create_category(
        self, name: str, *, description: str = "", cardinality: Cardinality, types: Iterable[str] = ()
    ) -> Category:
        """Create a category for managed object types; DuplicateName when there is one of that name."""
        kinds = frozenset(types)
        body = {
            "name": name,
            "description": description,
            "cardinality": cardinality.value,
            "associable_types": sorted(kinds),
        }
        id_: str = await self._rest.post(_CATEGORY, {"create_spec": body})
        return Category(id=id_, name=name, description=description, cardinality=cardinality, types=kinds)

    async def update_category(
        self, category: Category, *, cardinality: Cardinality | None = None, types: Iterable[str] | None = None
    ) -> Category:
        """Change what may be attached where; vCenter refuses to narrow either."""
        body: dict[str, Any] = {}
        if cardinality is not None:
            body["cardinality"] = cardinality.value
        if types is not None:
            body["associable_types"] = sorted(types)
        await self._rest.patch(f"{_CATEGORY}/id:{category.id}", {"update_spec": body})
        changed = await self._category(category.id)
        if changed is None:
            raise NotFound("category", category.name)
        return changed

    async def delete_category(self, category_id: str) -> None:
        """Delete a category and all its tags."""
        await self._rest.delete(f"{_CATEGORY}/id:{category_id}")

    async def tags(self, category_id: str) -> tuple[Tag, ...]:
        """Every tag of a category, by name."""
        ids: list[str] = await self._rest.post(f"{_TAG}/id:{category_id}?~action=list-tags-for-category") or []
        found = await asyncio.gather(*(self.tag(id_) for id_ in ids))
        return tuple(sorted((tag for tag in found if tag), key=lambda tag: tag.name))

    async def tag(self, tag_id: str) -> Tag | None:
        """Return a tag by its URN; None when there is none."""
        try:
            value = await self._rest.get(f"{_TAG}/id:{tag_id}")
        except NotFound:
            return None
        return Tag(
            id=value["id"],
            name=value["name"],
            category_id=value["category_id"],
            description=value.get("description") or "",
        )

    async def create_tag(self, name: str, category_id: str, *, description: str = "") -> Tag:
        """Create a tag; DuplicateName when the category has one of that name."""
        body = {"name": name, "category_id": category_id, "description": description}
        id_: str = await self._rest.post(_TAG, {"create_spec": body})
        return Tag(id=id_, name=name, category_id=category_id, description=description)

    async def delete_tag(self, tag_id: str) -> None:
        """Delete a tag; it disappears from what it was attached to."""
        await self._rest.delete(f"{_TAG}/id:{tag_id}")

    async def attach(self, tag_id: str, target: Ref) -> None:
        """Attach a tag to an object; nothing happens when it is."""
        await self._rest.post(f"{_ASSOCIATION}/id:{tag_id}?~action=attach", {"object_id": _object(target)})

    async def detach(self, tag_id: str, target: Ref) -> None:
        """Take a tag off an object; nothing happens when it is off."""
        await self._rest.post(f"{_ASSOCIATION}/id:{tag_id}?~action=detach", {"object_id": _object(target)})

    async def attached(self, targets: Iterable[Ref]) -> Mapping[Ref, frozenset[str]]:
        """Ids of the tags that objects carry; an object without tags has an empty set."""
        wanted = list(dict.fromkeys(targets))
        found: dict[Ref, frozenset[str]] = dict.fromkeys(wanted, frozenset())
        for start in range(0, len(wanted), _BATCH):
            body = {"object_ids": [_object(target) for target in wanted[start : start + _BATCH]]}
            for row in await self._rest.post(f"{_ASSOCIATION}?~action=list-attached-tags-on-objects", body) or ():
                found[_ref(row["object_id"])] = frozenset(row["tag_ids"] or ())
        return found

    async def objects(self, tag_id: str) -> frozenset[Ref]:
        """Every object that carries a tag."""
        rows = await self._rest.post(f"{_ASSOCIATION}?~action=list-attached-objects-on-tags", {"tag_ids": [tag_id]})
        return frozenset(_ref(each) for row in rows or () for each in row["object_ids"] or ())

    async def _category(self, category_id: str) -> Category | None:
        try:
            value = await self._rest.get(f"{_CATEGORY}/id:{category_id}")
        except NotFound:
            return None  # deleted since the list was read
        return Category(
            id=value["id"],
            name=value["name"],
            description=value.get("description") or "",
            cardinality=Cardinality(value["cardinality"]),
            types=frozenset(value.get("associable_types") or ()),
        )


def _object(target: Ref) -> dict[str, str]:
    return {"id": target.id, "type": target.type}


def _ref(value: Mapping[str, str]) -> Ref:
    return Ref(value["type"], value["id"])
