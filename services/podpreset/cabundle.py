"""A bundle of trusted certificates as a volume, a mount and the variables that tell programs of it.

Responsible for: where it is put. A directory of its own, so that the image's own roots are never covered.
Must not know: presets, pods.
Source: OpenSSL and Go (SSL_CERT_FILE), requests (REQUESTS_CA_BUNDLE), Node.js (NODE_EXTRA_CA_CERTS), curl
(CURL_CA_BUNDLE); core/v1 ClusterTrustBundleProjection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.podpreset.api import CABundle

VOLUME = "groundwork-ca-bundle"
DIRECTORY = "/etc/groundwork/ca-bundle"
FILE = "ca-bundle.crt"
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")


def path(*, windows: bool) -> str:
    """Return the path of the file. On Windows a mount at `/etc` appears below `C:`."""
    whole = f"{DIRECTORY}/{FILE}"
    return "C:" + whole.replace("/", "\\") if windows else whole


def volume(bundle: CABundle) -> dict[str, Any]:
    """Return the volume. It is not optional: a program that was told of a file needs it."""
    if bundle.cluster_trust_bundle is not None:
        projection = {"name": bundle.cluster_trust_bundle.name, "path": FILE}
        return {"name": VOLUME, "projected": {"sources": [{"clusterTrustBundle": projection}]}}
    assert bundle.config_map is not None, "one of the two is checked when a preset is compiled"
    items = [{"key": bundle.config_map.key, "path": FILE}]
    return {"name": VOLUME, "configMap": {"name": bundle.config_map.name, "items": items}}


def mount() -> dict[str, Any]:
    """Return the mount."""
    return {"name": VOLUME, "mountPath": DIRECTORY, "readOnly": True}
