"""Export and import without a cluster: what travels, in which order, and what an import creates, leaves or refuses."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from services.ipam.api import ClaimKey
from services.ipam.cli import importer
from services.ipam.cli.importplan import Verdict, placeholder, plan
from services.ipam.cli.portable import StreamError, choose, identity, portable, read, write
from tests.support.ipam_snapshot import address, bound, claim, pool, reservation, snapshot


def stream_of(*objects, namespaces=()):
    """Objects as they come out of the stream of an export."""
    chosen = choose(snapshot(*objects), namespaces)
    return read("".join(write(chosen.objects, chosen.remarks)))


def names(objects):
    return [str(identity(obj)) for obj in objects]


# -- one object ----------------------------------------------------------------------------------------------------


def test_an_object_keeps_what_it_says_and_loses_what_ties_it_to_its_cluster():
    obj = reservation("10.0.0.1", "one", description="gateway VM")
    meta = msgspec.structs.replace(
        obj.metadata,
        labels={"team": "x"},
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "y"},
        finalizers=("foregroundDeletion", "example.org/in-use", "orphan"),
        ownerReferences=(),
        deletionTimestamp="2026-01-01T00:00:00Z",
        deletionGracePeriodSeconds=0,
        selfLink="/x",
    )
    text = "".join(write([portable(msgspec.structs.replace(obj, metadata=meta))]))
    assert yaml.safe_load(text) == {
        "apiVersion": "ipam.groundwork.dev/v1alpha1",
        "kind": "IPReservation",
        "metadata": {
            "name": "default.10.0.0.1",
            "labels": {"team": "x"},
            "annotations": {"note": "y"},
            "finalizers": ["example.org/in-use"],
        },
        "spec": {
            "domain": "default",
            "address": "10.0.0.1",
            "description": "gateway VM",
            "claim": {"kind": "IPClaim", "namespace": "a", "name": "one"},
            "pool": {"kind": "IPPool", "namespace": "a", "name": "p"},
        },
    }


def test_a_status_stays_behind():
    text = "".join(write([portable(obj) for obj in (pool(status={"indexes": {}}), claim("one", named="x"))]))
    assert all(set(document) == {"apiVersion", "kind", "metadata", "spec"} for document in yaml.safe_load_all(text))


# -- choosing ------------------------------------------------------------------------------------------------------

RELEASED = {"releasedAt": "2026-01-01T00:00:00Z", "lastClaim": {"kind": "IPClaim", "name": "x"}}


def everything():
    return (
        claim("waiting", "b", of="global:g"),
        bound("one", "10.0.0.2"),
        bound("one", "10.0.0.10", kind="IPAddressClaim"),
        bound("two", "10.0.0.3", "b", of="a/p"),
        pool(),
        pool("g", "", domain="site2"),
        pool("empty", "b"),
        reservation("10.0.0.1", description="printer"),
        reservation("10.9.0.1", description="elsewhere"),
        reservation("10.0.0.9", **RELEASED),
        claim("else", kind="IPAddressClaim", of="ipam.example.org!p"),
    )


def test_an_export_is_in_the_order_in_which_it_has_to_be_applied():
    assert names(stream_of(everything())) == [
        "IPReservation default.10.0.0.1",
        "IPReservation default.10.0.0.10",
        "IPReservation default.10.0.0.2",
        "IPReservation default.10.0.0.3",
        "IPReservation default.10.9.0.1",
        "GlobalIPPool g",
        "IPPool a/p",
        "IPPool b/empty",
        "IPAddress a/one (ipam.cluster.x-k8s.io)",
        "IPAddress a/p-10-0-0-2 (ipam.metal3.io)",
        "IPAddress b/p-10-0-0-3 (ipam.metal3.io)",
        "IPAddressClaim a/one",
        "IPClaim a/one",
        "IPClaim b/two",
        "IPClaim b/waiting",
    ]


def test_an_export_of_a_namespace_has_its_claims_and_all_that_they_need():
    chosen = choose(snapshot(everything()), ["b"])
    assert names(chosen.objects) == [
        "IPReservation default.10.0.0.1",
        "IPReservation default.10.0.0.3",
        "GlobalIPPool g",
        "IPPool a/p",
        "IPPool b/empty",
        "IPAddress b/p-10-0-0-3 (ipam.metal3.io)",
        "IPClaim b/two",
        "IPClaim b/waiting",
    ]
    assert chosen.remarks == ["IPPool a/p goes along because claims need it"]


def test_the_same_objects_give_the_same_stream():
    forward = choose(snapshot(everything()))
    backward = choose(snapshot(*reversed(everything())))
    assert "".join(write(forward.objects)) == "".join(write(backward.objects))


def test_what_no_claim_holds_is_left_out_and_said():
    chosen = choose(snapshot(pool(), bound("one", "10.0.0.1")[1:]))
    assert names(chosen.objects) == ["IPPool a/p"]
    assert chosen.remarks == [
        "IPAddress a/p-10-0-0-1 (ipam.metal3.io) is left out: IPClaim a/one does not exist",
        "IPReservation default.10.0.0.1 is left out: IPClaim a/one does not exist",
    ]


def test_what_is_being_deleted_goes_along_and_is_said():
    chosen = choose(snapshot(pool(deleting=True), claim("one", named="x", deleting=True)))
    assert names(chosen.objects) == ["IPPool a/p", "IPClaim a/one"]
    assert [remark.partition(" is being deleted")[0] for remark in chosen.remarks] == ["IPClaim a/one", "IPPool a/p"]


# -- the stream ----------------------------------------------------------------------------------------------------


def test_a_stream_is_read_back_as_it_was_written():
    chosen = choose(snapshot(everything()))
    assert read("".join(write(chosen.objects, ["one remark", "two"]))) == chosen.objects


def test_remarks_are_comments():
    assert "".join(write([], ["made then", "there"])) == "# made then\n# there\n"


def test_the_output_of_kubectl_is_a_stream_too():
    items = [yaml.safe_load(msgspec.json.encode(obj)) for obj in (*bound("one", "10.0.0.1"), pool())]
    assert read(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})) == stream_of(
        pool(), bound("one", "10.0.0.1")
    )


def test_timestamps_without_quotes_are_read():
    obj = "{apiVersion: ipam.groundwork.dev/v1alpha1, kind: IPReservation, metadata: {name: d.10.0.0.1}, spec: %s}"
    assert read(obj % "{domain: d, address: 10.0.0.1, releasedAt: 2026-01-01T00:00:00Z}") == []
    assert len(read(obj % "{domain: d, address: 10.0.0.1, description: '7'}")) == 1


def test_empty_documents_are_nothing():
    assert read("---\n---\n# only remarks\n") == []


def test_an_object_that_comes_twice_has_to_say_the_same():
    text = "".join(write([portable(pool())]))
    assert len(read(text + text)) == 1
    with pytest.raises(StreamError, match="document 3: IPPool a/p comes twice and differs"):
        read(text + text + "".join(write([portable(pool(domain="site2"))])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "not YAML"),
        ("- a", "document 1"),
        ("{apiVersion: ipam.metal3.io/v1alpha1, kind: IPPool, metadata: {namespace: a}, spec: {}}", "needs a name"),
        (
            "{apiVersion: ipam.groundwork.dev/v1alpha1, kind: GlobalIPPool, metadata: {name: p, namespace: a}}",
            "needs a name and no namespace",
        ),
        (
            "{apiVersion: ipam.metal3.io/v1alpha1, kind: IPPool, metadata: {name: p, namespace: a}, spec: {pools: x}}",
            "document 1: ",
        ),
        ("{apiVersion: ipam.metal3.io/v1alpha1, kind: IPPool, metadata: {name: 7, namespace: a}}", "document 1: "),
        ("{1: 2, kind: IPPool}", "document 1: "),
        ("{kind: IPPoolList, items: 5}", "document 1: items has to be a list"),
        ("{kind: List, items: {a: 1}}", "document 1: items has to be a list"),
        ("a: 2026-13-45", "not YAML: month must be in"),
        ("&a [*a]", "document 1: "),
    ],
)
def test_what_is_no_stream_is_refused_with_its_place(text, message):
    with pytest.raises(StreamError, match=message):
        read(text)


# -- planning an import --------------------------------------------------------------------------------------------


def verdicts(stream, *target, **options):
    return {str(identity(step.obj)): step.verdict for step in plan(stream, snapshot(*target, **options))}


def refusals(stream, *target, **options):
    steps = plan(stream, snapshot(*target, **options))
    return {str(identity(step.obj)): step.reason for step in steps if step.verdict is Verdict.REFUSED}


def test_an_empty_target_gets_everything():
    stream = stream_of(everything())
    assert set(verdicts(stream).values()) == {Verdict.CREATE}
    assert len(verdicts(stream)) == len(stream)


def test_what_is_there_already_is_left_alone():
    assert set(verdicts(stream_of(everything()), everything()).values()) == {Verdict.UNCHANGED}


def test_what_an_allocator_adds_to_an_object_makes_no_difference():
    mine = reservation("10.0.0.1", "one"), claim("one", named="p-10-0-0-1"), bound("one", "10.0.0.1")[1]
    theirs = [
        msgspec.structs.replace(
            obj, metadata=msgspec.structs.replace(obj.metadata, uid="new", labels={"x": "y"}, finalizers=("more",))
        )
        for obj in (pool(status={"indexes": {}}, allocationStrategy="sequential", domain="default"), *mine)
    ]
    assert set(verdicts(stream_of(pool(), mine), theirs).values()) == {Verdict.UNCHANGED}


ONE = ("IPAddress a/p-10-0-0-1 (ipam.metal3.io)", "IPClaim a/one", "IPReservation default.10.0.0.1")
WITH_IT = "which goes with it, is refused"
REFUSED = {
    "a claim whose address another claim holds": (
        (pool(), bound("other", "10.0.0.1", "b", of="a/p")),
        {
            "IPReservation default.10.0.0.1": "differs in spec.claim",
            "IPAddress a/p-10-0-0-1 (ipam.metal3.io)": "is held here by IPClaim b/other",
            "IPClaim a/one": WITH_IT,
        },
    ),
    "a claim whose address another claim holds without a reservation": (
        (pool(), bound("other", "10.0.0.1", "b", of="a/p")[:2]),
        {
            "IPReservation default.10.0.0.1": "10.0.0.1 in domain default is held here by IPClaim b/other",
            "IPAddress a/p-10-0-0-1 (ipam.metal3.io)": "is held here by IPClaim b/other",
            "IPClaim a/one": WITH_IT,
        },
    ),
    "a claim whose address an administrator keeps": (
        (pool(), reservation("10.0.0.1")),
        {
            "IPReservation default.10.0.0.1": "differs in spec.claim, spec.pool",
            "IPAddress a/p-10-0-0-1 (ipam.metal3.io)": WITH_IT,
            "IPClaim a/one": WITH_IT,
        },
    ),
    "a claim whose address is kept for one that released it": (
        (pool(), reservation("10.0.0.1", **RELEASED)),
        dict.fromkeys(ONE, ""),
    ),
    "a claim that has another address here": (
        (pool(), bound("one", "10.0.0.7")),
        {name: "" for name in ONE if name != "IPClaim a/one"},
    ),
    "a claim that asks for another pool here": (
        (pool(), pool("q"), claim("one", of="q")),
        dict.fromkeys(ONE, ""),
    ),
    "a claim that is being deleted here": (
        (pool(), claim("one", deleting=True)),
        {"IPClaim a/one": "is being deleted", ONE[0]: WITH_IT, ONE[2]: WITH_IT},
    ),
    "a pool that differs, and all that it serves": (
        (pool(pools=[{"start": "10.0.0.1", "end": "10.0.0.2"}], prefix=16),),
        {
            "IPPool a/p": "it exists here and differs in spec.pools, spec.prefix: remove it, or leave",
            **dict.fromkeys(ONE, "IPPool a/p, which it belongs to, is refused"),
        },
    ),
}


@pytest.mark.parametrize(("target", "expected"), REFUSED.values(), ids=REFUSED)
def test_an_import_refuses(target, expected):
    stream = stream_of(pool(), bound("one", "10.0.0.1"), bound("fine", "10.0.0.50", of="q"), pool("q"))
    found = refusals(stream, target)
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name]


def test_a_claim_here_without_an_address_gets_the_one_of_the_stream():
    stream = stream_of(pool(), bound("one", "10.0.0.1"))
    found = verdicts(stream, pool(), claim("one", protected=False))
    assert found.pop("IPClaim a/one") is Verdict.UNCHANGED
    assert found.pop("IPPool a/p") is Verdict.UNCHANGED
    assert set(found.values()) == {Verdict.CREATE}


def test_a_claim_without_an_address_needs_nothing_here():
    assert verdicts(stream_of(claim("waiting", of="gone"))) == {"IPClaim a/waiting": Verdict.CREATE}


def test_the_same_address_in_another_domain_is_no_conflict():
    stream = stream_of(pool(), bound("one", "10.0.0.1"))
    target = pool("q", domain="site2"), bound("two", "10.0.0.1", of="q", domain="site2")
    assert set(verdicts(stream, target).values()) == {Verdict.CREATE}


def test_of_two_claims_with_one_address_the_one_that_the_ledger_names_comes_through():
    stream = stream_of(pool(), bound("one", "10.0.0.1"), bound("two", "10.0.0.1", kind="IPAddressClaim")[:2])
    found = refusals(stream)
    assert found.keys() == {"IPAddress a/two (ipam.cluster.x-k8s.io)", "IPAddressClaim a/two"}
    assert (
        "the stream gives 10.0.0.1 in domain default to IPClaim a/one too"
        in found["IPAddress a/two (ipam.cluster.x-k8s.io)"]
    )


@pytest.mark.parametrize("left_out", ["IPPool a/p", "IPClaim a/one"])
def test_an_address_is_refused_without_its_pool_or_its_claim(left_out):
    stream = [obj for obj in stream_of(pool(), bound("one", "10.0.0.1")) if str(identity(obj)) != left_out]
    found = refusals(stream)
    assert found.keys() == {*ONE} - {left_out}
    assert any(f"{left_out} is neither here nor in the stream" in reason for reason in found.values())


def test_objects_of_other_providers_are_refused():
    other = (
        claim("x", kind="IPAddressClaim", of="ipam.example.org!p"),
        address("x", "x", "10.0.0.1", kind="IPAddressClaim", of="ipam.example.org!p"),
    )
    assert set(refusals([portable(obj) for obj in other]).values()) == {"its pool is another provider's"}


def test_a_target_without_cluster_api_refuses_what_needs_it():
    stream = stream_of(pool(), bound("one", "10.0.0.1"), bound("two", "10.0.0.2", kind="IPAddressClaim"))
    found = refusals(stream, capi_version="")
    assert found.keys() == {
        "IPAddressClaim a/two",
        "IPAddress a/two (ipam.cluster.x-k8s.io)",
        "IPReservation default.10.0.0.2",
    }
    assert "does not serve ipam.cluster.x-k8s.io" in found["IPAddressClaim a/two"]


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_objects_are_written_in_the_version_that_the_target_serves(version):
    stream = stream_of(pool(), bound("two", "10.0.0.2", kind="IPAddressClaim"))
    steps = plan(stream, snapshot(capi_version=version))
    written = {step.obj.kind: step.obj.apiVersion for step in steps}
    assert written["IPAddressClaim"] == written["IPAddress"] == f"ipam.cluster.x-k8s.io/{version}"
    assert written["IPPool"] == "ipam.metal3.io/v1alpha1"


def test_an_address_kept_by_an_import_that_was_cut_short_is_no_conflict():
    stream = stream_of(pool(), bound("one", "10.0.0.1"))
    (lock,) = [obj for obj in stream if obj.kind == "IPReservation"]
    left = placeholder(lock, ClaimKey("IPClaim", "a", "one"))
    assert "claim" not in msgspec.json.decode(left.spec)
    assert set(verdicts(stream, left).values()) == {Verdict.CREATE}
    other = placeholder(lock, ClaimKey("IPClaim", "a", "two"))
    assert "differs in spec.claim" in refusals(stream, other)["IPReservation default.10.0.0.1"]


def test_a_claim_asks_for_the_very_address_that_it_had():
    plain, asking = claim("one"), claim("one", annotations={"ipAddress": "10.0.0.1", "note": "y"})
    for obj, expected in ((plain, {"ipAddress": "10.0.0.1"}), (asking, {"ipAddress": "10.0.0.1", "note": "y"})):
        steps = plan(stream_of(pool(), obj, bound("one", "10.0.0.1")[1:], claim("waiting")), snapshot())
        made = {step.obj.metadata.name: step.obj.metadata.annotations for step in steps if step.obj.kind == "IPClaim"}
        assert made == {"one": expected, "waiting": None}


@pytest.mark.parametrize(
    ("size", "seconds", "expected"),
    [
        (64, 1.1, 128),  # quick: more, but never more than twice as many
        (64, 10.0, 64),
        (64, 40.0, 16),
        (64, 4000.0, 16),
        (4096, 1.0, 4096),
        (100, 8.0, 125),
    ],
)
def test_a_batch_is_as_large_as_the_last_one_was_quick(size, seconds, expected):
    assert importer.next_size(size, seconds) == expected
