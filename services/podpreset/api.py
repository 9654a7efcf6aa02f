"""The API objects of the webhook as typed values: resources, keys, specs, statuses, and the names put on pods.

Responsible for: the JSON shapes of `reach.spectrocloud.com/v1alpha1` ClusterPodPreset and PodPreset with the project's
optional additions, and every annotation and label that users see.
Invariants: a Struct here has exactly the fields of its CRD in deploy/crds. Volumes, mounts, envFrom and valueFrom stay
plain JSON, so that a field of a newer Kubernetes survives; nobody changes such a value after it was decoded.
Must not know: how presets are selected, merged or served.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from services.runtime.kube.conditions import Condition
from services.runtime.kube.resource import Resource

GROUP = "reach.spectrocloud.com"
VERSION = "v1alpha1"

CLUSTER_POD_PRESETS = Resource(GROUP, VERSION, "clusterpodpresets", "ClusterPodPreset", namespaced=False)
POD_PRESETS = Resource(GROUP, VERSION, "podpresets", "PodPreset", namespaced=True)
CLUSTER_KIND = CLUSTER_POD_PRESETS.kind
NAMESPACED_KIND = POD_PRESETS.kind

ADMISSION_PREFIX = "podpreset.admission.kubernetes.io/"
"""The prefix of the PodPreset that Kubernetes had until 1.20; its keys are kept."""
EXCLUDE = ADMISSION_PREFIX + "exclude"
"""On a pod (annotation) or a namespace (label): exactly "true" leaves it alone."""
EXCLUDE_VALUE = "true"
APPLIED_PREFIXES = {CLUSTER_KIND: "clusterpodpreset-", NAMESPACED_KIND: "podpreset-"}
"""First part of the name of the annotation that records a preset; the rest is the preset's name. Its value is a hash of
what the preset gives, see `services.podpreset.marks`."""
HASH_ANNOTATION = "podpreset.groundwork.dev/hash"
"""On a pod: what all presets applied to it said, in one hash."""
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"

READY = "Ready"
"""The one condition of a preset: it can be applied as it is written."""

SKIP_VARIABLE = "SkipVariable"
SKIP_ALL = "SkipAll"
REJECT = "Reject"
CONFLICT_POLICIES = (SKIP_VARIABLE, SKIP_ALL, REJECT)
"""The milder first: of two presets that conflict, the stricter decides."""

SINGLE = "single"
MULTI = "multi"
REPLACE = "replace"
APPEND = "append"
PREPEND = "prepend"
STRATEGIES = (REPLACE, APPEND, PREPEND)
FORCE = "force"


class PresetKey(NamedTuple):
    """Identity of a preset; `namespace` is empty for a ClusterPodPreset."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`PodPreset ns/name` or `ClusterPodPreset name`, the form used in messages."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class _Api(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """Base of the JSON shapes: camelCase names, absent when default."""


class Requirement(_Api, frozen=True):
    """meta/v1 LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class LabelSelector(_Api, frozen=True):
    """meta/v1 LabelSelector; an empty one selects everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None


class EnvMetadata(_Api, frozen=True):
    """How a variable is merged with that of a broader layer; empty means the default of its name."""

    type: str = ""
    """`single` or `multi` (a comma-separated list)."""
    merge_strategy: str = msgspec.field(name="merge_strategy", default="")
    """`replace`, `append` or `prepend`, as reach spells the field."""
    merge_strategy_camel: str = msgspec.field(name="mergeStrategy", default="")
    """The same in the spelling of Kubernetes; used where the other is absent."""
    override: str = ""
    """`force`: also over a value that the container itself sets."""


class EnvVar(_Api, frozen=True):
    """core/v1 EnvVar with metadata. One of `value` and `valueFrom`; neither means the empty value."""

    name: str = ""
    value: str | None = None
    value_from: dict[str, Any] | None = None
    metadata: EnvMetadata | None = None


class ContainerSelector(_Api, frozen=True):
    """Which containers of a matching pod a preset is for."""

    names: tuple[str, ...] = ()
    """Globs (`*`, `?`), one of which has to match; none means every name."""
    init: bool = True
    """Whether init containers get it too. A native sidecar counts as an ordinary container."""


class ConfigMapKey(_Api, frozen=True):
    """A key of a ConfigMap in the pod's namespace."""

    name: str = ""
    key: str = "ca-bundle.crt"


class TrustBundle(_Api, frozen=True):
    """A ClusterTrustBundle by name."""

    name: str = ""


class CABundle(_Api, frozen=True):
    """A complete set of trusted roots in PEM; exactly one of the two."""

    config_map: ConfigMapKey | None = None
    cluster_trust_bundle: TrustBundle | None = None


class NoProxy(_Api, frozen=True):
    """Entries that are found rather than written."""

    include: tuple[str, ...] = ()
    """Of `.svc`, `.cluster.local`, `service-cidr`, `pod-cidr`, `api-server`, `metadata`."""


class PodPresetSpec(_Api, frozen=True):
    """Spec of PodPreset, and all but one field of ClusterPodPreset's."""

    selector: LabelSelector | None = None
    """Pods; absent or empty means all of them."""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    """core/v1 EnvFromSource, each with an optional `metadata`, which is not given to pods; so the next two."""
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    container_selector: ContainerSelector | None = None
    priority: int = 0
    """Within a scope the higher is applied later and so wins."""
    conflict_policy: str = SKIP_VARIABLE
    ca_bundle: CABundle | None = None
    no_proxy: NoProxy | None = None


class ClusterPodPresetSpec(PodPresetSpec, frozen=True):
    """Spec of ClusterPodPreset."""

    namespace_selector: LabelSelector | None = None
    """Namespaces; absent or empty means all of them."""


class SeenConflict(_Api, frozen=True):
    """One kind of conflict, as it was seen last."""

    message: str = ""
    """What was left out and why; never a value."""
    namespace: str = ""
    pod: str = ""
    """Name of the pod, or the prefix that its name is generated from."""
    last_time: str = ""
    count: int = 0


class PresetStatus(_Api, frozen=True):
    """Status of both kinds."""

    observed_generation: int = 0
    injected_pods: int = 0
    """Pods that carry the preset now, as their annotation says."""
    stale_pods: int = 0
    """Those of them that carry an older state of it: another hash."""
    conflicts: int = 0
    """How often something of it could not be applied."""
    last_conflicts: tuple[SeenConflict, ...] = ()
    """Newest first."""
    conditions: tuple[Condition, ...] = ()
