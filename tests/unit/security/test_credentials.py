"""Where vCenter's credentials may be sent, and whose word counts for that."""

from __future__ import annotations

import pytest

from services.machine_controller.connections import Connections
from services.machine_controller.credentials import Login
from services.machine_controller.vsphere.credentials import Credentials, Trust
from services.machine_controller.vsphere.values import Server
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta, raw

PINNED = "AB" * 32
USER = Credentials("u", "p")
SHARED = ObjectKey("infra", "shared")
OWN = ObjectKey("team", "own")


class Identities:
    """Every Secret holds the same."""

    def __init__(self, login):
        self.login = login

    def get(self, _key):
        return self.login


class VCenters:
    """Notes who would be signed in where, and how the server would be trusted."""

    def __init__(self):
        self.asked = []

    def known(self, *_):
        return None

    def get(self, server, _name, credentials, trust):
        self.asked.append((server, credentials, trust))
        return self


def cluster(identity="", namespace="team", **spec):
    if identity:
        spec["identityRef"] = {"kind": "Secret", "name": identity}
    return KubeObject(metadata=ObjectMeta(name="c", namespace=namespace), spec=raw(spec))


def connect(cluster_, server, *, servers=(), ca="", thumbprint=""):
    """What would be signed in to, and what is said where nothing is."""
    vcenters = VCenters()
    login = Login(USER, ca, tuple(map(Server.parse, servers)))
    found = Connections(Identities(login), default=SHARED, vcenters=vcenters).get(cluster_, server, thumbprint)
    assert (found.vcenter is None) is (vcenters.asked == [])
    return vcenters.asked, found.trouble


LENT = cluster()
NOWHERE = {
    "a Secret that names no server": ((), "vc.example", "only for the servers that its key servers has: it has none"),
    "another server": (("vc.example",), "evil.example", "Secret infra/shared is not for vCenter evil.example"),
    "another port": (("vc.example",), "vc.example:8443", "not for vCenter vc.example:8443"),
    "a name that begins the same": (("vc.example",), "vc.example.evil.example", "not for vCenter"),
    "a user in front": (("vc.example",), "vc.example@evil.example", "it is not host, host:port or an https URL"),
    "another scheme": (("vc.example",), "http://vc.example", "it is not host, host:port or an https URL"),
}


@pytest.mark.parametrize(("servers", "server", "said"), NOWHERE.values(), ids=NOWHERE.keys())
@pytest.mark.parametrize("thumbprint", ["", PINNED])
def test_credentials_lent_to_other_namespaces_are_sent_nowhere_with(servers, server, said, thumbprint):
    asked, trouble = connect(LENT, server, servers=servers, thumbprint=thumbprint)
    assert asked == []
    assert said in trouble


@pytest.mark.parametrize("server", ["vc.example", "VC.example", "https://vc.example/sdk", "vc.example:443"])
def test_credentials_lent_to_other_namespaces_are_sent_to_the_servers_that_their_secret_names(server):
    asked, _ = connect(LENT, server, servers=["other.example", "vc.example"], ca="PEM")
    assert asked == [(Server("vc.example"), USER, Trust(ca="PEM"))]


def test_a_thumbprint_of_a_borrower_does_not_go_before_the_authority_of_the_secret():
    assert connect(LENT, "vc.example", servers=["vc.example"], ca="PEM", thumbprint=PINNED)[0][0][2] == Trust(ca="PEM")
    own = cluster("own")
    assert connect(own, "vc.example", ca="PEM", thumbprint=PINNED)[0][0][2] == Trust(thumbprint=PINNED)


def test_a_secret_of_the_cluster_s_own_namespace_is_for_every_server_unless_it_names_some():
    assert connect(cluster("own"), "vc.example")[0]
    assert connect(cluster("own"), "vc.example", servers=["vc.example"])[0]
    asked, trouble = connect(cluster("own"), "evil.example", servers=["vc.example"])
    assert (asked, trouble) == (
        [],
        "Secret team/own is not for vCenter evil.example (its key servers does not have it)",
    )
    assert connect(cluster(namespace="infra"), "vc.example")[0], "the default in its own namespace"


def test_a_cluster_cannot_name_a_secret_of_another_namespace():
    connections = Connections(Identities(None), default=SHARED, vcenters=VCenters())
    assert connections.identity(cluster("shared")) == ObjectKey("team", "shared")
    assert connections.identity(cluster("infra/shared")) == ObjectKey("team", "infra/shared")
    other = KubeObject(
        metadata=ObjectMeta(name="c", namespace="team"),
        spec=raw({"identityRef": {"kind": "VSphereClusterIdentity", "name": "shared"}}),
    )
    assert connections.identity(other) is None
