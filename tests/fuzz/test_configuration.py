"""Flags, their environment variables and kubeconfigs of any content: settings, or an error that says what is wrong."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.capv_integrator.settings import IntegratorSettings
from services.ipam.settings import IpamSettings
from services.machine_controller.settings import MachineSettings
from services.podpreset.settings import PodPresetSettings
from services.runtime.kube import config
from services.runtime.kube.errors import ConfigError
from services.runtime.settings import SettingsError
from tests.fuzz.schemas import ANYTHING, TEXTS, outcome

SETTINGS = [IntegratorSettings, IpamSettings, MachineSettings, PodPresetSettings]
VALUES = TEXTS | st.sampled_from(["15s", "1m30s", "-1s", "1e9h", "host:1", "[::1]:80", ":99999", "a/b", "10.0.0.0/8"])


def flags(kind):
    return st.sampled_from([field.name for field in dataclasses.fields(kind)])


@pytest.mark.parametrize("kind", SETTINGS)
@given(data=st.data())
def test_any_flags_and_variables_are_settings_or_a_named_mistake(kind, data):
    words = st.tuples(flags(kind), VALUES).map(lambda pair: f"--{pair[0].replace('_', '-')}={pair[1]}")
    arguments = data.draw(st.lists(words | TEXTS.filter(lambda word: word not in {"-h", "--help"}), max_size=4))
    names = flags(kind).map(lambda name: f"GROUNDWORK_{name.upper()}")
    environment = data.draw(st.dictionaries(names, VALUES, max_size=3))
    found, refusal = outcome(lambda: kind.parse(arguments, environment), SettingsError)
    assert refusal != "without a reason"
    assert found is None or isinstance(found, kind)


KUBECONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("v1") | TEXTS,
        "kind": st.just("Config") | ANYTHING,
        "current-context": st.just("local") | ANYTHING,
        "clusters": st.just([{"name": "local", "cluster": {"server": "https://h:1"}}]) | ANYTHING,
        "contexts": st.just([{"name": "local", "context": {"cluster": "local", "user": "local"}}]) | ANYTHING,
        "users": ANYTHING
        | st.lists(
            st.fixed_dictionaries(
                {"name": st.just("local")},
                optional={
                    "user": st.dictionaries(
                        st.sampled_from(["token", "client-certificate-data", "client-key-data", "username", "exec"]),
                        ANYTHING,
                        max_size=3,
                    )
                },
            ),
            max_size=2,
        ),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(content=KUBECONFIGS.map(lambda value: yaml.safe_dump(value).encode()) | st.binary(max_size=60))
def test_any_kubeconfig_is_usable_or_refused_with_its_path(tmp_path, content):
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    connection, refusal = outcome(lambda: asyncio.run(config.load(str(path))), ConfigError)
    assert connection is not None or str(path) in refusal
