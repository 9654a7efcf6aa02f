"""What `groundwork doctor` says of addresses and of what is around us, how it looks, and what its pages hold."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import yaml

from services import cli
from services.console import UNUSABLE
from services.doctor import checks, definitions, finding, show
from services.doctor.finding import Finding, Level
from services.doctor.seen import (
    Books,
    Provider,
    Seen,
    Stale,
)
from services.podpreset.cli.stale import Reason, StaleRow
from tests.support import chart
from tests.support.ipam_cli import capi_claim, ip_address, ip_claim, pool, reservation
from tests.unit.cli.doctored import DENIED, NOW, OLD, SYSTEM, levels, obj, said, service

# -- addresses -----------------------------------------------------------------------------------------------------


def books(pools=(), claims=(), addresses=(), reservations=()):
    parts = (tuple(obj(each) for each in part) for part in (pools, claims, addresses, reservations))
    return Books(*parts)


def small(name, first, last, **spec):
    return pool(name, "a", pools=[{"start": f"10.0.0.{first}", "end": f"10.0.0.{last}"}], **spec)


@pytest.mark.parametrize(
    ("taken", "expected", "what"),
    [
        (0, ["ok"], "1 pool: no mistakes, addresses left"),
        (8, ["ok"], "1 pool: no mistakes, addresses left"),
        (9, ["warning"], "1 of 10 addresses are free"),
        (10, ["warning"], "none of 10 addresses is free"),
    ],
)
def test_a_pool_that_is_nearly_full_is_told(taken, expected, what):
    kept = [reservation(f"10.0.0.{place}") for place in range(1, taken + 1)]
    found = said("pools", Seen(now=NOW, books=books([small("p", 1, 10)], reservations=kept)))
    assert [item[0] for item in found] == expected
    assert what in found[0][2]


def test_how_full_a_pool_is_is_not_said_when_what_is_taken_was_not_read():
    full = books([small("p", 1, 1)], reservations=[reservation("10.0.0.1")])
    assert levels("pools", Seen(now=NOW, books=full)) == ["warning"]
    assert levels("pools", Seen(now=NOW, books=full._replace(addresses=DENIED))) == ["ok"]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([small("b", 11, 20)], ["ok"]),
        ([small("b", 10, 20)], ["info", "ok"]),
        ([small("b", 10, 20, domain="x")], ["warning", "ok"]),
        ([small("b", 1, 10, domain="x"), small("c", 5, 5, domain="x")], ["warning", "warning", "info", "ok"]),
    ],
)
def test_pools_that_have_the_same_addresses_are_told(others, expected):
    seen = Seen(now=NOW, books=books([small("a", 1, 10), *others]))
    assert sorted(levels("pools", seen), key=["warning", "info", "ok"].index) == expected


def test_pairs_of_pools_beyond_a_score_are_counted_as_many():
    seen = Seen(now=NOW, books=books([small(f"p{place}", 1, 10) for place in range(30)]))
    found = said("pools", seen)
    assert len(found) == 22
    assert found[-2][2] == "more than 20 pairs of pools have the same addresses"


def test_a_pool_with_a_mistake_is_a_warning_and_a_paused_one_a_note():
    odd = small("odd", 9, 1)
    paused = obj(small("paused", 1, 9), annotations={"cluster.x-k8s.io/paused": ""})
    seen = Seen(now=NOW, books=books([odd])._replace(pools=(obj(odd), paused)))
    assert levels("pools", seen) == ["warning", "info"]


def waiting(kind, reason, message="why", **meta):
    made = kind("c", "a", {"name": "p"}) if kind is ip_claim else kind("c", "a", "ipam.metal3.io", "IPPool", "p")
    condition = {"type": "Ready", "status": "False", "reason": reason, "message": message}
    made["status"] = {"conditions": [condition]} if reason else {}
    made["metadata"] |= meta
    return made


@pytest.mark.parametrize("kind", [ip_claim, capi_claim])
def test_claims_that_wait_are_told_by_reason(kind):
    many = [waiting(kind, "PoolExhausted", name=f"c{place}") for place in range(5)]
    seen = Seen(now=NOW, books=books(claims=[*many, waiting(kind, "", name="quiet")]))
    found = said("claims", seen)
    assert [item[0] for item in found] == ["warning", "warning"]
    assert found[0][2].startswith("1 claim waits, NotLookedAt")
    assert found[1][2] == "5 claims wait, PoolExhausted: why"
    assert found[1][1].endswith("a/c2 and 2 more")


def test_a_claim_with_a_reference_to_nothing_waits():
    claim = waiting(capi_claim, "PoolExhausted")
    claim["status"]["addressRef"] = {"name": ""}
    assert levels("claims", Seen(now=NOW, books=books(claims=[claim]))) == ["warning"]


@pytest.mark.parametrize(
    "claim",
    [
        waiting(ip_claim, "PoolExhausted", creationTimestamp="2026-11-01T11:59:30Z"),
        waiting(ip_claim, "PoolExhausted", deletionTimestamp=OLD),
        ip_claim("c", "a", {"name": "p"}) | {"status": {"address": {"name": "x"}}},
        capi_claim("c", "a", "ipam.cluster.x-k8s.io", "InClusterIPPool", "p"),
        capi_claim("c", "a", "ipam.metal3.io", "IPPool", "p") | {"status": {"addressRef": {"name": "x"}}},
    ],
    ids=["young", "deleting", "bound", "another provider's", "bound by Cluster API"],
)
def test_a_claim_that_has_its_address_or_is_not_ours_does_not_wait(claim):
    assert levels("claims", Seen(now=NOW, books=books(claims=[claim]))) == ["ok"]


def test_a_discrepancy_counts_when_it_is_seen_twice():
    bound = ip_claim("c", "a", {"name": "p"}, finalizers=["ipclaim.ipam.metal3.io"]) | {
        "status": {"address": {"name": "x"}}
    }
    held = ip_address("x", "a", "c", "10.0.0.1", "p")
    held["metadata"]["finalizers"] = ["ipaddress.ipam.metal3.io"]
    wrong = books([small("p", 1, 9)], [bound], [held])
    right = books([small("p", 1, 9)], [bound], [held], [reservation("10.0.0.1", ("IPClaim", "a", "c"))])
    assert levels("ledger", Seen(now=NOW, books=right)) == ["ok"]
    assert levels("ledger", Seen(now=NOW, books=wrong)) == []
    assert levels("ledger", Seen(now=NOW, books=wrong, again=right.snapshot)) == ["ok"]
    assert levels("ledger", Seen(now=NOW, books=wrong, again=wrong.snapshot)) == ["error"]


# -- around us -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.30.9", ["error"]),
        ("v1.31.0", ["ok"]),
        ("v1.36.3", ["ok"]),
        ("v1.37.0-alpha.1", ["info"]),
        ("v1.33.4-gke.100", ["ok"]),
        ("unknown", ["info"]),
        (DENIED, []),
    ],
)
def test_the_version_of_the_api_server_is_compared_with_what_is_supported(version, expected):
    assert levels("apiserver", Seen(now=NOW, version=version)) == expected


def crd(*versions, **labels):
    named = [{"name": name, "served": True, "storage": not place} for place, name in enumerate(versions)]
    return {"metadata": {"labels": labels}, "spec": {"versions": named}}


CLUSTERS = "clusters.cluster.x-k8s.io"
VSPHERE = "vspheremachines.infrastructure.cluster.x-k8s.io"


@pytest.mark.parametrize(
    ("found", "services", "expected"),
    [
        ({CLUSTERS: crd("v1beta2", "v1beta1")}, [], ["ok"]),
        ({CLUSTERS: crd("v1alpha4")}, [], ["error"]),
        ({CLUSTERS: None}, [], ["info"]),
        ({VSPHERE: None}, [], ["info"]),
        ({VSPHERE: None}, [service("capv-integrator")], ["warning"]),
        ({CLUSTERS: DENIED}, [], []),
    ],
)
def test_versions_of_cluster_api_are_told(found, services, expected):
    assert levels("capi", Seen(now=NOW, installed=found, services=services, providers=[])) == expected


def test_contracts_and_releases_are_named():
    labelled = crd("v1beta2", **{"cluster.x-k8s.io/v1beta2": "v1beta2", "cluster.x-k8s.io/v1beta1": "v1beta1"})
    capv = Provider("infrastructure-vsphere", "capv-system", "capv", "registry/capv:v1.16.0@sha256:0", 1)
    seen = Seen(now=NOW, installed={CLUSTERS: labelled}, services=[], providers=[capv])
    first, second = said("capi", seen)
    assert first[2] == "Cluster API: served as v1beta2, contract v1beta2, v1beta1"
    assert second == ("ok", "Deployment capv-system/capv", "infrastructure-vsphere v1.16.0")


METAL3 = Provider("ipam-metal3", "m", "ipam", "quay.io/metal3-io/ip-address-manager:v1", 1)
CAPV = Provider("infrastructure-vsphere", "v", "capv", "capv:v1", 1)


@pytest.mark.parametrize(
    ("services", "others", "expected"),
    [
        ([service()], [], ["ok"]),
        ([service()], [METAL3], ["error"]),
        ([service()], [METAL3._replace(label="")], ["error"]),
        ([service()], [METAL3._replace(available=0)], ["info"]),
        ([service()], [Provider("ipam-metal3", SYSTEM, "groundwork-ipam", "groundwork:1", 2)], ["ok"]),
        ([service(), service(namespace="b")], [], ["error"]),
        ([service(), service(namespace="b", replicas=0)], [], ["ok"]),
        ([service(), service("podpreset")], [CAPV], ["ok"]),
        ([service("machine-controller")], [CAPV], ["warning"]),
        ([service("machine-controller")], [CAPV._replace(available=0)], ["ok"]),
    ],
)
def test_somebody_else_who_does_the_same_is_told(services, others, expected):
    assert levels("providers", Seen(now=NOW, services=services, providers=others)) == expected


def test_pods_that_are_behind_are_counted_by_what_is_wrong_with_them():
    rows = [
        StaleRow("a", "Deployment", "x", 3, ("p1", "p2"), Reason.OLDER),
        StaleRow("b", "Deployment", "y", 3, ("p3",), Reason.WITHOUT),
        StaleRow("c", "Deployment", "z", 1, ("p4",), Reason.WITHOUT),
        StaleRow("c", "Deployment", "w", 1, ("p5",), Reason.REFUSED),
    ]
    found = said("presets", Seen(now=NOW, stale=Stale(9, rows)))
    assert found == [
        ("warning", "Namespace a", "2 of 9 pods run with an earlier state of presets"),
        ("error", "Namespace c", "1 of 9 pods would be refused if they were created now"),
        ("warning", "Namespace b, c", "2 of 9 pods run without what presets give"),
    ]
    assert levels("presets", Seen(now=NOW, stale=Stale(9, []))) == ["ok"]


# -- how it looks --------------------------------------------------------------------------------------------------

FOUND = [
    Finding(Level.OK, "pools", "", "3 pools"),
    Finding(Level.ERROR, "claims", "IPClaim a/b", "it waits for an address that nobody gives", "kubectl describe it"),
]


def test_a_finding_is_a_paragraph_with_what_to_do_below():
    assert show.lines(FOUND, 0) == (
        "ok       pools         3 pools\n"
        "error    claims        IPClaim a/b: it waits for an address that nobody gives\n"
        "                       -> kubectl describe it\n"
        "1 error, 0 warnings, 0 notes, 1 as it should be\n"
    )


def test_lines_are_wrapped_where_a_person_reads_and_what_is_well_can_be_left_out():
    assert show.lines(FOUND, 50, everything=False) == (
        "error    claims        IPClaim a/b: it waits for\n"
        "                       an address that nobody\n"
        "                       gives\n"
        "                       -> kubectl describe it\n"
        "1 error, 0 warnings, 0 notes, 1 as it should be\n"
    )


def test_the_data_has_every_field_and_the_counts():
    data = show.data(FOUND)
    assert data["counts"] == {"ok": 1, "info": 0, "warning": 0, "error": 1}
    assert data["findings"][1] == {
        "level": "error",
        "check": "claims",
        "object": "IPClaim a/b",
        "what": "it waits for an address that nobody gives",
        "action": "kubectl describe it",
    }


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more")])
def test_of_many_the_first_are_named(count, text):
    assert finding.some([str(place) for place in range(count)]) == text


def test_choosing_nothing_is_a_mistake(capsys):
    assert cli.main(["doctor", "--only=pools", "--skip=pools"]) == UNUSABLE
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_check_is_a_mistake(capsys):
    assert cli.main(["doctor", "--only=nothing"]) == UNUSABLE
    assert "pools" in capsys.readouterr().err


def test_a_server_that_does_not_answer_in_time_is_one_line_and_exit_code_2(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.getsockname()[1]}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(content))
        assert cli.main(["doctor", f"--kubeconfig={path}", "--timeout=0.3"]) == UNUSABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "cannot reach the API server" in err


# -- the pages -----------------------------------------------------------------------------------------------------

DOCS = chart.ROOT / "docs"


def test_every_check_and_level_is_explained_and_no_other():
    listed = re.findall(r"^\| `([a-z]+)` \|", (DOCS / "tasks" / "doctor.md").read_text(), re.MULTILINE)
    assert listed == [str(level) for level in sorted(Level, reverse=True)] + list(checks.CHECKS)


def test_every_action_names_pages_that_there_are():
    sources = Path(checks.__file__).parent.glob("*.py")
    named = {page for source in sources for page in re.findall(r"docs/[a-z/-]+\.md", source.read_text())}
    assert named
    assert all((chart.ROOT / page).is_file() for page in named)


@pytest.mark.parametrize("command", ["doctor", "completion"])
def test_every_option_is_in_the_reference(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    page = (DOCS / "reference" / "cli.md").read_text()
    section = page.partition(f"## groundwork {command}\n")[2].partition("\n## ")[0]
    shown, written = (set(re.findall(r"--[a-z-]+", text)) for text in (capsys.readouterr().out, section))
    assert shown == written


def test_definitions_that_came_with_the_wheel_are_taken_before_those_of_a_checkout(monkeypatch, tmp_path):
    shipped = definitions.shipped()
    (tmp_path / "wheel" / "below").mkdir(parents=True)
    (tmp_path / "wheel" / "below" / "a.yaml").write_text("kind: A")
    monkeypatch.setattr(definitions, "_INSTALLED", tmp_path / "wheel")
    assert definitions.shipped() == [{"kind": "A"}]
    monkeypatch.setattr(definitions, "_INSTALLED", tmp_path / "nowhere")
    assert len(definitions.shipped()) == len(shipped)
    monkeypatch.setattr(definitions, "_CHECKOUT", tmp_path / "nowhere")
    assert definitions.shipped() is None
