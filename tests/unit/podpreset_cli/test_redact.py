"""What is hidden of values, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.podpreset.cli import redact

VALUES = [
    ("HTTP_PROXY", "http://me:secret@proxy:3128", "http://***@proxy:3128"),
    ("HTTP_PROXY", "http://me@proxy:3128/", "http://***@proxy:3128/"),
    ("HTTP_PROXY", "http://me:p@ss@proxy:3128", "http://***@proxy:3128"),
    ("HTTP_PROXY", "me:secret@proxy:3128", "***@proxy:3128"),
    ("DSN", "a=postgres://u:p@db/x b=http://v:q@w", "a=postgres://***@db/x b=http://***@w"),
    ("HTTP_PROXY", "http://proxy:3128", "http://proxy:3128"),
    ("HTTP_PROXY", "http://proxy:3128/a@b", "http://proxy:3128/a@b"),
    ("MAIL", "me@example.com", "me@example.com"),
    ("NO_PROXY", "a,b:80,c", "a,b:80,c"),
    ("DB_PASSWORD", "x", "***"),
    ("API_TOKEN", "x", "***"),
    ("aws_secret_access_key", "x", "***"),
    ("CLIENT_SECRET", "", ""),
    ("TOKEN_URL", "http://a/b", "http://a/b"),
    ("MONKEY", "x", "x"),
]


@pytest.mark.parametrize(("name", "value", "shown"), VALUES)
def test_credentials_are_hidden_and_nothing_else(name, value, shown):
    assert redact.value(name, value) == shown
    assert redact.value(name, shown) == shown


@given(user=st.from_regex(r"[a-z]{1,5}:[a-zA-Z0-9!$%&*+.:;=_~-]{3,12}", fullmatch=True))
def test_no_user_part_is_left_of_a_url(user):
    assert user not in redact.value("HTTPS_PROXY", f"http://{user}@proxy.corp:3128")


def test_variables_are_hidden_wherever_in_a_pod_they_are_and_the_pod_stays_as_it_is():
    env = [{"name": "HTTP_PROXY", "value": "http://u:p@h"}, {"name": "A", "valueFrom": {}}]
    pod = {"spec": {"containers": [{"name": "c", "env": env}], "initContainers": [{"env": env[:1]}]}}
    shown = redact.pod(pod)
    assert shown["spec"]["containers"][0]["env"][0]["value"] == "http://***@h"
    assert shown["spec"]["initContainers"][0]["env"][0]["value"] == "http://***@h"
    assert env[0]["value"] == "http://u:p@h"
