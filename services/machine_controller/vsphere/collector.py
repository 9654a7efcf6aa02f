"""A property collector of vCenter's over lists of tasks and VMs. Every method blocks.

Responsible for: the objects on vCenter's side (collector, list views, filters), the version that says which changes
are known, and putting changes together to values.
Invariants: `wait` is called by one thread at a time, `change` and `known` by any. An object that left a list without
being taken off it is reported gone only after a read has confirmed it: the list may also be changed by us meanwhile.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from services.machine_controller.vsphere import views
from services.machine_controller.vsphere.properties import read_many
from services.machine_controller.vsphere.refs import ref
from services.machine_controller.vsphere.soap import type_of, vim, vmodl
from services.machine_controller.vsphere.values import Gone, Ref, Update

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.machine_controller.vsphere.properties import Properties
    from services.machine_controller.vsphere.session import Api

POLL_SECONDS: Final = 60
"""How long vCenter holds a poll without changes; short enough for proxies and firewalls to see the connection live."""

_COLLECTOR: Final = vmodl.query.PropertyCollector


class Collector:
    """See the module."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._version = ""
        self._lock = threading.Lock()
        self._listed: set[Ref] = set()
        self._state: dict[Ref, Properties] = {}
        self._values: dict[Ref, Update] = {}
        self._collector = api.content.propertyCollector.CreatePropertyCollector()
        # A list for each type: the tasks' changes often.
        self._lists = {
            "Task": self._list("Task", views.TASK_PATHS),
            "VirtualMachine": self._list("VirtualMachine", views.VM_PATHS),
        }

    def _list(self, type_: str, paths: Sequence[str]) -> Any:
        view = self._api.content.viewManager.CreateListView(obj=[])
        through = _COLLECTOR.TraversalSpec(name="view", type=vim.view.ListView, path="view", skip=False)
        self._collector.CreateFilter(
            spec=_COLLECTOR.FilterSpec(
                objectSet=[_COLLECTOR.ObjectSpec(obj=view, skip=True, selectSet=[through])],
                propSet=[_COLLECTOR.PropertySpec(type=type_of(type_), pathSet=list(paths), all=False)],
            ),
            partialUpdates=False,  # a change names a path that was asked for, with its whole value
        )
        return view

    def change(self, add: Iterable[Ref], remove: Iterable[Ref]) -> set[Ref]:
        """Put objects on the list and take others off; return those of `add` that do not exist."""
        added, removed = set(add), set(remove)
        with self._lock:
            self._listed |= added
            self._listed -= removed
            for reference in removed:
                self._state.pop(reference, None)
                self._values.pop(reference, None)
        unknown: set[Ref] = set()
        for type_, view in self._lists.items():
            more = [self._api.object(reference) for reference in added if reference.type == type_]
            less = [self._api.object(reference) for reference in removed if reference.type == type_]
            if more or less:
                unknown |= {ref(each) for each in view.ModifyListView(add=more, remove=less) or ()}
        return unknown

    def known(self, reference: Ref) -> Update | None:
        """Return the state of an object as far as it was told."""
        return self._values.get(reference)  # without the lock: the event loop must not wait for a thread

    def wait(self) -> list[Update]:
        """Wait for changes, at most POLL_SECONDS, and return what they made of the objects."""
        answer = self._collector.WaitForUpdatesEx(
            version=self._version, options=_COLLECTOR.WaitOptions(maxWaitSeconds=POLL_SECONDS)
        )
        if answer is None:
            return []
        touched: dict[Ref, None] = {}
        left: list[Ref] = []
        with self._lock:
            for filtered in answer.filterSet or ():
                for update in filtered.objectSet or ():
                    reference, kind = ref(update.obj), str(update.kind)
                    if reference not in self._listed:
                        continue  # taken off since
                    if kind == "leave":
                        left.append(reference)
                        continue
                    if kind == "enter":
                        self._state[reference] = {}
                    _apply(self._state.setdefault(reference, {}), update.changeSet or ())
                    touched[reference] = None
            # Only once everything was put together: a version that was half read must be asked for again.
            self._version = answer.version
            found = [_value(reference, self._state[reference]) for reference in touched]
            self._values.update((update.ref, update) for update in found)
        return found + self._gone(left)

    def _gone(self, left: list[Ref]) -> list[Update]:
        tasks = [reference for reference in left if reference.type == "Task"]
        others = [reference for reference in left if reference.type != "Task"]
        there = {*read_many(self._api, tasks, "info.state"), *read_many(self._api, others, "name")}
        gone = [reference for reference in left if reference not in there]
        with self._lock:
            for reference in gone:
                self._state.pop(reference, None)
                self._values.pop(reference, None)
        return [Gone(reference) for reference in gone]

    def end(self) -> None:
        """End the poll and have vCenter forget everything."""
        self._collector.CancelWaitForUpdates()
        self._collector.Destroy()
        for view in self._lists.values():
            view.DestroyView()


def _apply(properties: Properties, changes: Iterable[Any]) -> None:
    for change in changes:
        if str(change.op) in ("remove", "indirectRemove") or change.val is None:
            properties.pop(change.name, None)
        else:
            properties[change.name] = change.val


def _value(reference: Ref, properties: Properties) -> Update:
    if reference.type == "Task":
        return views.task(reference, properties)
    return views.virtual_machine(reference, properties)
