"""Which namespaces are left alone, as the flags and the place of the service say."""

from types import SimpleNamespace

import pytest

from services.podpreset.service import untouched
from services.podpreset.settings import PodPresetSettings


@pytest.mark.parametrize(
    ("own", "flags", "wanted"),
    [
        ("system", (), set()),
        ("system", ("kube-node-lease",), {"kube-node-lease"}),
        ("system", ("a", "default"), {"a", "default"}),
    ],
)
def test_pods_of_the_services_own_namespace_are_left_alone_with_those_that_flags_name(own, flags, wanted):
    settings = PodPresetSettings(untouched_namespace=flags)
    assert untouched(SimpleNamespace(settings=settings, namespace=own)) == {own, *wanted}


def test_default_is_left_alone_only_if_a_flag_names_it():
    outside = SimpleNamespace(settings=PodPresetSettings(untouched_namespace=()), namespace="default")
    assert untouched(outside) == set()
    outside.settings = PodPresetSettings(untouched_namespace=("default",))
    assert untouched(outside) == {"default"}
