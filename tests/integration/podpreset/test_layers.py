"""Values of several layers, through the API server: cluster, namespace and the container's own.

M1 to M9 are the strategies by where a value is given, N1 to N6 what people write into lists. The rest is what the other
projects of this kind were tested for, as far as it is about what a pod gets.
"""

from __future__ import annotations

import pytest

from tests.support.kube import eventually
from tests.support.presets import APPLIED, CLUSTER_APPLIED, applied, container, env, first, mounts, volumes

BOTH_CASES = ("NO_PROXY", "no_proxy")
CA_FILE = "/etc/groundwork/ca-bundle/ca-bundle.crt"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")


def listed(value, strategy=None):
    metadata = {"type": "multi"} | ({"merge_strategy": strategy} if strategy else {})
    return [{"name": "LIST", "value": value, "metadata": metadata}]


@pytest.mark.parametrize(
    ("strategy", "of_cluster", "of_namespace", "outcome"),
    [
        pytest.param("replace", "a,b", None, "a,b", id="M1"),
        pytest.param("replace", None, "b,c", "b,c", id="M2"),
        pytest.param("replace", "a,b", "b,c", "b,c", id="M3"),
        pytest.param("append", "a,b", None, "a,b", id="M4"),
        pytest.param("append", None, "b,c", "b,c", id="M5"),
        pytest.param("append", "a,b", "b,c", "a,b,c", id="M6"),
        pytest.param("prepend", "a,b", None, "a,b", id="M7"),
        pytest.param("prepend", None, "b,c", "b,c", id="M8"),
        pytest.param("prepend", "a,b", "b,c", "b,c,a", id="M9"),
    ],
)
async def test_the_strategy_of_the_narrower_layer_decides(site, strategy, of_cluster, of_namespace, outcome):
    if of_cluster is not None:
        await site.cluster_preset(env=listed(of_cluster, None if of_namespace else strategy))
    if of_namespace is not None:
        await site.preset(env=listed(of_namespace, strategy))
    assert env(first(await site.pod())) == [("LIST", outcome)]


@pytest.mark.parametrize(
    ("written", "outcome", "noted"),
    [
        pytest.param(" a , b ", "a,b", "", id="N1 spaces"),
        pytest.param("a,,b", "a,b", "", id="N2 empty items"),
        pytest.param("Example.com,b,example.COM", "Example.com,b", "", id="N3 duplicates in another case"),
        pytest.param("a,*,b", "*", "* stands for all other items", id="N4 a star"),
        pytest.param("10.0.0.0/8,fd00::/8", "10.0.0.0/8,fd00::/8", "makes httpx fail", id="N5 an IPv6 range"),
        pytest.param("a,b,", "a,b", "", id="N6 a comma at the end"),
    ],
)
async def test_a_list_is_put_in_order_and_what_is_odd_about_it_is_told(site, written, outcome, noted):
    made = await site.preset(env=[{"name": "NO_PROXY", "value": written}])
    assert env(first(await site.pod())) == [(name, outcome) for name in BOTH_CASES]
    condition = made["status"]["conditions"][0]
    assert condition["status"] == "True"
    assert noted in condition["message"]
    assert bool(condition["message"]) is bool(noted)


async def test_a_namespace_adds_to_no_proxy_and_has_a_proxy_of_its_own(site):
    await site.cluster_preset(
        env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "NO_PROXY", "value": ".svc,.corp"}]
    )
    await site.preset(
        env=[{"name": "HTTPS_PROXY", "value": "http://other:3128"}, {"name": "NO_PROXY", "value": "mysql"}]
    )
    made = await site.pod(containers=[container(env=[{"name": "no_proxy", "value": "mine"}])])
    assert env(first(made)) == [
        ("HTTPS_PROXY", "http://other:3128"),
        ("https_proxy", "http://other:3128"),
        ("no_proxy", "mine,.svc,.corp,mysql"),
        ("NO_PROXY", "mine,.svc,.corp,mysql"),
    ]
    assert [key.rpartition("/")[2] for key in applied(made)] == [f"clusterpodpreset-base-{site.id}", "podpreset-preset"]


async def test_the_higher_priority_wins_whatever_the_names(site):
    await site.preset("a", priority=10, env=[{"name": "A", "value": "high"}])
    await site.preset("z", priority=-10, env=[{"name": "A", "value": "low"}])
    await site.cluster_preset("top", priority=1000, env=[{"name": "A", "value": "cluster"}])
    assert env(first(await site.pod())) == [("A", "high")]


async def test_a_preset_of_the_cluster_and_one_of_the_namespace_of_one_name_are_both_recorded(site):
    name = f"{'same' * 16}-{site.id}"
    await site.cluster_preset(name, env=[{"name": "A", "value": "1"}])
    await site.preset(name, env=[{"name": "B", "value": "2"}])
    keys = list(applied(await site.pod()))
    assert len(keys) == 2
    assert keys[0].startswith(CLUSTER_APPLIED)
    assert keys[1].startswith(APPLIED)


async def test_containers_are_chosen_by_name_and_kind(site):
    await site.preset(
        containerSelector={"names": ["app-*"], "init": False},
        env=[{"name": "A", "value": "x"}],
    )
    made = await site.pod(
        containers=[container("app-1"), container("other")],
        initContainers=[container("app-init"), container("app-sidecar", restartPolicy="Always")],
    )
    assert [env(one) for one in made["spec"]["containers"]] == [[("A", "x")], []]
    assert [env(one) for one in made["spec"]["initContainers"]] == [[], [("A", "x")]]


@pytest.mark.parametrize("windows", [{"os": {"name": "windows"}}, {"nodeSelector": {"kubernetes.io/os": "windows"}}])
async def test_a_windows_pod_gets_one_spelling(site, windows):
    await site.preset(env=[{"name": "HTTP_PROXY", "value": "p"}])
    assert env(first(await site.pod(**windows))) == [("HTTP_PROXY", "p")]


async def test_what_the_cluster_knows_of_itself_completes_no_proxy(cluster, site):
    await site.preset(noProxy={"include": [".svc", ".cluster.local", "service-cidr", "api-server", "metadata"]})
    ranges = cluster.kubectl("get", "servicecidr", "kubernetes", "-o=jsonpath={.spec.cidrs[0]}")
    address = cluster.kubectl("get", "service", "kubernetes", "-n=default", "-o=jsonpath={.spec.clusterIP}")
    wanted = f".svc,.cluster.local,{ranges},{address},169.254.169.254"
    assert env(first(await site.pod())) == [(name, wanted) for name in BOTH_CASES]


async def test_the_ranges_of_nodes_complete_no_proxy_as_nodes_come(cluster, site):
    preset = await site.preset(noProxy={"include": ["pod-cidr"]}, env=[{"name": "NO_PROXY", "value": "x"}])
    (condition,) = preset["status"]["conditions"]
    node = f"node-{site.id}"
    cluster.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {"podCIDR": "10.244.7.0/24"}},
    )
    try:
        made = await eventually(site.pod, lambda made: ("NO_PROXY", "x,10.244.7.0/24") in env(first(made)))
        assert made
    finally:
        cluster.kubectl("delete", "node", node)
    assert "pod-cidr" in condition["message"], "before, it said that nothing was known of it"


@pytest.mark.parametrize(
    ("bundle", "source"),
    [
        (
            {"configMap": {"name": "trust"}},
            {
                "configMap": {
                    "name": "trust",
                    "defaultMode": 420,
                    "items": [{"key": "ca-bundle.crt", "path": "ca-bundle.crt"}],
                }
            },
        ),
        (
            {"configMap": {"name": "trust", "key": "root.pem"}},
            {
                "configMap": {
                    "name": "trust",
                    "defaultMode": 420,
                    "items": [{"key": "root.pem", "path": "ca-bundle.crt"}],
                }
            },
        ),
    ],
)
async def test_a_ca_bundle_is_mounted_beside_the_images_own_and_told_of_where_nothing_was_said(site, bundle, source):
    await site.preset(caBundle=bundle)
    made = await site.pod(containers=[container(env=[{"name": "SSL_CERT_FILE", "value": "/mine"}])])
    assert made["spec"]["volumes"] == [{"name": "groundwork-ca-bundle", **source}]
    assert mounts(first(made)) == [("groundwork-ca-bundle", "/etc/groundwork/ca-bundle")]
    wanted = [(name, CA_FILE) for name in CA_VARIABLES if name != "SSL_CERT_FILE"]
    assert env(first(made)) == [*wanted, ("SSL_CERT_FILE", "/mine")]


async def test_a_variable_of_the_pod_can_refer_to_an_injected_one(site):
    await site.preset(env=[{"name": "PROXY_HOST", "value": "proxy"}])
    made = await site.pod(containers=[container(env=[{"name": "URL", "value": "http://$(PROXY_HOST):3128"}])])
    assert [name for name, _ in env(first(made))] == ["PROXY_HOST", "URL"], "only what comes before is expanded"


# -- of other projects ---------------------------------------------------------------------------------------------


async def test_kubeflow_a_pod_keeps_its_annotations_and_tolerations(site):
    await site.preset("a", env=[{"name": "A", "value": "x"}])
    own = [{"key": "mine", "operator": "Exists", "effect": "NoSchedule"}]
    made = await site.pod(annotations={"mine": "value"}, tolerations=own)
    assert made["metadata"]["annotations"]["mine"] == "value"
    assert made["spec"]["tolerations"][0] == own[0]


async def test_kubeflow_an_annotation_of_the_key_that_we_write_is_ours(site):
    await site.preset("a", env=[{"name": "A", "value": "x"}])
    told = {f"{APPLIED}a": "something else"}
    assert applied(await site.pod(annotations=told))[f"{APPLIED}a"] != "something else"


async def test_cert_injection_pods_of_a_label_get_proxy_and_certificates_and_no_others(site):
    await site.preset(
        selector={"matchLabels": {"inject": "yes"}},
        env=[{"name": "HTTPS_PROXY", "value": "p"}],
        caBundle={"configMap": {"name": "ca"}},
    )
    labelled = await site.pod({"inject": "yes"}, containers=[container("one"), container("two")])
    for one in labelled["spec"]["containers"]:
        assert ("HTTPS_PROXY", "p") in env(one)
        assert ("SSL_CERT_FILE", CA_FILE) in env(one)
    other = await site.pod({"inject": "no"})
    assert env(first(other)) == []
    assert volumes(other) == []


async def test_indeed_of_a_name_given_twice_the_first_wins(site):
    await site.preset("a", env=[{"name": "A", "value": "first"}])
    await site.preset("b", env=[{"name": "A", "value": "second"}])
    assert env(first(await site.pod())) == [("A", "first")]


async def test_indeed_a_changed_preset_counts_for_the_next_pod_and_not_for_the_last(site):
    preset = await site.preset(env=[{"name": "A", "value": "1"}])
    before = await site.pod()
    await site.change(preset, env=[{"name": "A", "value": "2"}])
    assert env(first(await site.pod())) == [("A", "2")]
    assert env(first(before)) == [("A", "1")]


async def test_openshift_entries_of_users_and_of_the_cluster_come_together_once_each(site):
    await site.cluster_preset(
        noProxy={"include": [".svc", ".cluster.local", "metadata"]},
        env=[{"name": "NO_PROXY", "value": "localhost,127.0.0.1,.SVC"}],
    )
    await site.preset(env=[{"name": "NO_PROXY", "value": "example.com,172.30.0.0/16,fd02::/112"}])
    wanted = "localhost,127.0.0.1,.SVC,.cluster.local,169.254.169.254,example.com,172.30.0.0/16,fd02::/112"
    assert env(first(await site.pod())) == [(name, wanted) for name in BOTH_CASES]
