"""Entries of NO_PROXY from what is known of a cluster."""

import pytest

from services.proxyenv import lists
from services.proxyenv.complete import NAMES, Completion, Facts, complete

DUAL_STACK = Facts(
    service_cidrs=("10.96.0.0/12", "fd01::/112"),
    pod_cidrs=("10.244.0.0/16", "fd02::/56"),
    api_server=("10.96.0.1", "192.168.0.10", "api-int.cluster.example.com"),
)


@pytest.mark.parametrize(
    ("include", "entries"),
    [
        ([], ()),
        ([".svc"], (".svc",)),
        ([".cluster.local", ".svc"], (".cluster.local", ".svc")),
        (["service-cidr"], ("10.96.0.0/12", "fd01::/112")),
        (["pod-cidr"], ("10.244.0.0/16", "fd02::/56")),
        (["api-server"], ("10.96.0.1", "192.168.0.10", "api-int.cluster.example.com")),
        (["metadata"], ("169.254.169.254",)),
        ([".svc", ".svc"], (".svc",)),
    ],
)
def test_each_name_stands_for_its_own_entries(include, entries):
    assert complete(include, DUAL_STACK) == Completion(entries)


def test_what_is_not_known_is_told():
    assert complete(["pod-cidr", ".svc", "api-server"], Facts()) == Completion(
        (".svc",), missing=("pod-cidr", "api-server")
    )
    assert complete(["svc"], DUAL_STACK) == Completion((), unknown=("svc",))


# openshift/cluster-network-operator: TestMergeUserSystemNoProxy. Its platform and region only decide which names are
# included; here an administrator writes them.
@pytest.mark.parametrize(
    ("user", "facts", "wanted"),
    [
        ("", Facts(("172.30.0.0/16",), ("10.128.0.0/14",), ("api-int.c",)), "172.30.0.0/16,10.128.0.0/14,api-int.c"),
        (
            "172.30.0.1",
            Facts(("172.30.0.0/16",), ("10.128.0.0/14",), ()),
            "172.30.0.1,172.30.0.0/16,10.128.0.0/14",
        ),
        (
            "172.30.0.1, .example.com ,172.30.0.0/16",
            Facts(("172.30.0.0/16",), ("10.128.0.0/14",), ()),
            "172.30.0.1,.example.com,172.30.0.0/16,10.128.0.0/14",
        ),
        ("", DUAL_STACK._replace(api_server=()), "10.96.0.0/12,fd01::/112,10.244.0.0/16,fd02::/56"),
        ("*", DUAL_STACK, "*"),
    ],
    ids=["system alone", "single user noProxy", "multiple user noProxy", "dual stack", "everything"],
)
def test_entries_of_the_user_come_first_and_those_of_the_system_are_added_once(user, facts, wanted):
    system = complete(["service-cidr", "pod-cidr", "api-server"], facts).entries
    assert lists.append(user, system) == wanted


def test_the_names_are_those_of_the_definition():
    assert set(NAMES) == {".svc", ".cluster.local", "service-cidr", "pod-cidr", "api-server", "metadata"}
