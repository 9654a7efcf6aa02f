"""The chart as it is rendered: what belongs to what, and that it says the same as the sources it is made from."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.support.chart import CHART, COMPONENTS, NAMESPACE, ROOT, helm, load, merged, render, rights

EVERYTHING = {
    "machineController": {"enabled": True},
    "ipam": {"web": {"enabled": True, "service": {"enabled": True}}},
    "podpreset": {"autoscaling": {"enabled": True}, "webhook": {"certManager": {"enabled": True}}},
    "networkPolicy": {"enabled": True},
    "metrics": {"serviceMonitor": {"enabled": True}},
}
COMMON = {
    "app.kubernetes.io/name": "groundwork",
    "app.kubernetes.io/instance": "groundwork",
    "app.kubernetes.io/version": "0.1.0",
    "app.kubernetes.io/part-of": "groundwork",
    "app.kubernetes.io/managed-by": "Helm",
    "helm.sh/chart": "groundwork-0.1.0",
}
OF_SERVICES = {
    *("ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"),
    *("Role", "RoleBinding", "ClusterRoleBinding", "MutatingWebhookConfiguration", "Certificate", "Issuer"),
    "HorizontalPodAutoscaler",
}
LEASES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]


def definitions(folder="."):
    """Files of the one source."""
    return sorted((ROOT / "deploy" / "crds" / folder).glob("*.yaml"))


def is_hook(obj):
    return "helm.sh/hook" in obj["metadata"].get("annotations", {})


def test_helm_lint_has_no_complaint():
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict")


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_every_object_says_what_it_belongs_to_and_is_in_the_release_s_namespace(values):
    for obj in render(values).objects:
        labels = obj["metadata"]["labels"]
        where = (obj["kind"], obj["metadata"]["name"])
        assert COMMON.items() <= labels.items(), where
        if obj["kind"] in OF_SERVICES and not is_hook(obj):
            assert labels["app.kubernetes.io/component"] in COMPONENTS, where
        if not is_hook(obj):
            assert obj["metadata"].get("namespace", NAMESPACE) == NAMESPACE, where


def test_a_selector_has_nothing_that_an_upgrade_could_change():
    for obj in render(EVERYTHING).of("Deployment"):
        component = obj["metadata"]["labels"]["app.kubernetes.io/component"]
        selector = obj["spec"]["selector"]["matchLabels"]
        assert selector == {
            "app.kubernetes.io/name": "groundwork",
            "app.kubernetes.io/instance": "groundwork",
            "app.kubernetes.io/component": component,
        }
        assert selector.items() <= obj["spec"]["template"]["metadata"]["labels"].items()


def test_labels_of_the_user_take_the_place_of_none_of_the_chart_s():
    theirs = {"team": "network", **dict.fromkeys([*COMMON, "app.kubernetes.io/component"], "theirs")}
    for obj in render(merged(EVERYTHING, {"commonLabels": theirs})).objects:
        labels = obj["metadata"]["labels"]
        assert COMMON.items() | {("team", "network")} <= labels.items(), obj["metadata"]["name"]
        assert labels.get("app.kubernetes.io/component") != "theirs", obj["metadata"]["name"]
        if obj["kind"] == "Deployment":
            template = obj["spec"]["template"]["metadata"]["labels"]
            assert obj["spec"]["selector"]["matchLabels"].items() <= template.items()


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_what_selects_pods_selects_those_of_one_service(values):
    rendering = render(values)
    pods = {component: rendering.pod(component) for component in COMPONENTS if rendering.pod(component)}
    selectors = [(obj, obj["spec"]["selector"]) for obj in rendering.of("Service")]
    selectors += [(obj, obj["spec"]["selector"]["matchLabels"]) for obj in rendering.of("PodDisruptionBudget")]
    selectors += [(obj, obj["spec"]["podSelector"]["matchLabels"]) for obj in rendering.of("NetworkPolicy")]
    for obj, selector in selectors:
        found = [name for name, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()]
        assert found == [obj["metadata"]["labels"]["app.kubernetes.io/component"]], obj["metadata"]["name"]


def test_a_service_monitor_finds_the_service_for_scrapes_and_no_other():
    rendering = render(EVERYTHING)
    for monitor in rendering.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [o for o in rendering.of("Service") if selector.items() <= o["metadata"]["labels"].items()]
        assert [o["metadata"]["name"] for o in found] == [f"{monitor['metadata']['name']}-metrics"]
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
        assert monitor["spec"]["endpoints"][0]["port"] == found[0]["spec"]["ports"][0]["name"]


def test_the_definitions_are_those_of_the_one_source_and_stay_when_the_release_goes():
    wanted = {
        "default": ({}, definitions()),
        "with machines": (EVERYTHING, [*definitions(), *definitions("infrastructure")]),
    }
    for values, files in wanted.values():
        installed = {o["metadata"]["name"]: o for o in render(values).of("CustomResourceDefinition")}
        sources = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
        assert set(installed) == {source["metadata"]["name"] for source in sources}
        for source in sources:
            found = installed[source["metadata"]["name"]]
            kept = {"helm.sh/resource-policy": "keep"}
            assert found["metadata"]["annotations"] == source["metadata"].get("annotations", {}) | kept
            assert found["metadata"]["labels"] == COMMON | source["metadata"].get("labels", {})
            assert found["spec"] == source["spec"]


def test_every_container_is_named_as_clusterctl_looks_for_it_and_answers_probes():
    for obj in render(EVERYTHING).of("Deployment"):
        (container,) = obj["spec"]["template"]["spec"]["containers"]
        assert container["name"] == "manager"
        assert [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")] == [
            {"path": "/livez", "port": "http"},
            {"path": "/livez", "port": "http"},
            {"path": "/readyz", "port": "http"},
        ]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit only slows down"


@pytest.mark.parametrize("service", COMPONENTS)
def test_the_rights_are_those_that_the_reference_page_explains(service):
    page = (ROOT / "docs" / "reference" / "rbac.md").read_text(encoding="utf-8")
    documents = [
        document
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        for document in yaml.safe_load_all(block)
        if document["metadata"]["name"] == f"groundwork-{service}"
    ]
    told = rights(rule for document in documents for rule in document["rules"])
    own, everywhere = render({"machineController": {"enabled": True}}).rules(service)
    assert rights([*own, *everywhere]) == told | rights(LEASES)


def test_users_get_the_rights_that_the_page_about_tenants_names():
    page = (ROOT / "docs" / "concepts" / "tenancy.md").read_text(encoding="utf-8")
    told = {
        document["metadata"]["name"]: rights(document["rules"])
        for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        for document in yaml.safe_load_all(block)
        if document["kind"] == "ClusterRole"
    }
    assert set(told) == {"groundwork-tenant-view", "groundwork-tenant-edit"}
    for role in ("view", "edit"):
        given = render().get("ClusterRole", f"groundwork-{role}")
        assert given["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
        assert rights(given["rules"]) == told[f"groundwork-tenant-{role}"]


@pytest.mark.parametrize(
    "values",
    [{"fullnameOverride": "f" * 63}, {"nameOverride": "n" * 63}, {"fullnameOverride": f"{'f' * 35}-{'g' * 20}"}],
    ids=["full name", "name", "cut at a dash"],
)
def test_no_name_is_longer_than_the_api_server_takes(values):
    told = {"metrics": {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}}
    for obj in render(merged(EVERYTHING, told, values)).objects:
        name = obj["metadata"]["name"]
        if obj["kind"] != "CustomResourceDefinition":
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), (obj["kind"], name)


def texts(value):
    """Everything below a value that is no map or list."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [each for item in value for each in texts(item)] if isinstance(value, list) else [value]


def test_a_name_of_digits_is_a_text_wherever_it_stands():
    account = {"serviceAccount": {"name": "5"}}
    values = {
        "namespaceOverride": "2",
        "nameOverride": "3",
        "fullnameOverride": "4",
        "priorityClassName": "6",
        **dict.fromkeys(("ipam", "capvIntegrator", "podpreset", "machineController"), account),
        "metrics": {"serviceMonitor": {"enabled": True, "namespace": "7"}, "prometheusRule": {"enabled": True}},
    }
    given = yaml.safe_dump(merged(EVERYTHING, values))
    found = load(helm("template", "1", str(CHART), "--namespace=8", "--values=-", given=given))
    for obj in found:
        if obj["kind"] != "CustomResourceDefinition":
            assert not {1, 2, 3, 4, 5, 6, 7, 8} & set(texts(obj["metadata"])), obj["metadata"]
    assert {obj["metadata"].get("namespace", "2") for obj in found} == {"2", "4-test", "7"}
    for obj in found:
        assert {subject["namespace"] for subject in obj.get("subjects", ())} <= {"2"}
        if obj["kind"] == "Deployment":
            pod = obj["spec"]["template"]["spec"]
            assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("5", "6")
            assert set(map(type, obj["spec"]["selector"]["matchLabels"].values())) == {str}
            assert set(map(type, obj["spec"]["template"]["metadata"]["labels"].values())) == {str}
        if obj["kind"] == "ServiceMonitor":
            assert obj["spec"]["namespaceSelector"] == {"matchNames": ["2"]}


def test_reading_and_writing_are_apart():
    for obj in render(EVERYTHING).of("ClusterRole"):
        verbs = {verb for rule in obj["rules"] for verb in rule["verbs"]}
        reads = verbs & {"get", "list", "watch"}
        assert reads in (set(), verbs), obj["metadata"]["name"]


@pytest.mark.parametrize("service", COMPONENTS)
def test_a_pod_listens_at_whatever_address_it_has(service):
    """Where there is IPv6 alone, nobody reaches what listens at 0.0.0.0, probes included."""
    asked = [text.partition("=") for text in render(EVERYTHING).args(service)]
    found = {name: value for name, _, value in asked if name.endswith("-address")}
    assert "--bind-address" in found
    assert [value for value in found.values() if not value.startswith(":")] == []


def test_there_is_one_pod_at_least_wherever_a_disruption_is_refused():
    single = merged(
        EVERYTHING, *({key: {"replicaCount": 1}} for key in ("ipam", "capvIntegrator", "machineController"))
    )
    names = {obj["metadata"]["name"] for obj in render(single).of("PodDisruptionBudget")}
    assert names == {"groundwork-podpreset"}, "its autoscaler keeps two"


def test_the_webhook_is_asked_at_its_service():
    (webhook,) = render().get("MutatingWebhookConfiguration", "groundwork-podpreset")["webhooks"]
    service = {"namespace": NAMESPACE, "name": "groundwork-podpreset", "path": "/mutate", "port": 443}
    assert webhook["clientConfig"] == {"service": service}
