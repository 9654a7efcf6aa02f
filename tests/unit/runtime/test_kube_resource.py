import pytest

from services.runtime.kube.resource import Resource

PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
CLAIMS = Resource("ipam.metal3.io", "v1alpha1", "ipclaims", "IPClaim", namespaced=True)


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("ns",), "/api/v1/namespaces/ns/pods"),
        (PODS, ("ns", "p"), "/api/v1/namespaces/ns/pods/p"),
        (PODS, ("ns", "p", "status"), "/api/v1/namespaces/ns/pods/p/status"),
        (NODES, (), "/api/v1/nodes"),
        (NODES, ("", "n"), "/api/v1/nodes/n"),
        (NODES, ("ignored", "n", "status"), "/api/v1/nodes/n/status"),
        (CLAIMS, ("ns", "c"), "/apis/ipam.metal3.io/v1alpha1/namespaces/ns/ipclaims/c"),
        (CLAIMS, ("ns", "system:a b/c%"), "/apis/ipam.metal3.io/v1alpha1/namespaces/ns/ipclaims/system:a%20b%2Fc%25"),
    ],
)
def test_a_path_is_complete_and_encoded(resource, arguments, path):
    assert resource.path(*arguments) == path


def test_an_object_of_a_namespaced_resource_has_no_path_without_its_namespace():
    with pytest.raises(ValueError, match="namespace is needed"):
        PODS.path("", "p")


@pytest.mark.parametrize(
    ("resource", "api_version", "text"),
    [(PODS, "v1", "pods.v1"), (CLAIMS, "ipam.metal3.io/v1alpha1", "ipclaims.v1alpha1.ipam.metal3.io")],
)
def test_a_resource_is_named_as_in_manifests_and_for_kubectl(resource, api_version, text):
    assert (resource.api_version, str(resource)) == (api_version, text)
