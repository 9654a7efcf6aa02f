"""What a resource is called on the wire: group, version, plural, kind, and the URL paths that follow from them.

Invariant: a path is complete and already percent-encoded, so the transport never has to parse it.
Must not know: what the server serves (see discovery), HTTP.
"""

from __future__ import annotations

from functools import cached_property
from urllib.parse import quote

from msgspec import Struct


class Resource(Struct, frozen=True, dict=True):
    """One served resource, e.g. `Resource("apps", "v1", "deployments", "Deployment", namespaced=True)`.

    The core group is the empty string.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def root(self) -> str:
        """Path of the group and version, e.g. `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Path of the collection (no name) or of one object, e.g. `/api/v1/namespaces/a/configmaps/b/status`.

        An empty namespace of a namespaced resource means all namespaces, which only a collection has (ValueError).
        """
        where = self.root
        if self.namespaced and namespace:
            where = f"{where}/namespaces/{quote(namespace, safe='')}"
        elif self.namespaced and name:
            raise ValueError(f"{self.plural}/{name} is namespaced: a namespace is needed")
        where = f"{where}/{self.plural}"
        if name:
            where = f"{where}/{quote(name, safe=':')}"
        return f"{where}/{subresource}" if subresource else where

    def __str__(self) -> str:
        """`plural.version.group`, the form kubectl takes; `plural.version` for the core group."""
        return f"{self.plural}.{self.version}.{self.group}" if self.group else f"{self.plural}.{self.version}"


CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
