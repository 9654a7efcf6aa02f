"""Presets of several layers: who has the last word, who gave what, what is a conflict."""

import pytest

from services.podpreset.decide import decide
from services.podpreset.decision import Outcome
from services.proxyenv.complete import Facts
from tests.support.podpresets import (
    admit,
    admitted,
    cluster_preset,
    container,
    container_of,
    env,
    env_of,
    pod,
    preset,
    review,
    var,
    world,
)

WIDE, NARROW = "a,b", "b,c"


@pytest.mark.parametrize(
    ("strategy", "where", "together"),
    [
        ("replace", "cluster only", "a,b"),
        ("replace", "namespace only", "b,c"),
        ("replace", "both", "b,c"),
        ("append", "cluster only", "a,b"),
        ("append", "namespace only", "b,c"),
        ("append", "both", "a,b,c"),
        ("prepend", "cluster only", "a,b"),
        ("prepend", "namespace only", "b,c"),
        ("prepend", "both", "b,c,a"),
    ],
)
def test_lists_of_the_cluster_and_the_namespace_merge_by_strategy(strategy, where, together):
    wide = cluster_preset(env=[var("NO_PROXY", WIDE, type="multi", merge_strategy=strategy)])
    narrow = preset(env=[var("NO_PROXY", NARROW, type="multi", merge_strategy=strategy)])
    presets = {"cluster only": [wide], "namespace only": [narrow], "both": [narrow, wide]}[where]
    for before in (pod(), pod(container(env=env(NO_PROXY=together)))):
        decision, after = admit(before, world(*presets))
        assert env_of(after) == [("NO_PROXY", together), ("no_proxy", together)]
        assert decision.warnings == ()
    decision, after = admit(pod(container(env=env(NO_PROXY="own"))), world(*presets))
    assert dict(env_of(after))["NO_PROXY"] == f"own,{together}"
    assert decision.warnings == ()


def test_layers_are_applied_from_the_cluster_to_the_namespace_and_by_priority_within():
    presets = [
        preset("a", priority=-1, env=[var("NO_PROXY", "3")]),
        preset("z", priority=-5, env=[var("NO_PROXY", "2")]),
        cluster_preset("a", priority=100, env=[var("NO_PROXY", "1")]),
        cluster_preset("b", env=[var("NO_PROXY", "0")]),
    ]
    decision, after = admit(pod(), world(*presets))
    assert dict(env_of(after))["NO_PROXY"] == "0,1,2,3"
    assert [str(key) for key in decision.applied] == [
        "ClusterPodPreset b",
        "ClusterPodPreset a",
        "PodPreset team/z",
        "PodPreset team/a",
    ]


def test_a_namespace_can_have_another_proxy_than_the_cluster():
    wide = cluster_preset(env=env(HTTP_PROXY="http://wide", HTTPS_PROXY="http://wide"))
    after = admitted(pod(), wide, preset(env=env(http_proxy="http://narrow")))
    assert env_of(after) == [
        ("HTTP_PROXY", "http://narrow"),
        ("http_proxy", "http://narrow"),
        ("HTTPS_PROXY", "http://wide"),
        ("https_proxy", "http://wide"),
    ]


@pytest.mark.parametrize(
    ("wide", "narrow", "names"),
    [
        ({"URL": "x"}, {"USER": "u", "URL": "http://$(USER)@p"}, ["USER", "URL"]),
        ({"BASE": "a", "URL": "$(BASE)/x"}, {"BASE": "b"}, ["BASE", "URL"]),
        ({"URL": "x"}, {"B": "$(A)", "A": "a", "URL": "$(B)"}, ["A", "B", "URL"]),
        ({"NO_PROXY": "a"}, {"HOST": "h", "NO_PROXY": "$(HOST)"}, ["HOST", "NO_PROXY", "no_proxy"]),
        ({"URL": "x"}, {"USER": "u", "URL": "$$(USER)"}, ["URL", "USER"]),
        ({"URL": "x"}, {"USER": "u", "URL": "$$$(USER)"}, ["USER", "URL"]),
        ({"URL": "$(URL)$(NONE)$("}, {"USER": "$(URL)"}, ["URL", "USER"]),
        ({"A": "$(B)"}, {"B": "$(A)"}, ["B", "A"]),
    ],
)
def test_what_a_value_refers_to_comes_before_it_whoever_gave_it_first(wide, narrow, names):
    after = admitted(pod(), cluster_preset(env=env(**wide)), preset(env=env(**narrow)))
    assert [name for name, _ in env_of(after)] == names


def test_a_long_row_of_references_is_followed_to_its_end():
    row = {f"V{at}": f"$(V{at + 1})" for at in range(2000)}
    after = admitted(pod(), cluster_preset(env=env(**row)))
    assert [name for name, _ in env_of(after)] == list(reversed(row))


def test_the_stricter_policy_of_two_presets_decides_which_is_first_or_not():
    for policies in (("Reject", "SkipVariable"), ("SkipVariable", "Reject")):
        presets = [
            preset(name, conflictPolicy=policy, env=env(A=name)) for name, policy in zip("ab", policies, strict=True)
        ]
        decision, _ = admit(pod(), world(*presets))
        assert decision.outcome is Outcome.REJECTED
        assert decision.message == "presets conflict: PodPreset team/b: env A differs from that of PodPreset team/a"


def test_a_conflict_of_presets_that_are_for_different_containers_is_none():
    presets = [
        preset("a", env=env(A="1"), containerSelector={"names": ["app"]}),
        preset("b", env=env(A="2"), containerSelector={"names": ["other"]}),
    ]
    decision, after = admit(pod(container("app"), container("other")), world(*presets))
    assert decision.conflicts == ()
    assert (env_of(after, "app"), env_of(after, "other")) == ([("A", "1")], [("A", "2")])


def test_a_conflict_is_told_once_however_many_containers_it_concerns():
    presets = [preset("a", env=env(A="1")), preset("b", env=env(A="2"))]
    decision, _ = admit(pod(container("app"), container("other")), world(*presets))
    assert decision.warnings == ("PodPreset team/b: env A differs from that of PodPreset team/a; it was left out",)
    assert decision.audit == {
        "applied": "PodPreset team/a, PodPreset team/b",
        "conflicts": "PodPreset team/b: env A differs from that of PodPreset team/a",
    }


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"HTTP_PROXY": "p", "http_proxy": "p"}, "p"),
        ({"HTTP_PROXY": "p", "http_proxy": "$(HTTP_PROXY)"}, "p"),
        ({"http_proxy": "$(HTTP_PROXY)", "HTTP_PROXY": "p"}, "p"),
        ({"NO_PROXY": "a", "no_proxy": "a, b"}, "a,b"),
        ({"NO_PROXY": "a", "no_proxy": "$(NO_PROXY)"}, "a"),
        ({"NO_PROXY": "a", "no_proxy": "$(NO_PROXY),b"}, "a,b"),
        ({"no_proxy": "$(NO_PROXY)", "NO_PROXY": "a"}, "a"),
        ({"no_proxy": "$(NO_PROXY), b", "NO_PROXY": "a"}, "b,a"),
        ({"NO_PROXY": "a", "no_proxy": "$(OTHER)"}, "a,$(OTHER)"),
    ],
)
def test_two_spellings_in_one_preset_are_one_variable(given, value):
    one = preset(env=env(**given))
    name = max(given, key=str.isupper)
    assert env_of(admitted(pod(), one)) == [(name, value), (name.lower(), value)]
    assert one.notes == ()


def test_the_first_of_two_values_in_one_preset_counts_and_the_other_is_noted():
    one = preset(env=[*env(HTTP_PROXY="p"), *env(http_proxy="q")])
    assert env_of(admitted(pod(), one)) == [("HTTP_PROXY", "p"), ("http_proxy", "p")]
    assert one.notes == ("spec.env[1]: http_proxy has another value than HTTP_PROXY before it, which is the one used",)


def test_a_list_that_comes_to_hold_a_star_is_told_of():
    decision, after = admit(pod(), world(cluster_preset(env=env(NO_PROXY="a")), preset(env=env(NO_PROXY="*"))))
    assert env_of(after) == [("NO_PROXY", "*"), ("no_proxy", "*")]
    assert decision.warnings == ("NO_PROXY: * stands for all other items",)
    decision, after = admit(pod(container(env=env(NO_PROXY="mine"))), world(preset(env=env(NO_PROXY="*"))))
    assert env_of(after) == [("NO_PROXY", "*"), ("no_proxy", "*")]
    assert decision.warnings == ("container app: NO_PROXY: * stands for all other items",)


def test_the_same_list_of_an_old_preset_under_a_cluster_wide_one_is_no_conflict():
    olds = [preset(name, conflictPolicy="SkipAll", env=env(NO_PROXY="x")) for name in "ab"]
    decision, after = admit(pod(), world(cluster_preset(env=env(NO_PROXY="w")), *olds))
    assert decision.outcome is Outcome.PATCHED
    assert dict(env_of(after))["NO_PROXY"] == "w,x"
    assert admit(after, world(cluster_preset(env=env(NO_PROXY="w")), *olds))[0].outcome is Outcome.UNCHANGED


def test_a_single_value_that_a_narrower_preset_appends_to_is_a_list_from_there_on():
    presets = [cluster_preset(env=[var("LIST", "a,b")]), preset(env=[var("LIST", "b,c", merge_strategy="append")])]
    assert env_of(admitted(pod(), *presets)) == [("LIST", "a,b,c")]
    assert env_of(admitted(pod(container(env=env(LIST="own"))), *presets)) == [("LIST", "own,a,b,c")]


def test_an_old_preset_that_a_narrower_one_adds_to_still_wants_the_pod_as_it_came():
    presets = [cluster_preset(conflictPolicy="SkipAll", env=env(NO_PROXY="a")), preset(env=env(NO_PROXY="b"))]
    assert dict(env_of(admitted(pod(), *presets)))["NO_PROXY"] == "a,b"
    decision, _ = admit(pod(container(env=env(NO_PROXY="own"))), world(*presets))
    assert decision.outcome is Outcome.LEFT


def test_a_list_that_an_old_preset_wrote_is_not_what_it_gives_on_top_of_a_broader_one():
    presets = [cluster_preset(env=env(NO_PROXY="w")), preset(conflictPolicy="SkipAll", env=env(NO_PROXY="a, b"))]
    for own, outcome in (("a, b", Outcome.LEFT), ("w, a, b", Outcome.PATCHED)):
        decision, _ = admit(pod(container(env=env(NO_PROXY=own))), world(*presets))
        assert decision.outcome is outcome


@pytest.mark.parametrize(
    ("own", "outcome"),
    [
        ({"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName", "apiVersion": "v1"}}}, Outcome.PATCHED),
        ({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, Outcome.LEFT),
        ({"value": "x"}, Outcome.LEFT),
        ({}, Outcome.LEFT),
    ],
)
def test_an_old_preset_compares_where_values_come_from(own, outcome):
    given = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    before = pod(container(env=[{"name": "A", **own}]))
    decision, after = admit(before, world(preset(conflictPolicy="SkipAll", env=[given])))
    assert decision.outcome is outcome
    assert container_of(after)["env"] == [{"name": "A", **own}]


# -- NO_PROXY completed --------------------------------------------------------------------------------------------

FACTS = Facts(service_cidrs=("10.96.0.0/12",), api_server=("10.96.0.1", "192.168.0.10"))


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"env": env(NO_PROXY="a")}, "a,.svc,10.96.0.0/12"),
        ({}, ".svc,10.96.0.0/12"),
        ({"env": [var("NO_PROXY", "a", type="single")]}, "a,.svc,10.96.0.0/12"),
        ({"env": env(NO_PROXY="10.96.0.0/12,a")}, "10.96.0.0/12,a,.svc"),
        ({"env": env(NO_PROXY="*")}, "*"),
    ],
)
def test_no_proxy_is_completed_with_what_is_known_of_the_cluster(spec, value):
    one = preset(noProxy={"include": [".svc", "service-cidr", "pod-cidr"]}, **spec)
    _, after = admit(pod(), world(one, facts=FACTS))
    assert env_of(after) == [("NO_PROXY", value), ("no_proxy", value)]


def test_a_container_gets_the_completed_entries_behind_its_own():
    one = preset(env=env(NO_PROXY="a"), noProxy={"include": [".svc", "service-cidr"]})
    _, after = admit(pod(container(env=env(NO_PROXY="own"))), world(one, facts=FACTS))
    assert env_of(after) == [("NO_PROXY", "own,a,.svc,10.96.0.0/12"), ("no_proxy", "own,a,.svc,10.96.0.0/12")]


def test_entries_that_complete_a_list_are_nothing_that_an_old_preset_insists_on():
    one = preset(conflictPolicy="SkipAll", noProxy={"include": [".svc"]})
    decision, after = admit(pod(container(env=env(NO_PROXY="own"))), world(one))
    assert dict(env_of(after))["NO_PROXY"] == "own,.svc"
    assert decision.warnings == ()


def test_within_a_layer_two_values_from_different_places_conflict():
    sources = [{"secretKeyRef": {"name": name, "key": "k"}} for name in "ab"]
    presets = [preset(source["secretKeyRef"]["name"], env=[{"name": "A", "valueFrom": source}]) for source in sources]
    decision, after = admit(pod(), world(*presets))
    assert env_of(after) == [("A", sources[0])]
    assert [conflict.item for conflict in decision.conflicts] == ["env A"]


def test_new_facts_count_from_the_next_pod_on():
    one = preset(noProxy={"include": ["pod-cidr", ".svc"]})
    before = world(one, facts=FACTS)
    after = before.with_facts(FACTS._replace(pod_cidrs=("10.0.0.0/16",)))
    assert dict(env_of(admit(pod(), before)[1]))["NO_PROXY"] == ".svc"
    assert dict(env_of(admit(pod(), after)[1]))["NO_PROXY"] == "10.0.0.0/16,.svc"
    assert after.with_facts(after.facts) is after


def test_a_no_proxy_from_a_secret_is_not_completed():
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    one = preset(env=[{"name": "NO_PROXY", "valueFrom": source}], noProxy={"include": [".svc"]})
    assert env_of(admitted(pod(), one)) == [("NO_PROXY", source), ("no_proxy", source)]


# -- what containers, namespaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        (None, {"app", "web-1", "init", "sidecar"}),
        ({}, {"app", "web-1", "init", "sidecar"}),
        ({"init": False}, {"app", "web-1", "sidecar"}),
        ({"names": ["web-*"]}, {"web-1"}),
        ({"names": ["web-?", "i*"]}, {"web-1", "init"}),
        ({"names": ["*"], "init": False}, {"app", "web-1", "sidecar"}),
        ({"names": ["web"]}, set()),
    ],
)
def test_a_container_selector_names_containers_by_globs_and_can_leave_out_init_containers(selector, chosen):
    spec = {"env": env(A="1"), **({} if selector is None else {"containerSelector": selector})}
    before = pod(
        container("app"),
        container("web-1"),
        initContainers=[container("init"), container("sidecar", restartPolicy="Always")],
    )
    decision, after = admit(before, world(preset(**spec)))
    assert {name for name in ("app", "web-1", "init", "sidecar") if env_of(after, name)} == chosen
    assert bool(decision.applied) == bool(chosen)
    assert ("annotations" in after["metadata"]) == bool(chosen)


def test_a_volume_comes_with_the_containers_that_mount_it():
    volume = {"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    one = preset(containerSelector={"names": ["other"]}, **volume)
    assert "volumes" not in admitted(pod(), one)["spec"]
    assert len(admitted(pod(container("other")), one)["spec"]["volumes"]) == 1


def only(name, policy="SkipVariable", config_map=None, **more):
    """A preset for containers of one name, with a volume `v` that they mount."""
    volume = {"name": "v", "configMap": {"name": config_map or name}}
    mount = {"name": "v", "mountPath": "/v"}
    given = {"volumes": [volume], "volumeMounts": [mount], "conflictPolicy": policy, **more}
    return preset(name, containerSelector={"names": [name]}, **given)


CLUSTERS_V = cluster_preset(
    volumes=[{"name": "v", "configMap": {"name": "wide"}}], volumeMounts=[{"name": "v", "mountPath": "/v"}]
)


@pytest.mark.parametrize("policy", ["SkipVariable", "SkipAll", "Reject"])
@pytest.mark.parametrize(
    ("others", "own", "config_map"),
    [
        ([CLUSTERS_V], [], "wide"),
        ([only("web")], [], "web"),
        ([], [{"name": "v", "configMap": {"name": "mine"}}], "mine"),
        ([CLUSTERS_V], [{"name": "v", "configMap": {"name": "wide"}}], "wide"),
    ],
)
def test_a_preset_for_containers_that_a_pod_does_not_have_says_nothing_of_its_volumes(policy, others, own, config_map):
    """Neither as the narrower one, nor as the first by name, nor against the pod's own."""
    before = pod(container("web"), volumes=own)
    decision, after = admit(before, world(*others, only("db", policy)))
    assert decision.conflicts == ()
    assert after["spec"]["volumes"] == [{"name": "v", "configMap": {"name": config_map}}]
    assert "PodPreset team/db" not in map(str, decision.applied)
    both = pod(container("web"), container("db"), volumes=[{"name": "v", "configMap": {"name": "mine"}}])
    assert admit(both, world(only("db", policy)))[0].conflicts, "where it gives the volume it has a say"


def test_the_trusted_certificates_of_another_container_are_not_given():
    wide = cluster_preset(caBundle={"configMap": {"name": "wide"}})
    db = preset(caBundle={"configMap": {"name": "db"}}, containerSelector={"names": ["db"]})
    for name, config_map in (("web", "wide"), ("db", "db")):
        (volume,) = admitted(pod(container(name)), wide, db)["spec"]["volumes"]
        assert volume["configMap"]["name"] == config_map


def test_a_pod_with_none_of_the_containers_is_not_matched():
    decision, after = admit(pod(container("web")), world(only("db", "Reject", env=env(A="1"))))
    assert decision.outcome is Outcome.UNMATCHED
    assert after == pod(container("web"))


def test_a_volume_that_no_preset_mounts_is_for_the_pod():
    one = preset(containerSelector={"names": ["other"]}, volumes=[{"name": "v", "emptyDir": {}}])
    decision, after = admit(pod(), world(one))
    assert after["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert len(decision.applied) == 1


@pytest.mark.parametrize(("labels", "matches"), [({"tier": "x"}, True), ({"tier": "y"}, False), ({}, False)])
def test_a_cluster_preset_is_for_the_namespaces_that_its_selector_selects(labels, matches):
    one = cluster_preset(env=env(A="1"), namespaceSelector={"matchLabels": {"tier": "x"}})
    decision, _ = admit(pod(), world(one, labels=labels))
    assert (decision.outcome is Outcome.PATCHED) == matches


def test_a_namespace_that_was_not_seen_yet_has_its_name_as_a_label():
    one = cluster_preset(env=env(A="1"), namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "new"}})
    decision, _ = admit(pod(), world(one), namespace="new")
    assert decision.outcome is Outcome.PATCHED


def test_a_preset_with_a_problem_is_not_applied():
    decision, _ = admit(pod(), world(preset(env=env(A="1"), conflictPolicy="Whatever")))
    assert decision.outcome is Outcome.UNMATCHED


# -- volumes and mounts --------------------------------------------------------------------------------------------


def certificates(config_map, path="/etc/ca"):
    return {
        "volumes": [{"name": "ca", "configMap": {"name": config_map}, "metadata": {"merge_strategy": "replace"}}],
        "volumeMounts": [{"name": "ca", "mountPath": path, "metadata": {"merge_strategy": "replace"}}],
    }


def test_a_volume_of_the_namespace_takes_the_place_of_the_clusters():
    decision, after = admit(pod(), world(cluster_preset(**certificates("wide")), preset(**certificates("narrow"))))
    assert after["spec"]["volumes"] == [{"name": "ca", "configMap": {"name": "narrow"}}]
    assert container_of(after)["volumeMounts"] == [{"name": "ca", "mountPath": "/etc/ca"}]
    assert decision.conflicts == ()


def test_within_a_layer_the_second_volume_is_left_out_with_its_mounts():
    presets = [preset("a", **certificates("one")), preset("b", **certificates("two", "/etc/other"))]
    decision, after = admit(pod(), world(*presets))
    assert after["spec"]["volumes"] == [{"name": "ca", "configMap": {"name": "one"}}]
    assert container_of(after)["volumeMounts"] == [{"name": "ca", "mountPath": "/etc/ca"}]
    assert [conflict.item for conflict in decision.conflicts] == ["volume ca"]


def test_within_a_layer_one_mount_that_conflicts_leaves_out_the_whole_volume():
    second = {
        "volumes": [{"name": "w", "emptyDir": {}}],
        "volumeMounts": [{"name": "w", "mountPath": "/free"}, {"name": "w", "mountPath": "/etc/ca/"}],
    }
    decision, after = admit(pod(), world(preset("a", **certificates("one")), preset("b", **second)))
    assert [volume["name"] for volume in after["spec"]["volumes"]] == ["ca"]
    assert [mount["mountPath"] for mount in container_of(after)["volumeMounts"]] == ["/etc/ca"]
    assert [conflict.item for conflict in decision.conflicts] == ["volumeMount /etc/ca"]


def test_one_volume_may_be_mounted_at_two_paths():
    two = {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": [
            {"name": "v", "mountPath": "/a", "subPath": "a"},
            {"name": "v", "mountPath": "/b", "subPath": "b"},
        ],
        "conflictPolicy": "SkipAll",
    }
    where = world(preset(**two))
    decision, after = admit(pod(), where)
    assert decision.conflicts == ()
    assert container_of(after)["volumeMounts"] == two["volumeMounts"]
    assert admit(after, where)[0].outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("device", [{"name": "other", "devicePath": "/etc/ca"}, {"name": "ca", "devicePath": "/dev/x"}])
def test_a_block_device_takes_the_name_and_the_path_of_a_mount(device):
    decision, after = admit(pod(container(volumeDevices=[device])), world(preset(**certificates("c"))))
    assert "volumeMounts" not in container_of(after)
    assert len(decision.conflicts) == 1


def test_a_volume_with_what_the_api_server_filled_in_is_the_same():
    where = world(preset(**certificates("c")))
    filled = {"name": "ca", "configMap": {"name": "c", "defaultMode": 420}}
    decision, after = admit(pod(volumes=[filled]), where)
    assert decision.conflicts == ()
    assert after["spec"]["volumes"] == [filled]
    assert len(container_of(after)["volumeMounts"]) == 1


def test_the_layers_of_an_env_from_are_merged_by_its_key():
    wide = cluster_preset(envFrom=[{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}])
    narrow = preset(
        envFrom=[{"configMapRef": {"name": "c", "optional": True}, "metadata": {"merge_strategy": "replace"}}]
    )
    decision, after = admit(pod(), world(wide, narrow))
    assert container_of(after)["envFrom"] == [
        {"configMapRef": {"name": "c", "optional": True}},
        {"secretRef": {"name": "s"}},
    ]
    assert decision.conflicts == ()


def test_within_a_layer_an_env_from_that_differs_is_a_conflict():
    presets = [
        preset("a", envFrom=[{"secretRef": {"name": "s"}}]),
        preset("b", envFrom=[{"secretRef": {"name": "s", "optional": True}}]),
    ]
    decision, after = admit(pod(), world(*presets))
    assert container_of(after)["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert [conflict.item for conflict in decision.conflicts] == ["envFrom Secret s"]


def test_what_is_folded_once_serves_the_next_pod_too():
    where = world(cluster_preset(env=env(A="1")), preset(env=env(B="2")))
    matching = where.matching("team", {})
    assert where.plan(matching, windows=False) is where.plan(where.matching("team", {"a": "b"}), windows=False)
    assert where.plan(matching, windows=False) is not where.plan(matching, windows=True)
    assert decide(review(pod()), where) == decide(review(pod()), where)
