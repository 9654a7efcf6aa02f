"""`groundwork ipam` on real API servers, with claims that the real allocator has bound, and adopts after an import."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from services import console
from services.ipam.cli import command as ipam
from services.ipam.cli import importer
from tests.support.allocator import Allocator
from tests.support.ipam_cli import (
    ADDRESSES,
    CLAIMS,
    At,
    Gone,
    New,
    Patch,
    all_bound,
    capi_address,
    capi_claim,
    holders,
    ip_address,
    ip_claim,
    listed,
    namespace,
    pool,
    reservation,
    run,
)
from tests.support.waiting import blocking_until
from tools import capi
from tools.cluster import Cluster, KubectlError

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "deploy" / "crds"
IN_USE = "example.org/in-use"

POOLS = (
    pool(
        "lab",
        "a",
        pools=[{"start": "10.0.0.10", "end": "10.0.0.39", "gateway": "10.0.0.1", "prefix": 24}],
        preAllocations={"fixed": "10.0.0.30"},
        allowedNamespaces=["b"],
        reuseDelaySeconds=3600,
    ),
    pool("six", "", pools=[{"subnet": "2001:db8::/64"}]),
    pool("site", "", pools=[{"start": "10.0.0.10", "end": "10.0.0.12", "prefix": 24}], domain="site2"),
)
# An IPAddress that was made by somebody else, under a name that the allocator would not have given it.
ADOPTED = (ip_address("legacy", "a", "old", "10.0.0.20"), ip_claim("old", "a", {"name": "lab"}))
CLAIMED = (
    *(ip_claim(f"m{i}", "a", {"name": "lab"}) for i in range(3)),
    ip_claim("fixed", "a", {"name": "lab"}),
    ip_claim("used", "b", {"name": "lab", "namespace": "a"}, finalizers=[IN_USE], labels={"team": "x"}),
    ip_claim("six", "b", {"kind": "GlobalIPPool", "name": "six"}),
    *(capi_claim(f"c{i}", "a", "ipam.metal3.io", "IPPool", "lab") for i in range(3)),
    capi_claim("m0", "a", "ipam.metal3.io", "IPPool", "lab"),
    capi_claim("six", "b", "ipam.groundwork.dev", "GlobalIPPool", "six"),
    capi_claim("site", "b", "ipam.groundwork.dev", "GlobalIPPool", "site"),
)


@pytest.fixture(scope="module")
def source(control_plane, tmp_path_factory):
    """A cluster whose claims are all bound; the allocator has stopped."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(CRDS, *capi.crds())
        cluster.apply(namespace("a"), namespace("b"), *POOLS, reservation("10.0.0.11", description="printer"), *ADOPTED)
        with Allocator.running(tmp_path_factory.mktemp("source"), cluster.kubeconfig):
            cluster.apply(*CLAIMED, ip_claim("short", "a", {"name": "lab"}))
            blocking_until(lambda: all_bound(cluster), why="the claims are not bound")
            cluster.kubectl("delete", "ipclaims.ipam.metal3.io", "short", "--namespace=a")
            blocking_until(lambda: ("ipam.metal3.io", "a", "short") not in listed(cluster, CLAIMS[0]))
            blocking_until(lambda: all(row["status"] == "current" for row in run(cluster, "pools", "-ojson").data))
        yield cluster


@pytest.fixture(scope="module", params=["v1beta2", "v1beta1"])
def bare(request, control_plane):
    """A cluster that has nothing but Cluster API's definitions of one version."""
    with Cluster.temporary() as cluster:
        cluster.install_crds(*capi.crds(versions=[request.param]))
        yield cluster


@pytest.fixture(autouse=True)
def _no_progress(monkeypatch):
    """Whether a command says that it takes long depends on the machine, and is no part of its answer."""
    monkeypatch.setattr(ipam, "Progress", functools.partial(console.Progress, clock=lambda: 0.0))


# -- looking -------------------------------------------------------------------------------------------------------


def test_pools_show_what_is_reserved(source):
    rows = {row["name"]: row for row in run(source, "pools", "-ojson").data}
    assert {name: (row["kind"], row["namespace"], row["domain"]) for name, row in rows.items()} == {
        "lab": ("IPPool", "a", "default"),
        "six": ("GlobalIPPool", "", "default"),
        "site": ("GlobalIPPool", "", "site2"),
    }
    lab, six, site = rows["lab"], rows["six"], rows["site"]
    assert (lab["total"], lab["used"], lab["reserved"], lab["cooling"], lab["free"]) == (30, 10, 1, 1, 18)
    assert (six["total"], six["used"], six["free"]) == (2**64 - 1, 2, 2**64 - 3)
    assert (site["total"], site["used"], site["free"]) == (3, 1, 2)
    assert all(row["ready"] and row["status"] == "current" for row in rows.values())
    table = run(source, "pools")
    assert table.code == 0
    assert table.err == ""
    assert "2^64-1" in table.out
    assert "[####------] 40%" in table.out
    assert [line.split()[2] for line in run(source, "pools", "-n", "b").out.splitlines()[1:]] == ["site", "six"]


def test_the_command_line_is_a_process_that_finds_the_cluster_by_its_environment(source):
    command = [sys.executable, "-m", "services.cli", "ipam", "pools"]
    environment = {**os.environ, "KUBECONFIG": str(source.kubeconfig)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout == run(source, "pools").out


def test_addresses_show_who_holds_what(source):
    rows = run(source, "addresses", "-ojson").data
    held = {
        (row["ipAddress"], row["address"], row["claim"]["name"]) for row in rows if row["state"] in {"held", "conflict"}
    }
    addresses, _ = holders(source)
    assert held == {(f"{space}/{name}", at, claim) for (_, space, name), (at, claim) in addresses.items()}
    assert {row["state"] for row in rows} == {"held", "reserved", "cooling"}
    (cooling,) = run(source, "addresses", "--state=cooling", "-ojson").data
    assert "kept for IPClaim a/short" in cooling["description"]
    (line,) = run(source, "addresses", "--address=10.0.0.30").out.splitlines()[1:]
    assert "IPClaim a/fixed" in line
    (line,) = run(source, "addresses", "--domain=site2", "--pool=site", "-owide").out.splitlines()[1:]
    assert "site2.10.0.0.10" in line
    (printer,) = yaml.safe_load(run(source, "addresses", "--state=reserved", "-oyaml").out)
    assert (printer["address"], printer["description"]) == ("10.0.0.11", "printer")
    nothing = run(source, "addresses", "--pool=none")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no addresses\n")


def test_looking_needs_no_right_to_write(source):
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]
    reader = source.service_account_kubeconfig("kube-system", "reader", rules)
    for command in ("pools", "addresses", "verify", "export"):
        assert run(source, command, kubeconfig=reader).code == 0, command
    stream = run(source, "export").out.replace("10.0.0.11", "10.0.0.39")
    answer = run(source, "import", kubeconfig=reader, stdin=stream)
    assert answer.code == 1
    assert "refused IPReservation default.10.0.0.39: the API server refuses it" in answer.err


def test_someone_without_rights_is_told_so_in_one_line(source):
    nobody = source.service_account_kubeconfig("kube-system", "nobody", [])
    answer = run(source, "verify", kubeconfig=nobody)
    assert answer.code == 2
    assert "not permitted" in answer.err
    assert answer.err.count("\n") == 1


def test_a_cluster_without_the_definitions_is_unusable(bare):
    for command in ("pools", "verify", "export"):
        answer = run(bare, command)
        assert answer.code == 2
        assert "does not serve ippools.v1alpha1.ipam.metal3.io" in answer.err
        assert "kubectl apply -f deploy/crds" in answer.err


def test_a_cluster_that_does_not_answer_is_unusable(source, tmp_path):
    config = yaml.safe_load(source.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    answer = run(source, "verify", kubeconfig=path)
    assert answer.code == 2
    assert "cannot reach the API server" in answer.err
    assert answer.err.count("\n") == 1


# -- verify --------------------------------------------------------------------------------------------------------


def test_a_healthy_system_has_no_discrepancies(source):
    answer = run(source, "verify")
    assert answer.code == 0, answer.out
    assert answer.out == "checked 3 pools, 13 claims, 13 ipAddresses, 15 ipReservations: 0 discrepancies, 0 notes\n"


@pytest.fixture
def planted(source):
    """Applies objects and changes, and undoes them when the test is over."""
    undo = []

    def plant(*changes):
        undo.extend(change.carry_out(source) for change in changes)

    yield plant
    for action in reversed(undo):
        action()


def bound_status(name):
    return {"status": {"address": {"name": name}}}


M0 = (CLAIMS[0], "m0", "--namespace=a")
FINALIZERS = ("ipclaim.ipam.metal3.io",)
PLANTED = {
    "DuplicateAddress": [
        New(ip_claim("twin", "a", {"name": "lab"})),
        New(ip_address("twin", "a", "twin", "10.0.0.30")),
    ],
    "ReservationMissing": [Gone(("ipreservations", "default.10.0.0.30"))],
    "HolderMissing": [New(reservation("10.0.0.39", ("IPClaim", "a", "nobody")))],
    "AddressMissing": [New(reservation("10.0.0.39", ("IPClaim", "a", "m0")))],
    "ClaimMissing": [New(ip_address("stray", "a", "nobody", "10.0.0.39"))],
    "NamedAddressMissing": [
        New(ip_claim("told", "a", {"name": "lab"}) | bound_status("nothing")),
    ],
    "NamedAddressForeign": [New(ip_claim("told", "a", {"name": "lab"}) | bound_status("legacy"))],
    "SeveralAddresses": [
        New(reservation("10.0.0.39", ("IPClaim", "a", "m0"))),
        New(ip_address("extra", "a", "m0", "10.0.0.39")),
    ],
    "HolderDiffers": [
        New(ip_address("stray", "a", "m1", "10.0.0.39")),
        New(reservation("10.0.0.39", ("IPClaim", "a", "m0"))),
    ],
    "ReservationNotHeld": [New(reservation("10.0.0.39")), New(ip_address("extra", "a", "m0", "10.0.0.39"))],
    "FinalizerMissing": [
        Patch(M0, {"metadata": {"finalizers": None}}, {"metadata": {"finalizers": FINALIZERS}}),
    ],
    "PoolMissing": [
        New(ip_claim("lost", "a", {"name": "nowhere"})),
        New(ip_address("lost", "a", "lost", "10.0.0.39", "nowhere")),
    ],
    "PoolDiffers": [New(ip_claim("lost", "a", {"name": "nowhere"})), New(ip_address("lost", "a", "lost", "10.0.0.39"))],
    "MalformedAddress": [
        New(capi_claim("bad", "a", "ipam.metal3.io", "IPPool", "lab")),
        New(capi_address("bad", "a", "10.0.0.390")),
    ],
}


@pytest.mark.parametrize("kind", PLANTED)
def test_verify_reports_what_is_planted_and_exits_1(source, planted, kind):
    planted(*PLANTED[kind])
    answer = run(source, "verify", "--settle=0", "-ojson")
    assert answer.code == 1
    found = answer.data["discrepancies"]
    assert kind in {item["kind"] for item in found if not item["information"]}
    assert all(item["object"] and item["wrong"] and item["action"] for item in found)


def test_the_api_server_itself_refuses_a_reservation_of_a_wrong_name(source):
    wrong = reservation("10.0.0.39")
    wrong["metadata"]["name"] = "default.10.0.0.38"
    with pytest.raises(KubectlError, match=r"the name must be <domain>\.<address>"):
        source.apply(wrong)


def test_an_address_beyond_its_pool_is_a_note_unless_strict(source, planted):
    planted(
        Patch(
            ("ippools.ipam.metal3.io", "lab", "--namespace=a"),
            {"spec": {"excludedAddresses": ["10.0.0.20"]}},
            {"spec": {"excludedAddresses": None}},
        )
    )
    answer = run(source, "verify")
    assert answer.code == 0
    assert "note OutOfRange: IPAddress a/legacy (ipam.metal3.io)" in answer.out
    assert answer.out.endswith("0 discrepancies, 1 notes\n")
    strict = run(source, "verify", "--strict")
    assert strict.code == 1
    assert "DISCREPANCY OutOfRange" in strict.out


def test_verify_can_be_limited_to_namespaces(source, planted):
    planted(New(reservation("10.0.0.39", ("IPClaim", "b", "nobody"))))
    assert run(source, "verify", "--settle=0", "-n", "b").code == 1
    assert run(source, "verify", "--settle=0", "-n", "a").code == 0


def test_what_is_gone_when_verify_looks_again_is_not_reported(source, monkeypatch, capsys):
    undo = New(reservation("10.0.0.39", ("IPClaim", "a", "nobody"))).carry_out(source)
    at = At(monkeypatch, first=undo)
    assert ipam.main(["verify", f"--kubeconfig={source.kubeconfig}"]) == 0
    assert at.left == []  # there was something to look at again
    assert "0 discrepancies" in capsys.readouterr().out


# -- export and import ---------------------------------------------------------------------------------------------


def test_an_export_is_the_same_every_time_but_for_its_header(source, tmp_path):
    first, path = run(source, "export"), tmp_path / "export.yaml"
    second = run(source, "export", "-f", str(path))
    assert first.code == second.code == 0
    assert second.out == ""
    header, _, body = first.out.partition("---\n")
    assert path.read_text().partition("---\n")[2] == body
    assert header.startswith("# Groundwork IPAM export, made 20")
    assert f"from {source.url}\n" in header
    assert list(tmp_path.iterdir()) == [path]
    for word in ("uid:", "resourceVersion:", "managedFields:", "ownerReferences:", "status:", "creationTimestamp:"):
        assert word not in body


def test_an_export_into_nowhere_is_one_line(source, tmp_path):
    answer = run(source, "export", "-f", str(tmp_path / "no" / "folder"))
    assert answer.code == 2
    assert answer.err.count("\n") == 1


def test_every_claim_keeps_its_address_in_another_cluster(source, bare, tmp_path_factory):
    target, exported = bare, run(source, "export").out
    target.install_crds(CRDS)
    with Allocator.running(tmp_path_factory.mktemp("target"), target.kubeconfig):
        refused = run(target, "import", stdin=exported)
        assert refused.code == 2
        assert "the target has no namespace a, b: create them or give --create-namespaces" in refused.err
        trial = run(target, "import", "--create-namespaces", "--dry-run", stdin=exported)
        assert trial.code == 0, trial.err
        assert "dry run: nothing was created" in trial.err
        assert holders(target) == ({}, {})
        done = run(target, "import", "--create-namespaces", stdin=exported)
        assert (done.code, done.err) == (0, "")
        blocking_until(lambda: all_bound(target), why="the imported claims are not bound")
        blocking_until(lambda: run(target, "verify").code == 0, why="the target has discrepancies")
        again = run(target, "import", "-ojson", stdin=exported)
        assert again.code == 0
        assert again.data == {"dryRun": False, "created": 0, "unchanged": 43, "refused": 0, "refusals": []}
        # What a claim gets that comes now is what nobody has.
        target.apply(ip_claim("new", "a", {"name": "lab"}))
        blocking_until(lambda: all_bound(target))
        assert run(target, "verify").code == 0
        target.kubectl("delete", *CLAIMS[:1], "new", "--namespace=a")
        blocking_until(lambda: ("ipam.metal3.io", "a", "new") not in listed(target, CLAIMS[0]))
    assert holders(target) == holders(source)
    addresses, claims = holders(target)
    for key, obj in listed(target, *CLAIMS).items():
        at, _ = addresses[key[0], key[1], claims[key]]
        assert obj["metadata"]["annotations"] == {"ipAddress": at}  # so that no allocator gives it another one
    used = listed(target, CLAIMS[0])["ipam.metal3.io", "b", "used"]["metadata"]
    assert IN_USE in used["finalizers"]
    assert used["labels"] == {"team": "x"}
    assert run(source, "verify").code == 0
    ours, theirs = (
        {
            (row["address"], row["domain"], row["claim"] and row["claim"]["name"])
            for row in run(cluster, "addresses", "-ojson").data
            if row["state"] != "cooling"
        }
        for cluster in (source, target)
    )
    assert ours == theirs


def test_nothing_that_exists_is_changed_and_what_it_would_break_is_refused(source):
    """The stream differs from the cluster that it is imported into: another pool, another holder of an address."""
    before = listed(source, "ippools", "ipreservations", *CLAIMS, *ADDRESSES)
    documents = [document for document in yaml.safe_load_all(run(source, "export").out) if document]
    for document in documents:
        if document["metadata"]["name"] == "site":
            document["spec"]["excludedAddresses"] = ["10.0.0.12"]
        if document["metadata"]["name"] == "m1" and document["kind"] == "IPClaim":
            document["metadata"]["name"] = "other"
    answer = run(source, "import", "-ojson", stdin=yaml.safe_dump_all(documents))
    assert answer.code == 1
    refusals = {item["object"]: item["reason"] for item in answer.data["refusals"]}
    assert "differs in spec.excludedAddresses" in refusals.pop("GlobalIPPool site")
    assert refusals == {}
    source.kubectl("delete", CLAIMS[0], "other", "--namespace=a", "--wait=false")
    source.kubectl(
        "patch", CLAIMS[0], "other", "--namespace=a", "--type=merge", '--patch={"metadata":{"finalizers":null}}'
    )
    after = listed(source, "ippools", "ipreservations", *CLAIMS, *ADDRESSES)
    assert after == before


@pytest.fixture
def destination(source):
    """A cluster with a namespace `x` that is empty before and after."""
    source.apply(namespace("x"))
    yield source
    for resource in ("ipclaims.ipam.metal3.io", "ipaddresses.ipam.metal3.io", "ippools.ipam.metal3.io"):
        source.kubectl("delete", resource, "--all", "--namespace=x")
    source.kubectl("delete", "ipreservations", "default.10.7.0.1", "--ignore-not-found")


def small_stream(tmp_path):
    objects = [
        reservation("10.7.0.1", ("IPClaim", "x", "one"), pool={"kind": "IPPool", "namespace": "x", "name": "p"}),
        pool("p", "x", pools=[{"start": "10.7.0.1", "end": "10.7.0.9"}]),
        ip_address("p-10-7-0-1", "x", "one", "10.7.0.1", "p"),
        ip_claim("one", "x", {"name": "p"}),
    ]
    path = tmp_path / "stream.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


def test_an_import_goes_on_with_the_placeholders_of_one_that_was_cut_short(destination, tmp_path):
    left = reservation("10.7.0.1", description="kept for an import")
    left["metadata"]["annotations"] = {"ipam.groundwork.dev/import": "IPClaim x/one", "note": "y"}
    destination.apply(left)
    answer = run(destination, "import", "-ojson", "-f", small_stream(tmp_path))
    assert (answer.code, answer.data["created"]) == (0, 4)
    made = listed(destination, "ipreservations")["ipam.groundwork.dev", "", "default.10.7.0.1"]
    assert made["spec"] == {
        "address": "10.7.0.1",
        "domain": "default",
        "claim": {"kind": "IPClaim", "namespace": "x", "name": "one"},
        "pool": {"kind": "IPPool", "namespace": "x", "name": "p"},
    }
    assert made["metadata"]["annotations"] == {"note": "y"}


def test_nothing_stays_behind_of_claims_whose_pool_the_api_server_refuses(destination, tmp_path):
    path = Path(small_stream(tmp_path))
    path.write_text(path.read_text().replace("namePrefix: p", "namePrefix: ''"))
    answer = run(destination, "import", "-ojson", "-f", str(path))
    assert answer.code == 1
    assert (answer.data["created"], answer.data["refused"]) == (0, 4)
    reasons = {item["object"]: item["reason"] for item in answer.data["refusals"]}
    assert "the API server refuses it" in reasons["IPPool x/p"]
    assert reasons["IPReservation default.10.7.0.1"] == "IPPool x/p, which it belongs to, is refused"
    assert ("ipam.groundwork.dev", "", "default.10.7.0.1") not in listed(destination, "ipreservations")


def test_an_import_survives_a_restart_of_the_api_server(destination, monkeypatch, tmp_path, capsys):
    at = At(monkeypatch, first=destination.kill_apiserver, second=destination.start_apiserver)
    code = ipam.main(["import", "-f", small_stream(tmp_path), f"--kubeconfig={destination.kubeconfig}"])
    assert (code, at.left) == (0, [])
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == ["KIND", "IPReservation", "IPPool", "IPAddress", "IPClaim"]


def test_an_import_into_a_cluster_that_stays_away_ends_and_can_be_repeated(destination, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importer, "ATTEMPTS", 1)
    at = At(monkeypatch, first=destination.kill_apiserver)
    arguments = ["import", "-f", small_stream(tmp_path), f"--kubeconfig={destination.kubeconfig}", "-ojson"]
    try:
        assert (ipam.main(arguments), at.left) == (2, [])
        assert "cannot reach the API server" in capsys.readouterr().err
    finally:
        destination.start_apiserver()
    assert ipam.main(arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["created"], data["unchanged"]) == (1, 3)


def test_what_is_lost_while_an_import_runs_is_reported(destination, monkeypatch, tmp_path, capsys):
    def lose():
        destination.kubectl("delete", ADDRESSES[0], "p-10-7-0-1", "--namespace=x")
        destination.kubectl("delete", "ipreservations", "default.10.7.0.1")

    at = At(monkeypatch, first=lose)
    code = ipam.main(["import", "-f", small_stream(tmp_path), f"--kubeconfig={destination.kubeconfig}"])
    assert (code, at.left) == (1, [])
    err = capsys.readouterr().err
    assert "refused IPReservation default.10.7.0.1: it is gone again" in err
    assert "refused IPAddress x/p-10-7-0-1 (ipam.metal3.io): it is gone again" in err


@pytest.mark.parametrize(
    ("theirs", "code", "message"),
    [("p", 0, ""), ("q", 1, "refused IPClaim x/one: it exists here and differs in spec.pool")],
    ids=["the-same", "another"],
)
def test_an_object_that_comes_while_an_import_runs_is_compared(
    destination, monkeypatch, tmp_path, capsys, theirs, code, message
):
    at = At(monkeypatch, first=lambda: destination.apply(ip_claim("one", "x", {"name": theirs})))
    ended = ipam.main(["import", "-f", small_stream(tmp_path), f"--kubeconfig={destination.kubeconfig}"])
    assert (ended, at.left) == (code, [])
    assert message in capsys.readouterr().err
