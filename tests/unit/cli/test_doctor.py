"""The checks of `groundwork doctor` on values made by hand: each rule, at its edges, without a cluster."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest

from services.doctor import checks, definitions, objects, rights, trial
from services.doctor.finding import Finding, Level
from services.doctor.seen import (
    Books,
    Denied,
    Endpoint,
    Hook,
    Lease,
    Seen,
    Served,
    Trial,
    Unread,
    Why,
)
from services.podpreset.cli.whatif import world
from services.proxyenv.complete import Facts
from services.runtime import pki
from services.runtime.kube.objects import KubeObject, ObjectMeta
from tests.support import chart
from tests.unit.cli.doctored import DAY, DENIED, NOW, SYSTEM, levels, obj, said, service

# -- every check ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", checks.CHECKS)
def test_nothing_is_said_of_what_was_not_read(name):
    seen = Seen(now=NOW)
    assert [item for item in checks.CHECKS[name].decide(seen) if item.level is not Level.INFO] == []


@pytest.mark.parametrize("name", checks.CHECKS)
def test_a_check_needs_only_parts_that_there_are(name):
    assert set(checks.CHECKS[name].needs) <= set(Seen._fields)


def test_what_could_not_be_read_is_said_whatever_was_chosen():
    unread = (DENIED, Unread("pods.v1", Why.TOO_MANY, "there are 9"), Unread("x", Why.FAILED, "503"))
    found = checks.run(Seen(now=NOW, unread=unread), [])
    assert [(str(item.level), item.check, item.subject) for item in found] == [
        ("info", "access", "pods.v1"),
        ("warning", "access", "things"),
        ("warning", "access", "x"),
    ]
    assert all(item.action for item in found)


def test_a_check_without_a_finding_says_so():
    found = checks.run(Seen(now=NOW), ["pools", "claims"])
    assert found == [Finding(Level.INFO, name, "", checks.NOTHING) for name in ("pools", "claims")]


def test_whatever_goes_by_the_webhooks_namespaces_reads_the_services_and_its_selectors():
    for name in ("admission", "presets"):
        assert {"services", "hooks"} <= checks.parts([name])


def test_an_object_of_another_shape_ends_one_check_and_not_the_others():
    pool = obj({"apiVersion": "v1", "kind": "IPAddress", "metadata": {"name": "odd", "namespace": "a"}, "spec": [1]})
    seen = Seen(now=NOW, books=Books((), (), (pool,), ()))
    found = checks.run(seen, ["pools", "claims"])
    assert [(str(item.level), item.check) for item in found] == [("error", "pools"), ("ok", "claims")]
    assert "IPAddress a/odd" in found[0].what


@pytest.mark.parametrize(
    "flags", [{"no-leader-election": ("true",)}, {"leader-election": ("false",)}], ids=["flag", "variable"]
)
def test_a_service_that_elects_nobody_needs_no_lease(flags):
    asked = [str(question) for question in rights.questions(service(flags=flags))]
    assert not any("leases" in each for each in asked)
    assert levels("leaders", Seen(now=NOW, services=[service(flags=flags)])) == []


# -- definitions ---------------------------------------------------------------------------------------------------

SHIPPED = definitions.shipped()
NAMES = [each["metadata"]["name"] for each in SHIPPED]
POOLS = "ippools.ipam.metal3.io"


def installed(**changes):
    """Our definitions as a cluster has them, one of them changed by a function."""
    found = {}
    for each in SHIPPED:
        mine = copy.deepcopy(each)
        conditions = [{"type": name, "status": "True"} for name in ("NamesAccepted", "Established")]
        stored = [version["name"] for version in mine["spec"]["versions"] if version["storage"]]
        mine["status"] = {"conditions": conditions, "storedVersions": stored}
        found[mine["metadata"]["name"]] = mine
    for name, change in changes.items():
        found[name] = change(found[name])
    return found


def fields(crd):
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def changing(change):
    def changed(crd):
        change(crd)
        return crd

    return changed


CHANGES = {
    "it is gone": (lambda _: None, "error", "it is not installed"),
    "it is not established": (
        changing(lambda crd: crd["status"].update(conditions=[{"type": "NamesAccepted", "status": "True"}])),
        "error",
        "it is not Established",
    ),
    "its names are taken": (
        changing(
            lambda crd: crd["status"].update(
                conditions=[{"type": "NamesAccepted", "status": "False", "message": "ippool is in use"}]
            )
        ),
        "error",
        "ippool is in use",
    ),
    "a field is missing": (
        changing(lambda crd: fields(crd).pop("domain")),
        "error",
        "v1alpha1 spec.domain: the field is missing",
    ),
    "a field of a list is missing": (
        changing(lambda crd: fields(crd)["pools"]["items"]["properties"].pop("start")),
        "error",
        "v1alpha1 spec.pools[].start: the field is missing",
    ),
    "a field is of another type": (
        changing(lambda crd: fields(crd)["prefix"].update(type="string")),
        "warning",
        "v1alpha1 spec.prefix: type: string, should be integer",
    ),
    "a field is new": (
        changing(lambda crd: fields(crd).update(later={"type": "string"})),
        "warning",
        "v1alpha1 spec.later: a field that this version does not have",
    ),
    "the version is missing": (
        changing(lambda crd: crd["spec"]["versions"][0].update(name="v1")),
        "error",
        "v1alpha1: the version is missing",
    ),
    "the version is not served": (
        changing(lambda crd: crd["spec"]["versions"][0].update(served=False)),
        "error",
        "v1alpha1: the version is not served",
    ),
    "the status is a part of the object": (
        changing(lambda crd: crd["spec"]["versions"][0].pop("subresources")),
        "error",
        "the status is no subresource",
    ),
    "objects are stored as a version that is gone": (
        changing(lambda crd: crd["status"].update(storedVersions=["v1alpha0", "v1alpha1"])),
        "error",
        "objects are stored as v1alpha0",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_definition_that_differs_is_told_by_field(name):
    change, level, what = CHANGES[name]
    seen = Seen(now=NOW, shipped=SHIPPED, installed=installed(**{POOLS: change}), services=[])
    found = [item for item in said("definitions", seen) if item[0] != "ok"]
    assert [item[:2] for item in found[:1]] == [(level, f"CustomResourceDefinition {POOLS}")]
    assert what in found[0][2]


def test_texts_and_columns_are_no_difference():
    def reworded(crd):
        crd["spec"]["versions"][0]["additionalPrinterColumns"] = []
        fields(crd)["domain"]["description"] = "another"
        fields(crd)["domain"]["example"] = "x"

    seen = Seen(now=NOW, shipped=SHIPPED, installed=installed(**{POOLS: changing(reworded)}), services=[])
    assert levels("definitions", seen) == ["ok"]


def test_an_older_stored_version_is_a_note():
    def older(crd):
        crd["spec"]["versions"].append({**crd["spec"]["versions"][0], "name": "v1alpha0", "storage": False})
        crd["status"]["storedVersions"] = ["v1alpha0", "v1alpha1"]

    seen = Seen(now=NOW, shipped=SHIPPED, installed=installed(**{POOLS: changing(older)}), services=[])
    assert levels("definitions", seen) == ["info", "ok"]


def test_the_machines_definitions_count_where_the_machine_controller_runs():
    found = {name: crd for name, crd in installed().items() if not name.endswith("infrastructure.cluster.x-k8s.io")}
    missing = dict.fromkeys(set(NAMES) - set(found))
    seen = Seen(now=NOW, shipped=SHIPPED, installed=found | missing, services=[])
    assert levels("definitions", seen) == ["ok"]
    seen = seen._replace(services=[service("machine-controller")])
    assert levels("definitions", seen).count("error") == len(missing)


def test_our_definitions_do_not_differ_from_themselves():
    assert [difference for crd in SHIPPED for difference in definitions.differences(crd, crd)] == []


# -- services, leaders, rights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([], ["warning"]),
        ([service()], ["ok"]),
        ([service(available=1)], ["warning"]),
        ([service(available=0, trouble="image cannot be pulled")], ["error"]),
        ([service(replicas=0, available=0)], ["warning"]),
        (DENIED, []),
    ],
)
def test_a_deployment_without_its_pods_is_told(services, expected):
    found = said("services", Seen(now=NOW, services=services))
    assert [item[0] for item in found] == expected
    if expected == ["error"]:
        assert "image cannot be pulled" in found[0][2]


def lease(holder="a", ago=5):
    renewed = None if ago is None else NOW - timedelta(seconds=ago)
    return Lease(SYSTEM, "groundwork-ipam", holder, renewed)


@pytest.mark.parametrize(
    ("of", "found", "expected"),
    [
        ({}, lease(), ["ok"]),
        ({}, lease(ago=60), ["ok"]),
        ({}, lease(ago=61), ["error"]),
        ({}, lease(ago=-30), ["ok"]),  # this machine's clock is behind
        ({}, lease(holder=""), ["error"]),
        ({}, lease(ago=None), ["error"]),
        ({}, None, ["error"]),
        ({}, DENIED, []),
        ({"available": 0}, None, []),
        ({"replicas": 0}, None, []),
        ({"flags": {"no-leader-election": ("true",)}}, None, []),
        ({"flags": {"leader-election": ("false",)}}, None, []),
    ],
)
def test_a_service_that_nobody_leads_is_told(of, found, expected):
    seen = Seen(now=NOW, services=[service(**of)], leases={(SYSTEM, "groundwork-ipam"): found})
    assert levels("leaders", seen) == expected


def test_the_lease_is_where_the_flags_say():
    assert objects.lease_of(service(flags={"lease-namespace": ("other",)})) == ("other", "groundwork-ipam")


def test_what_a_service_lacks_is_told_with_its_account():
    denied = [Denied("", "ns/sa", f"get thing{place}") for place in range(5)]
    seen = Seen(now=NOW, services=[service()], denied={f"Deployment {SYSTEM}/groundwork-ipam": denied})
    ((level, _, what),) = said("rights", seen)
    assert level == "error"
    assert what == "ServiceAccount ns/sa may not get thing0, get thing1, get thing2 and 2 more"
    assert levels("rights", seen._replace(denied={f"Deployment {SYSTEM}/groundwork-ipam": []})) == ["ok"]
    assert levels("rights", seen._replace(denied={f"Deployment {SYSTEM}/groundwork-ipam": DENIED})) == []


def asked_and_given(component):
    """Rights as (group, resource, name, verb): those that the doctor asks for, and those that the chart gives."""
    rendering = chart.render({"machineController": {"enabled": True}})
    read = objects.service(rendering.one("Deployment", component))
    own, everywhere = (chart.rights(rules) for rules in rendering.rules(component))
    asked = {(each.group, each.resource, each.name, each.verb) for each in rights.questions(read)}
    return asked, own | everywhere


OWNERS = {("ipam.metal3.io", "ippools", "", "delete")}
"""With what ends in /finalizers, for OwnerReferencesPermissionEnforcement alone."""


@pytest.mark.parametrize("component", chart.COMPONENTS)
def test_the_rights_that_are_asked_for_are_those_that_the_chart_gives(component):
    asked, given = asked_and_given(component)
    assert asked - given == set()
    assert {right for right in given - asked - OWNERS if not right[1].endswith("/finalizers")} == set()


def test_rights_in_the_own_namespace_are_asked_for_there():
    rendering = chart.render()
    for component in ("ipam", "podpreset"):
        own, everywhere = (chart.rights(rules) for rules in rendering.rules(component))
        read = objects.service(rendering.one("Deployment", component))
        for each in rights.questions(read):
            right = (each.group, each.resource, each.name, each.verb)
            assert right in (own if each.namespace == chart.NAMESPACE else everywhere), str(each)


def test_rights_are_asked_for_in_the_namespaces_that_are_watched():
    asked = set(map(str, rights.questions(service(flags={"watch-namespace": ("a", "b")}))))
    assert {"update ippools.ipam.metal3.io in a", "update ippools.ipam.metal3.io in b"} <= asked
    assert "update globalippools.ipam.groundwork.dev" in asked
    assert "update ippools.ipam.metal3.io" not in asked


def test_a_review_names_the_account_and_its_groups():
    question = rights.Question("update", "ipam.metal3.io", "ippools/status", "a")
    body = objects.review(question, "system:serviceaccount:ns:sa", "ns")
    assert body["spec"]["resourceAttributes"] == {
        "verb": "update",
        "group": "ipam.metal3.io",
        "resource": "ippools",
        "subresource": "status",
        "namespace": "a",
    }
    assert "system:serviceaccounts:ns" in body["spec"]["groups"]


# -- reading objects -----------------------------------------------------------------------------------------------


def test_a_deployment_is_read_with_its_flags_and_secrets():
    mount = {"name": "certificates", "mountPath": "/certificates"}
    container = {
        "command": ["python", "-m", "services.podpreset"],
        "args": ["--cert-dir=/certificates", "--watch-namespace", "a", "--watch-namespace=b", "--no-leader-election"],
        "env": [{"name": "GROUNDWORK_LEASE_NAMESPACE", "value": "other"}, {"name": "X", "value": "1"}],
        "volumeMounts": [mount, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "certificates", "secret": {"secretName": "tls"}}, {"name": "tmp", "emptyDir": {}}]
    made = {
        "metadata": {"name": "d", "namespace": "ns", "labels": {objects.COMPONENT: "podpreset"}},
        "spec": {"template": {"spec": {"containers": [container], "volumes": volumes, "serviceAccountName": "sa"}}},
        "status": {
            "conditions": [
                {"type": "Available", "status": "False", "message": "too few"},
                {"type": "Progressing", "status": "True", "message": "going on"},
            ]
        },
    }
    read = objects.service(made)
    assert (read.namespace, read.name, read.account, read.replicas, read.available) == ("ns", "d", "sa", 1, 0)
    assert read.trouble == "too few"
    assert read.flags["watch-namespace"] == ("a", "b")
    assert read.flag("no-leader-election") == "true"
    assert read.flag("lease-namespace") == "other"
    assert objects.secret_of(read) == ("ns", "tls")
    assert objects.secret_of(read._replace(flags={"cert-secret": ("own",)})) == ("ns", "own")
    assert objects.secret_of(read._replace(flags={})) == ("ns", "")


def test_a_deployment_of_ours_that_is_no_service_is_left_out():
    assert objects.service({"metadata": {"name": "web", "labels": {objects.COMPONENT: "ipam-web"}}}) is None


def test_endpoints_that_do_not_say_count_as_ready():
    endpoints = [{"conditions": {"ready": True}}, {"conditions": {"ready": False}}, {}, {"conditions": {}}]
    assert objects.ready([{"endpoints": endpoints}, {"endpoints": None}, {}]) == 3


def test_webhooks_of_others_are_not_ours():
    configuration = {
        "metadata": {"name": "c"},
        "webhooks": [
            {"name": "x.example.com"},
            {"name": "podpreset.reach.spectrocloud.com", "clientConfig": {"caBundle": "!", "url": "https://x"}},
        ],
    }
    (hook,) = objects.hooks(configuration)
    assert (hook.policy, hook.bundle, hook.service) == ("Fail", b"", None)


# -- the webhook ---------------------------------------------------------------------------------------------------

NAME = "groundwork-podpreset"
AUTHORITY = pki.make_authority("test", NOW - DAY, timedelta(days=365))
OTHER = pki.make_authority("other", NOW - DAY, timedelta(days=365))


def hook(**changes):
    plain = Hook(
        NAME, "podpreset.reach.spectrocloud.com", "Ignore", AUTHORITY.certificate, (SYSTEM, NAME), Endpoint(True, 2)
    )
    return plain._replace(**changes)


def authority(ends):
    return pki.make_authority("test", NOW - timedelta(days=30), timedelta(days=30) + ends).certificate


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("ok", "it leads to Service")]),
        ({"service": None, "endpoint": None}, [("ok", "it leads to a URL")]),
        ({"endpoint": Endpoint(True, None)}, [("ok", "")]),
        ({"endpoint": DENIED}, [("ok", "")]),
        ({"endpoint": Endpoint(True, 0)}, [("error", "has no endpoint that is ready: pods are created without")]),
        ({"endpoint": Endpoint(True, 0), "policy": "Fail"}, [("error", "no pod can be created")]),
        ({"endpoint": Endpoint(False, 0)}, [("error", "does not exist")]),
        ({"bundle": b""}, [("error", "is empty")]),
        ({"bundle": pki._BEGIN + b"x" + pki._END}, [("error", "cannot be read")]),
        ({"bundle": authority(-DAY)}, [("error", "every CA in its caBundle has expired")]),
        ({"bundle": authority(-DAY) + AUTHORITY.certificate}, [("ok", "")]),
        ({"bundle": authority(13 * DAY)}, [("warning", "the CA in its caBundle ends")]),
        ({"bundle": authority(15 * DAY)}, [("ok", "")]),
        ({"bundle": b"", "endpoint": Endpoint(True, 0)}, [("error", "is empty"), ("error", "no endpoint")]),
    ],
)
def test_a_webhook_needs_a_valid_authority_and_somebody_behind_it(changes, expected):
    found = said("webhook", Seen(now=NOW, hooks=[hook(**changes)], services=[service("podpreset")]))
    assert [item[0] for item in found] == [level for level, _ in expected]
    assert all(text in item[2] for item, (_, text) in zip(found, expected, strict=True))


def test_a_service_that_no_configuration_asks_is_told():
    assert levels("webhook", Seen(now=NOW, hooks=[], services=[service("podpreset")])) == ["error"]
    assert levels("webhook", Seen(now=NOW, hooks=[], services=[service("ipam")])) == []
    assert levels("webhook", Seen(now=NOW, hooks=[], services=DENIED)) == []


def leaf(ends=90 * DAY, by=AUTHORITY, name=f"{NAME}.{SYSTEM}.svc"):
    return pki.issue(by, [name], NOW - DAY, DAY + ends).certificate


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (leaf(), [("ok", "is good until")]),
        (leaf(13 * DAY), [("warning", "should have been renewed")]),
        (leaf(timedelta(0)), [("error", "has expired")]),
        (leaf(by=OTHER), [("error", "from no CA in the caBundle")]),
        (leaf(name="elsewhere"), [("error", f"is not for {NAME}.{SYSTEM}.svc")]),
        (None, [("error", "there is no tls.crt")]),
        (b"nonsense", [("error", "no certificate")]),
    ],
)
def test_a_certificate_has_to_be_valid_trusted_and_for_its_name(certificate, expected):
    served = Served(f"Secret {SYSTEM}/tls", "Deployment", certificate)
    found = said("certificates", Seen(now=NOW, hooks=[hook()], served=[served, DENIED]))
    assert [item[0] for item in found] == [level for level, _ in expected]
    assert all(text in item[2] for item, (_, text) in zip(found, expected, strict=True))


def test_a_certificate_that_signs_itself_is_trusted_where_it_is_in_the_bundle():
    certificate = leaf()
    seen = Seen(now=NOW, hooks=[hook(bundle=certificate)], served=[Served("Secret x/y", "", certificate)])
    assert levels("certificates", seen) == ["ok"]


def tried(**changes):
    return Trial("default", "", marked=False, refused="", failed_open=0)._replace(**changes)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (tried(), "ok"),
        (tried(failed_open=1), "error"),
        (tried(failed_open=None), "info"),
        (tried(preset="ClusterPodPreset p", marked=True), "ok"),
        (tried(preset="ClusterPodPreset p"), "error"),
        (tried(refused='failed calling webhook "podpreset.reach.spectrocloud.com": x'), "error"),
        (tried(refused="exceeded quota"), "info"),
    ],
)
def test_a_pod_that_is_tried_tells_whether_the_webhook_is_asked(result, expected):
    assert levels("admission", Seen(now=NOW, hooks=[hook()], trial=result)) == [expected]


def test_the_count_of_the_api_server_is_summed_over_our_webhooks():
    name = "apiserver_admission_webhook_fail_open_count"
    rows = ['{name="a",type="admit"} 3', '{name="b",type="admit"} 1e+01']
    text = "".join([f"# HELP {name} x\n", *(f"{name}{row}\n" for row in rows), 'other{name="a"} 9\n'])
    assert trial.counted(text, {"a"}) == 3
    assert trial.counted(text, {"a", "b"}) == 13
    assert trial.counted(text, {"c"}) == 0


def test_a_pod_is_tried_where_a_preset_is_for_it():
    spaces = [KubeObject(metadata=ObjectMeta(name=name)) for name in ("kube-system", "a", "b", "default")]
    preset = obj(
        {
            "apiVersion": "reach.spectrocloud.com/v1alpha1",
            "kind": "PodPreset",
            "metadata": {"name": "p", "namespace": "b"},
            "spec": {"env": [{"name": "A", "value": "1"}]},
        }
    )
    with_preset, without = (world(presets, spaces, Facts(), ()) for presets in ([preset], []))
    assert trial.choice(with_preset, spaces) == ("b", "PodPreset b/p")
    assert trial.choice(without, spaces) == ("default", "")
    assert trial.choice(without, spaces[:2]) == ("a", "")
    assert trial.choice(with_preset, spaces, ["b"]) == ("default", "")
    assert trial.choice(without, spaces[:1]) is None
    assert trial.choice(without, spaces, ["a", "b", "default"]) is None


def selecting(**selectors):
    """The webhook of a configuration with these selectors."""
    (found,) = objects.hooks({"metadata": {"name": NAME}, "webhooks": [{"name": hook().name, **selectors}]})
    return found


def labelled(name, **labels):
    return KubeObject(metadata=ObjectMeta(name=name, labels=labels or None))


def test_namespaces_that_no_webhook_selects_are_passed():
    spaces = [labelled("a", tier="front"), labelled("b", tier="back"), labelled("c")]
    front, in_back = {"matchLabels": {"tier": "front"}}, {"key": "tier", "operator": "In", "values": ["back"]}
    assert objects.unasked([selecting(namespaceSelector=front)], spaces) == {"b", "c"}
    both = [selecting(namespaceSelector=front), selecting(namespaceSelector={"matchExpressions": [in_back]})]
    assert objects.unasked(both, spaces) == {"c"}
    assert objects.unasked([selecting(namespaceSelector={})], spaces) == set()
    assert objects.unasked([selecting()], spaces) == set()
    assert objects.unasked([], spaces) == set()


def test_pods_that_no_webhook_selects_are_not_asked_about():
    front = selecting(objectSelector={"matchLabels": {"tier": "front"}})
    pod = {"metadata": {"labels": {"tier": "front"}}}
    assert objects.asked([front], pod)
    assert not objects.asked([front], {"metadata": {}})
    assert objects.asked([front, selecting()], {"metadata": {}})
    assert objects.asked([], {"metadata": {}})
    assert not objects.asked([front], trial.pod("a"))


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([], ("kube-node-lease", "groundwork-system")),
        ([service("ipam", namespace="x")], ("kube-node-lease", "groundwork-system")),
        ([service("podpreset", namespace="x")], ("kube-node-lease", "x")),
        ([service("podpreset", flags={"untouched-namespace": ("a", "b")})], ("a", "b", SYSTEM)),
    ],
)
def test_the_namespaces_that_are_left_alone_are_those_of_the_webhook(services, expected):
    assert objects.untouched(services) == expected
