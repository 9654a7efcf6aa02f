"""Reading properties of managed objects in one call, whatever their number.

Invariants: an answer that comes in pages is read to its end. An object that has vanished meanwhile is left out when
many were asked for, and is NotFound when one was.
Must not know: what the properties mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.machine_controller.vsphere.errors import NotFound
from services.machine_controller.vsphere.faults import SessionLostError, fault_error
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import type_of, vim, vmodl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.machine_controller.vsphere.session import Api
    from services.machine_controller.vsphere.values import Ref

_PAGE = 500
_COLLECTOR = vmodl.query.PropertyCollector

Properties = dict[str, Any]


def read(api: Api, reference: Ref, *paths: str) -> Properties:
    """Properties of one object; unset ones are absent. Raises NotFound, and PermissionDenied for a hidden property."""
    found = _retrieve(api, [_filter({reference.type}, paths, [_COLLECTOR.ObjectSpec(obj=api.object(reference))])])
    for content in found:
        for missing in content.missingSet or ():
            raise fault_error(missing.fault)
        return {p.name: p.val for p in content.propSet}
    raise NotFound(reference.type, reference.id)


def read_many(api: Api, references: Iterable[Ref], *paths: str) -> dict[Ref, Properties]:
    """Properties of each object that exists; the objects may be of several types."""
    wanted = list(dict.fromkeys(references))
    if not wanted:
        return {}
    objects = [_COLLECTOR.ObjectSpec(obj=api.object(reference)) for reference in wanted]
    spec = _filter({reference.type for reference in wanted}, paths, objects)
    spec.reportMissingObjectsInResults = True  # rather than a fault for all when one has vanished
    return _by_ref(_retrieve(api, [spec]))


def read_below(api: Api, root: Ref, type_: str, *paths: str) -> dict[Ref, Properties]:
    """Properties of each object of a type below a folder, a datacenter, a cluster or a pool, however deep."""
    view = api.content.viewManager.CreateContainerView(
        container=api.object(root), type=[type_of(type_)], recursive=True
    )
    try:
        through = _COLLECTOR.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
        objects = _COLLECTOR.ObjectSpec(obj=view, skip=True, selectSet=[through])
        return _by_ref(_retrieve(api, [_filter({type_}, paths, [objects])]))
    finally:
        view.DestroyView()


def read_upwards(api: Api, references: Iterable[Ref], *paths: str) -> dict[Ref, Properties]:
    """Properties of each inventory object that exists, and of everything above it up to the root folder."""
    wanted = list(dict.fromkeys(references))
    if not wanted:
        return {}
    again = _COLLECTOR.SelectionSpec(name="up")
    up = _COLLECTOR.TraversalSpec(name="up", type=vim.ManagedEntity, path="parent", skip=False, selectSet=[again])
    objects = [_COLLECTOR.ObjectSpec(obj=api.object(reference), skip=False, selectSet=[up]) for reference in wanted]
    spec = _filter({"ManagedEntity"}, paths, objects)
    spec.reportMissingObjectsInResults = True
    return _by_ref(_retrieve(api, [spec]))


def _filter(types: Iterable[str], paths: Sequence[str], objects: list[Any]) -> Any:
    properties = [_COLLECTOR.PropertySpec(type=type_of(name), pathSet=list(paths), all=False) for name in sorted(types)]
    return _COLLECTOR.FilterSpec(propSet=properties, objectSet=objects)


def _retrieve(api: Api, specs: list[Any]) -> list[Any]:
    collector = api.content.propertyCollector
    answer = collector.RetrievePropertiesEx(specSet=specs, options=_COLLECTOR.RetrieveOptions(maxObjects=_PAGE))
    found: list[Any] = []
    while answer is not None:
        found += answer.objects
        _check_session(answer.objects)
        answer = collector.ContinueRetrievePropertiesEx(token=answer.token) if answer.token else None
    return found


def _check_session(contents: Iterable[Any]) -> None:
    """Without a session vCenter answers, but with every property missing: that must not pass for "there is none"."""
    for content in contents:
        for missing in content.missingSet or ():
            if isinstance(missing.fault, vim.fault.NotAuthenticated):
                raise SessionLostError


def _by_ref(contents: Iterable[Any]) -> dict[Ref, Properties]:
    return {ref(content.obj): {p.name: p.val for p in content.propSet} for content in contents}
