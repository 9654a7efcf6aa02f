"""What the checks of a zone say, as a table."""

import pytest

from services.machine_controller.zones.decide import (
    FAILURE_DOMAIN_VALIDATED,
    PLACEMENT_CONSTRAINT_READY,
    READY,
    VCENTER_AVAILABLE,
    Check,
    Observation,
    decide,
    deleting,
)
from services.runtime.kube.conditions import find

ORDER = (VCENTER_AVAILABLE, PLACEMENT_CONSTRAINT_READY, FAILURE_DOMAIN_VALIDATED)
CHECKS = [
    (Check.DOMAIN, FAILURE_DOMAIN_VALIDATED, "FailureDomainNotFound", ("Unknown", "Unknown", "False")),
    (Check.VCENTER, VCENTER_AVAILABLE, "VCenterUnreachable", ("False", "Unknown", "Unknown")),
    (Check.DATACENTER, VCENTER_AVAILABLE, "DatacenterNotFound", ("False", "Unknown", "Unknown")),
    (Check.POOL, PLACEMENT_CONSTRAINT_READY, "ResourcePoolNotFound", ("True", "False", "Unknown")),
    (Check.FOLDER, PLACEMENT_CONSTRAINT_READY, "FolderNotFound", ("True", "False", "Unknown")),
    (Check.REGION, FAILURE_DOMAIN_VALIDATED, "RegionMisconfigured", ("True", "True", "False")),
    (Check.ZONE, FAILURE_DOMAIN_VALIDATED, "ZoneMisconfigured", ("True", "True", "False")),
    (Check.CLUSTER, FAILURE_DOMAIN_VALIDATED, "ComputeClusterNotFound", ("True", "True", "False")),
    (Check.POOL_OF_CLUSTER, FAILURE_DOMAIN_VALIDATED, "ResourcePoolNotFound", ("True", "True", "False")),
    (Check.DATASTORE, FAILURE_DOMAIN_VALIDATED, "DatastoreNotFound", ("True", "True", "False")),
    (Check.NETWORK, FAILURE_DOMAIN_VALIDATED, "NetworkNotFound", ("True", "True", "False")),
    (Check.HOSTS, FAILURE_DOMAIN_VALIDATED, "HostsMisconfigured", ("True", "True", "False")),
]


def test_the_table_has_every_check_in_its_order():
    assert [row[0] for row in CHECKS] == list(Check)


@pytest.mark.parametrize(("check", "condition", "reason", "statuses"), CHECKS, ids=[str(row[0]) for row in CHECKS])
def test_a_failed_check_makes_its_condition_false_and_those_behind_it_unknown(check, condition, reason, statuses):
    verdict = decide(Observation({check: "something is wrong"}), generation=3)
    found = [find(verdict.conditions, type_) for type_ in ORDER]
    assert tuple(each.status for each in found) == statuses
    assert (find(verdict.conditions, condition).reason, verdict.reason, verdict.ready) == (reason, reason, False)
    assert find(verdict.conditions, READY).message == f"{reason}: something is wrong"
    assert {each.observedGeneration for each in verdict.conditions} == {3}
    assert all(each.reason == "NotChecked" for each in found if each.status == "Unknown")


def test_a_zone_in_which_nothing_is_wrong_is_ready_and_has_its_remarks():
    verdict = decide(Observation(remarks=("the rule is disabled",)))
    assert verdict.ready
    assert [(each.type, each.status, each.reason, each.message) for each in verdict.conditions] == [
        (READY, "True", "Ready", ""),
        (VCENTER_AVAILABLE, "True", "Available", ""),
        (PLACEMENT_CONSTRAINT_READY, "True", "Ready", ""),
        (FAILURE_DOMAIN_VALIDATED, "True", "Validated", "the rule is disabled"),
    ]


def test_the_first_condition_that_fails_names_all_that_is_wrong_with_it_and_nothing_of_the_next():
    verdict = decide(Observation({Check.NETWORK: "no network", Check.FOLDER: "no folder", Check.POOL: "no pool"}))
    assert find(verdict.conditions, PLACEMENT_CONSTRAINT_READY).message == "no pool; no folder"
    assert (verdict.reason, verdict.message) == ("ResourcePoolNotFound", "no pool; no folder")
    assert find(verdict.conditions, FAILURE_DOMAIN_VALIDATED).status == "Unknown"


@pytest.mark.parametrize(
    ("holders", "message"), [("Machines a/b", "in use by Machines a/b"), ("", "the zone is being deleted")]
)
def test_a_zone_that_is_being_deleted_says_who_needs_it(holders, message):
    said = deleting(2, holders)
    assert (said.type, said.status, said.reason, said.message) == (READY, "False", "Deleting", message)
