"""What the condition Ready tells the author of a preset that works."""

import pytest

from services.podpreset.status import readiness
from services.proxyenv.complete import Facts
from tests.support.podpresets import env, preset, var

FAILS = "makes httpx fail in every process that has it in its environment"
FACTS = Facts(service_cidrs=("10.96.0.0/12", "fd00::/108"))
INCLUDE = {"noProxy": {"include": [".svc", "service-cidr"]}}
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"env": env(NO_PROXY="a, 10.0.0.0/8,::1")}, ""),
        ({"env": env(NO_PROXY="a,fd00::/8")}, f"NO_PROXY: 'fd00::/8' {FAILS}"),
        ({"env": env(no_proxy="[::1],fd00::/8,a b")}, f"NO_PROXY: '[::1]' {FAILS}, and 2 more like that"),
        ({"env": env(NO_PROXY="a b")}, "NO_PROXY: 'a b' holds a blank, which only curl takes for a separator"),
        ({"env": [var("NO_PROXY", "a,fd00::/8", type="single")]}, f"NO_PROXY: 'fd00::/8' {FAILS}"),
        ({"env": env(OTHER="fd00::/8")}, ""),
        (INCLUDE, f"NO_PROXY: 'fd00::/108' {FAILS}"),
        ({"env": env(NO_PROXY="*"), **INCLUDE}, ""),
        ({"noProxy": {"include": [".svc"]}}, ""),
    ],
)
def test_entries_of_no_proxy_that_clients_cannot_read_are_told(spec, message):
    condition = readiness(preset(**spec), FACTS)
    assert (condition.status, condition.message) == ("True", message)


def test_a_no_proxy_from_a_secret_is_not_known_and_gets_nothing():
    condition = readiness(preset(env=[{"name": "NO_PROXY", "valueFrom": SECRET}], **INCLUDE), FACTS)
    assert condition.message == "spec.noProxy: NO_PROXY has a valueFrom, to which nothing can be added"
