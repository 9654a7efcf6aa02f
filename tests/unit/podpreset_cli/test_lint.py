"""The rules of lint, each with what it finds and what it leaves alone."""

from __future__ import annotations

import json

import pytest

from services.podpreset.cli import lint
from services.podpreset.cli.documents import Documents
from services.podpreset.cli.lint import Severity
from services.proxyenv.clients import Client

INSIDE = ".svc,.cluster.local,localhost,127.0.0.1"


def documents(*objects):
    taken = Documents("team-a")
    taken.add("\n---\n".join(json.dumps(obj) for obj in objects), "test.yaml")
    return taken


def preset(name="proxy", kind="PodPreset", **spec):
    return {"apiVersion": "reach.spectrocloud.com/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def pod(env, **container):
    spec = {"containers": [{"name": "app", "image": "x", "env": env, **container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def variables(**values):
    return [{"name": name, "value": value} for name, value in values.items()]


def found(*objects, clients=tuple(Client)):
    taken = documents(*objects)
    return lint.lint(list(taken.presets.values()), list(taken.workloads.values()), clients)


def rules(findings, *severities):
    return [finding.rule for finding in findings if finding.severity in (severities or tuple(Severity))]


LISTS = [
    # list, clients that are left, then rule and clients of every finding but Java's note
    ("localhost,127.0.0.1,mysql,10.0.0.1", None, []),
    (".svc,example.com", None, []),
    ("10.*", None, [("no-match", "curl Go urllib requests httpx aiohttp")]),
    ("192.168.", None, [("no-match", "curl Go Java urllib requests httpx aiohttp")]),
    ("*.example.com", None, [("no-match", "curl urllib requests httpx aiohttp")]),
    ("10.96.0.0/12", None, [("no-match", "Java urllib httpx aiohttp")]),
    ("10.96.0.0/12", "curl Go requests", []),
    ("example.com.", "curl Go", [("no-match", "Go")]),
    ("example.com:81", None, [("no-match", "curl Java aiohttp")]),
    ("fd00::1", None, [("no-match", "Java urllib")]),
    (
        "fd00::/8",
        None,
        [("client-crash", "httpx"), ("no-match", "curl Java urllib requests aiohttp")],
    ),
    ("[fd00::1]", None, [("client-crash", "httpx"), ("no-match", "curl Go requests aiohttp")]),
    ("fd00::/8", "Go", []),
    ("a b", None, [("blank-inside", "Go Java urllib requests httpx aiohttp")]),
    ("a,*", None, [("star-beside", "curl urllib requests aiohttp")]),
    ("*", None, []),
    ("http://example.com", None, [("not-a-host", "")]),
    ("e*m", None, [("not-a-host", "")]),
    ("a , b,,", None, []),
]


@pytest.mark.parametrize(("no_proxy", "clients", "expected"), LISTS)
def test_a_list_is_held_against_the_clients_that_matter(no_proxy, clients, expected):
    chosen = [client for client in Client if clients is None or client.value in clients.split()]
    findings = lint.lint_list(no_proxy, "here", chosen)
    assert [(item.rule, " ".join(item.clients)) for item in findings if item.rule != "java"] == expected


def test_what_only_java_misses_is_one_note_with_the_list_in_its_own_form():
    (finding,) = lint.lint_list(".svc,example.com,10.0.0.1", "here")
    assert (finding.severity, finding.rule, finding.clients) == (Severity.NOTE, "java", ("Java",))
    assert "-Dhttp.nonProxyHosts='*.svc|example.com|*.example.com|10.0.0.1'" in finding.message


ADVICE = [
    ("*.svc", "write .svc"),
    ("example.com.", "leave the dot at its end out, example.com"),
    ("example.com:81", "leave the port out"),
    ("[fd00::1]", "write it without brackets, fd00::1"),
    ("a b", "separate with commas, a,b"),
    ("10.0.0.0/8", "list the addresses or names in it"),
]


@pytest.mark.parametrize(("entry", "advice"), ADVICE)
def test_a_finding_says_what_to_write_instead(entry, advice):
    assert any(advice in finding.message for finding in lint.lint_list(entry, "here"))


PRESETS = [
    ("nothing in it", preset(), ["invalid"]),
    (
        "append on a single value",
        {"env": [{"name": "A", "value": "b", "metadata": {"type": "single", "merge_strategy": "append"}}]},
        ["ineffective"],
    ),
    (
        "two spellings that differ",
        {"env": variables(FTP_PROXY="http://a", ftp_proxy="http://b", no_proxy=INSIDE)},
        ["ineffective"],
    ),
    ("a proxy without scheme", {"env": variables(HTTP_PROXY="proxy:3128", NO_PROXY=INSIDE)}, ["no-scheme"]),
    (
        "a list without what is inside",
        {"env": variables(HTTP_PROXY="http://proxy:3128", NO_PROXY="localhost,127.0.0.1")},
        ["inside-proxied"],
    ),
    ("no list", {"env": variables(HTTP_PROXY="http://proxy:3128")}, ["inside-proxied", "inside-proxied"]),
    (
        "completed",
        {
            "env": variables(HTTP_PROXY="http://p:1", NO_PROXY="localhost,127.0.0.1"),
            "noProxy": {"include": [".svc", ".cluster.local"]},
        },
        [],
    ),
    (
        "roots covered",
        {
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs/"}],
        },
        ["hides-roots"],
    ),
    (
        "one file beside the roots",
        {
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs/own.crt", "subPath": "own.crt"}],
        },
        [],
    ),
    ("a good one", {"env": variables(HTTP_PROXY="http://p:1", NO_PROXY=INSIDE)}, []),
]


@pytest.mark.parametrize(("spec", "expected"), [row[1:] for row in PRESETS], ids=[row[0] for row in PRESETS])
def test_a_preset_is_looked_at(spec, expected):
    obj = spec if "kind" in spec else preset(**spec)
    assert rules(found(obj), Severity.ERROR, Severity.WARNING) == expected


def test_what_another_preset_gives_counts_where_the_two_may_meet():
    proxies = preset(env=variables(HTTP_PROXY="http://p:1"))
    entries = preset("entries", "ClusterPodPreset", env=variables(NO_PROXY=INSIDE))
    elsewhere = preset("entries", env=variables(NO_PROXY=INSIDE))
    elsewhere["metadata"]["namespace"] = "team-b"
    assert rules(found(proxies, entries), Severity.WARNING) == []
    assert rules(found(proxies, elsewhere), Severity.WARNING) == ["inside-proxied", "inside-proxied"]


CONTAINERS = [
    (variables(HTTP_PROXY="http://p:1", http_proxy="http://q:1", NO_PROXY=INSIDE, no_proxy=INSIDE), ["unequal-cases"]),
    (variables(HTTP_PROXY="http://p:1", NO_PROXY=INSIDE), ["one-case", "one-case"]),
    (variables(http_proxy="p:1", HTTP_PROXY="p:1", NO_PROXY=INSIDE, no_proxy=INSIDE), ["no-scheme", "no-scheme"]),
    (variables(NO_PROXY="10.*", no_proxy="10.*"), ["no-match"]),
    (variables(NO_PROXY="a,*", no_proxy="a,*"), ["star-beside"]),
    (variables(http_proxy="http://p:1", HTTP_PROXY="http://p:1"), ["inside-proxied", "inside-proxied"]),
    (variables(http_proxy="", HTTP_PROXY=""), []),
    (variables(PATH="/bin"), []),
    ([{"name": "HTTP_PROXY", "valueFrom": {"secretKeyRef": {"name": "p", "key": "u"}}}], ["one-case"]),
]


@pytest.mark.parametrize(("env", "expected"), CONTAINERS)
def test_a_container_is_looked_at(env, expected):
    findings = found(pod(env))
    assert rules(findings, Severity.ERROR, Severity.WARNING) == expected
    assert all(finding.where.startswith("Pod team-a/web: container app") for finding in findings)


def test_a_preset_that_gives_a_variable_makes_its_spellings_equal():
    giving = preset(env=variables(HTTP_PROXY="http://p:1", NO_PROXY=INSIDE))
    assert rules(found(pod(variables(HTTP_PROXY="http://q:1")), giving), Severity.WARNING) == []


def test_init_and_ephemeral_containers_are_looked_at():
    obj = pod([])
    bad = variables(NO_PROXY="10.*", no_proxy="10.*")
    obj["spec"]["initContainers"] = [{"name": "first", "env": bad}]
    obj["spec"]["ephemeralContainers"] = [{"name": "debug", "env": bad}]
    assert [finding.where.split(": ")[1] for finding in found(obj)] == ["container first", "container debug"]


def test_credentials_are_noted_and_never_shown():
    findings = found(preset(env=variables(HTTP_PROXY="http://me:hunter2@p:1", NO_PROXY=INSIDE)))
    assert rules(findings, Severity.NOTE) == ["credentials", "java"]
    assert "hunter2" not in repr(findings)


def test_every_rule_has_a_description():
    objects = [row[1] if "kind" in row[1] else preset(f"p{at}", **row[1]) for at, row in enumerate(PRESETS)]
    findings = found(*objects, *[pod(env) for env, _ in CONTAINERS])
    findings += [finding for no_proxy, _, _ in LISTS for finding in lint.lint_list(no_proxy, "here")]
    assert set(rules(findings)) <= set(lint.RULES)
    pods = [finding for env, _ in CONTAINERS for finding in found(pod(env))]
    assert set(rules(findings + pods)) | {"credentials"} == set(lint.RULES)


def test_the_same_input_gives_the_same_findings():
    objects = [preset(f"p{at}", **row[1]) for at, row in enumerate(PRESETS) if "kind" not in row[1]]
    assert found(*objects) == found(*objects)
