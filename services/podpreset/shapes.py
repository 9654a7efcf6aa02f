"""The shapes of those pieces of a pod that a preset writes as plain JSON: valueFrom, envFrom, volumes and mounts.

Responsible for: telling of a field that Kubernetes knows and that is not what it says it has to be. A pod with such a
field is refused whatever the webhook's failurePolicy: the API server cannot even read it, or its validation refuses it.
Invariants: what is not known here is not looked at, so that sources and fields of a newer Kubernetes pass; nothing is
wrong that some Kubernetes takes. `null` is as good as absent, as it is for the API server.
Must not know: presets.
Source: core/v1 types and pkg/apis/core/validation.
"""
# ruff: noqa: N815 - the fields carry their wire names

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Json = dict[str, Any]

_Text = Annotated[str, Meta(min_length=1)]
_Mode = Annotated[int, Meta(ge=0, le=0o777)] | None
_Quantity = Annotated[str, Meta(pattern="^ *[+-]?[0-9.]+([numk]|[KMGTPE]i?|[eE][+-]?[0-9]+)? *$")] | float | None


class _Shape(Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of the shapes; fields that they do not name are passed over."""


class _Key(_Shape, frozen=True):
    """core/v1 ConfigMapKeySelector and SecretKeySelector."""

    name: _Text
    key: _Text
    optional: bool | None = None


class _Field(_Shape, frozen=True):
    """core/v1 ObjectFieldSelector."""

    fieldPath: _Text
    apiVersion: str | None = None


class _Resource(_Shape, frozen=True):
    """core/v1 ResourceFieldSelector."""

    resource: _Text
    containerName: str | None = None
    divisor: _Quantity = None


class _FileKey(_Shape, frozen=True):
    """core/v1 FileKeySelector."""

    volumeName: _Text
    path: _Text
    key: _Text
    optional: bool | None = None


class ValueFrom(_Shape, frozen=True):
    """core/v1 EnvVarSource: one of these, and not null, as it would then be none."""

    configMapKeyRef: _Key | UnsetType = UNSET
    secretKeyRef: _Key | UnsetType = UNSET
    fieldRef: _Field | UnsetType = UNSET
    resourceFieldRef: _Resource | UnsetType = UNSET
    fileKeyRef: _FileKey | UnsetType = UNSET


class _Reference(_Shape, frozen=True):
    """core/v1 ConfigMapEnvSource and SecretEnvSource."""

    name: _Text
    optional: bool | None = None


class EnvFrom(_Shape, frozen=True):
    """core/v1 EnvFromSource. The rule for its prefix is the milder one, of Kubernetes 1.32 and later."""

    prefix: Annotated[str, Meta(pattern="^[ -<>-~]*$")] | None = None
    configMapRef: _Reference | None = None
    secretRef: _Reference | None = None


class _Item(_Shape, frozen=True):
    """core/v1 KeyToPath."""

    key: _Text
    path: _Text
    mode: _Mode = None


class _DownwardItem(_Shape, frozen=True):
    """core/v1 DownwardAPIVolumeFile."""

    path: _Text
    fieldRef: _Field | None = None
    resourceFieldRef: _Resource | None = None
    mode: _Mode = None


class _ConfigMap(_Shape, frozen=True):
    """core/v1 ConfigMapVolumeSource; ConfigMapProjection and SecretProjection without its mode."""

    name: _Text
    items: list[_Item] | None = None
    defaultMode: _Mode = None
    optional: bool | None = None


class _Secret(_Shape, frozen=True):
    """core/v1 SecretVolumeSource."""

    secretName: _Text
    items: list[_Item] | None = None
    defaultMode: _Mode = None
    optional: bool | None = None


class _DownwardAPI(_Shape, frozen=True):
    """core/v1 DownwardAPIVolumeSource and DownwardAPIProjection."""

    items: list[_DownwardItem] | None = None
    defaultMode: _Mode = None


class _Token(_Shape, frozen=True):
    """core/v1 ServiceAccountTokenProjection."""

    path: _Text
    audience: str | None = None
    expirationSeconds: int | None = None


class _TrustBundle(_Shape, frozen=True):
    """core/v1 ClusterTrustBundleProjection."""

    path: _Text
    name: str | None = None
    signerName: str | None = None
    labelSelector: Json | None = None
    optional: bool | None = None


class _Projection(_Shape, frozen=True):
    """core/v1 VolumeProjection."""

    clusterTrustBundle: _TrustBundle | None = None
    configMap: _ConfigMap | None = None
    downwardAPI: _DownwardAPI | None = None
    podCertificate: Json | None = None
    secret: _ConfigMap | None = None
    serviceAccountToken: _Token | None = None


class _Projected(_Shape, frozen=True):
    """core/v1 ProjectedVolumeSource."""

    sources: list[_Projection] | None = None
    defaultMode: _Mode = None


class _EmptyDir(_Shape, frozen=True):
    """core/v1 EmptyDirVolumeSource."""

    medium: str | None = None
    sizeLimit: _Quantity = None


class _HostPath(_Shape, frozen=True):
    """core/v1 HostPathVolumeSource."""

    path: _Text
    type: (
        Literal["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"]
        | None
    ) = None


class _Claim(_Shape, frozen=True):
    """core/v1 PersistentVolumeClaimVolumeSource."""

    claimName: _Text
    readOnly: bool | None = None


class _Template(_Shape, frozen=True):
    """core/v1 PersistentVolumeClaimTemplate."""

    spec: Json
    metadata: Json | None = None


class _Ephemeral(_Shape, frozen=True):
    """core/v1 EphemeralVolumeSource."""

    volumeClaimTemplate: _Template


class _CSI(_Shape, frozen=True):
    """core/v1 CSIVolumeSource."""

    driver: _Text
    readOnly: bool | None = None
    fsType: str | None = None
    volumeAttributes: dict[str, str | None] | None = None
    nodePublishSecretRef: Json | None = None


class _NFS(_Shape, frozen=True):
    """core/v1 NFSVolumeSource."""

    server: _Text
    path: _Text
    readOnly: bool | None = None


class _Image(_Shape, frozen=True):
    """core/v1 ImageVolumeSource."""

    reference: _Text
    pullPolicy: str | None = None


class Volume(_Shape, frozen=True):
    """core/v1 Volume. Sources that nobody should use any more are objects, of which the API server knows best."""

    name: _Text
    configMap: _ConfigMap | None = None
    csi: _CSI | None = None
    downwardAPI: _DownwardAPI | None = None
    emptyDir: _EmptyDir | None = None
    ephemeral: _Ephemeral | None = None
    hostPath: _HostPath | None = None
    image: _Image | None = None
    nfs: _NFS | None = None
    persistentVolumeClaim: _Claim | None = None
    projected: _Projected | None = None
    secret: _Secret | None = None
    awsElasticBlockStore: Json | None = None
    azureDisk: Json | None = None
    azureFile: Json | None = None
    cephfs: Json | None = None
    cinder: Json | None = None
    fc: Json | None = None
    flexVolume: Json | None = None
    flocker: Json | None = None
    gcePersistentDisk: Json | None = None
    gitRepo: Json | None = None
    glusterfs: Json | None = None
    iscsi: Json | None = None
    photonPersistentDisk: Json | None = None
    portworxVolume: Json | None = None
    quobyte: Json | None = None
    rbd: Json | None = None
    scaleIO: Json | None = None
    storageos: Json | None = None
    vsphereVolume: Json | None = None


class Mount(_Shape, frozen=True):
    """core/v1 VolumeMount."""

    name: _Text
    mountPath: _Text
    readOnly: bool | None = None
    recursiveReadOnly: Literal["Disabled", "IfPossible", "Enabled"] | None = None
    subPath: str | None = None
    subPathExpr: str | None = None
    mountPropagation: Literal["None", "HostToContainer", "Bidirectional"] | None = None


VALUE_SOURCES = ValueFrom.__struct_fields__
VOLUME_SOURCES = tuple(field for field in Volume.__struct_fields__ if field != "name")


def problem(where: str, json: Json, shape: type[_Shape]) -> str | None:
    """Return what is wrong with JSON that is to have a shape, a sentence that begins with the field; None if nothing.

    The JSON is nested no more deeply than a preset may be.
    """
    try:
        msgspec.convert(json, shape)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `$")
        return f"{where}{at.removesuffix('`')}: {said}"
    return None


def known(json: Json, shape: type[_Shape]) -> Json:
    """Return what of JSON that has a shape is known here: without fields that it does not name and those that are null.

    Any JSON that has not got the shape is returned as it is.
    """
    try:
        found: Json = msgspec.to_builtins(msgspec.convert(json, shape))
    except msgspec.ValidationError:
        return json
    return found
