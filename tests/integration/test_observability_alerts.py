"""The alerts, by promtool: each fires when it should, says what it should, and is silent otherwise."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
import yaml

from tests.support.prometheus import ROOT, alert_files, alerts, promtool

POOL = 'pool_kind="IPPool", namespace="site-a", pool="nodes"'
OURS = 'job="ipam", instance="a"'
LAG = f"groundwork_event_loop_lag_seconds_count{{{OURS}}}"
LEADS = f'leader_election_master_status{{{OURS}, name="groundwork-ipam"}}'
OTHERS = ("capv-integrator", "machine-controller", "podpreset")
VCENTER = 'server="vc.example.org"'
DAY = 86400


def pool(total, free, cooling=0, labels=POOL, scraped="{}x60", **where):
    """Series of a pool, as one replica or another shows them."""
    extra = "".join(f', {name}="{value}"' for name, value in where.items())
    counts = {"total": total, "free": free, "cooling": cooling}
    return {
        f'groundwork_ipam_pool_addresses{{{labels}, state="{state}"{extra}}}': scraped.format(count)
        for state, count in counts.items()
    }


def steady(value):
    """Values of a series that promtool's notation cannot repeat."""
    return " ".join([value] * 61)


class Case(NamedTuple):
    """What is scraped every minute (series: values in promtool's notation) and what fires after `at`.

    `fires` has for each alert that is to fire the labels beside those of the rule, and the beginning of its
    description up to where the rule's own text has its last placeholder.
    """

    title: str
    alert: str
    series: dict[str, str]
    fires: tuple[tuple[dict[str, str], str], ...] = ()
    at: str = "45m"


def fires(begins, **labels):
    return ((labels, begins),)


NODES = {"pool_kind": "IPPool", "namespace": "site-a", "pool": "nodes"}
CASES = [
    Case(
        "5 of 100 addresses are left",
        "GroundworkPoolNearlyExhausted",
        pool(100, 3, 2, instance="a", pod="ipam-0"),
        fires("IPPool site-a/nodes has 5", **NODES),
    ),
    Case(
        "a global pool has no namespace, whatever the scrape adds",
        "GroundworkPoolNearlyExhausted",
        pool(100, 5, labels='pool_kind="GlobalIPPool", pool="shared"', namespace="groundwork-system"),
        fires("GlobalIPPool shared has 5", pool_kind="GlobalIPPool", namespace="groundwork-system", pool="shared"),
    ),
    Case(
        "without honorLabels the pool's namespace has another name",
        "GroundworkPoolNearlyExhausted",
        pool(
            *(100, 5),
            labels='pool_kind="IPPool", exported_namespace="site-a", pool="nodes"',
            namespace="groundwork-system",
        ),
        fires("IPPool site-a/nodes has 5", exported_namespace="site-a", **NODES | {"namespace": "groundwork-system"}),
    ),
    Case(
        "the leader has changed a minute ago",
        "GroundworkPoolNearlyExhausted",
        {
            **pool(100, 3, scraped="{}x42 stale", instance="a", pod="ipam-0"),
            **pool(100, 3, scraped="_x42 {}x20", instance="b", pod="ipam-1"),
        },
        fires("IPPool site-a/nodes has 3", **NODES),
    ),
    Case("20 of 100 addresses are left", "GroundworkPoolNearlyExhausted", pool(100, 20)),
    Case("cooling addresses can be had", "GroundworkPoolNearlyExhausted", pool(100, 0, 20)),
    Case("a pool for one VIP is full on purpose", "GroundworkPoolNearlyExhausted", pool(1, 0)),
    Case("it has not been so for long", "GroundworkPoolNearlyExhausted", pool(100, 1), at="5m"),
    Case(
        "two claims wait",
        "GroundworkClaimsWaiting",
        {f"groundwork_ipam_claims_waiting{{{POOL}}}": "2x60"},
        fires("2 claims wait for a free address of IPPool site-a/nodes", **NODES),
    ),
    Case("none waits any more", "GroundworkClaimsWaiting", {f"groundwork_ipam_claims_waiting{{{POOL}}}": "2x40 0x20"}),
    Case(
        "one address is held twice",
        "GroundworkLedgerDiscrepancy",
        {f"groundwork_ipam_address_conflicts{{{POOL}}}": "1x60"},
        fires("1 addresses of IPPool site-a/nodes", **NODES),
    ),
    Case(
        "no address is held twice",
        "GroundworkLedgerDiscrepancy",
        {f"groundwork_ipam_address_conflicts{{{POOL}}}": "0x60"},
    ),
    Case(
        "three machines wait",
        "GroundworkMachinesWaiting",
        {'groundwork_capv_integrator_not_served{kind="VSphereMachine", reason="NoPoolMatches"}': "3x60"},
        fires(
            "3 objects of kind VSphereMachine have waited for 15 minutes with the reason NoPoolMatches",
            kind="VSphereMachine",
            reason="NoPoolMatches",
        ),
    ),
    Case(
        "what is paused may wait",
        "GroundworkMachinesWaiting",
        {'groundwork_capv_integrator_not_served{kind="VSphereMachine", reason="Paused"}': "3x60"},
    ),
    Case(
        "machines come and go",
        "GroundworkMachinesWaiting",
        {'groundwork_capv_integrator_not_served{kind="VSphereMachine", reason="WaitingForAddress"}': "3x10 0 3x10 0 3"},
        at="20m",
    ),
    Case(
        "two machines hang",
        "GroundworkMachinesNotProvisioned",
        {'groundwork_machine_phase{phase="TaskFailed"}': "2x60"},
        fires("For 30 minutes 2 VSphereMachines have had the reason TaskFailed", phase="TaskFailed"),
    ),
    Case(
        "what is ready, goes or waits for others",
        "GroundworkMachinesNotProvisioned",
        {
            'groundwork_machine_phase{phase="Provisioned"}': "9x60",
            'groundwork_machine_phase{phase="Deleting"}': "9x60",
            'groundwork_machine_phase{phase="WaitingForBootstrapData"}': "9x60",
            'groundwork_machine_phase{phase="WaitingForClone"}': "0x60",
        },
    ),
    Case(
        "vCenter refuses every sign-in",
        "GroundworkVCenterSignInFails",
        {
            f'groundwork_vcenter_logins_total{{{VCENTER}, outcome="refused"}}': "0+1x60",
            f'groundwork_vcenter_calls_total{{{VCENTER}, outcome="success", method="Login"}}': "7x60",
        },
        fires("vCenter vc.example.org", server="vc.example.org"),
    ),
    Case(
        "one sign-in failed and the next went well",
        "GroundworkVCenterSignInFails",
        {
            f'groundwork_vcenter_logins_total{{{VCENTER}, outcome="error"}}': "0x40 1x20",
            f'groundwork_vcenter_calls_total{{{VCENTER}, outcome="success", method="Login"}}': "0+1x60",
        },
    ),
    Case(
        "vCenter is another one's",
        "GroundworkVCenterSignInFails",
        {
            f'groundwork_vcenter_logins_total{{{VCENTER}, outcome="error"}}': "0+1x60",
            'groundwork_vcenter_calls_total{server="other.example.org", outcome="success"}': "0+1x60",
        },
        fires("vCenter vc.example.org", server="vc.example.org"),
    ),
    Case(
        "a zone cannot be used",
        "GroundworkZoneNotReady",
        {
            'groundwork_machine_zone_ready{zone="rack-1"}': "0x60",
            'groundwork_machine_zone_ready{zone="rack-2"}': "1x60",
        },
        fires("VSphereDeploymentZone rack-1", zone="rack-1"),
    ),
    Case("zones are ready", "GroundworkZoneNotReady", {'groundwork_machine_zone_ready{zone="rack-1"}': "1x60"}),
    Case(
        "one review in ten fails",
        "GroundworkAdmissionErrors",
        {
            'groundwork_webhook_requests_total{path="/mutate", result="patched", instance="a"}': "0+54x60",
            'groundwork_webhook_requests_total{path="/mutate", result="error", instance="a"}': "0+3x60",
            'groundwork_webhook_requests_total{path="/mutate", result="bad", instance="b"}': "0+3x60",
        },
        fires("10.0 % of the reviews at /mutate", path="/mutate"),
    ),
    Case(
        "denials are no errors",
        "GroundworkAdmissionErrors",
        {
            'groundwork_webhook_requests_total{path="/mutate", result="denied"}': "0+60x60",
            'groundwork_webhook_requests_total{path="/mutate", result="error"}': "1x60",
        },
    ),
    Case(
        "nobody asks",
        "GroundworkAdmissionErrors",
        {'groundwork_webhook_requests_total{path="/mutate", result="error"}': "0x60"},
    ),
    Case(
        "ten days are left",
        "GroundworkCertificateNearExpiry",
        {
            'groundwork_webhook_certificate_expiry_timestamp_seconds{pod="w-0"}': f"{10 * DAY + 45 * 60}x60",
            'groundwork_webhook_certificate_expiry_timestamp_seconds{pod="w-1"}': f"{80 * DAY}x60",
        },
        fires("w-0 serves a certificate that is valid for 10.0", pod="w-0"),
    ),
    Case(
        "there is no certificate yet",
        "GroundworkCertificateNearExpiry",
        {'groundwork_webhook_certificate_expiry_timestamp_seconds{pod="w-0"}': steady("NaN")},
    ),
    Case(
        "one of a pod's processes serves an old one",
        "GroundworkCertificateNearExpiry",
        {
            'groundwork_webhook_certificate_expiry_timestamp_seconds{pod="w-0"}': steady("NaN"),
            'groundwork_webhook_certificate_expiry_timestamp_seconds{pod="w-0", process="2"}': f"{45 * 60}x60",
        },
        fires("w-0 serves a certificate that is valid for 0.0", pod="w-0"),
    ),
    Case(
        "a certificate was not taken",
        "GroundworkCertificateRejected",
        {'groundwork_webhook_certificate_rejected{pod="w-0"}': "1x60"},
        fires("w-0", pod="w-0"),
    ),
    Case(
        "it was taken in the end",
        "GroundworkCertificateRejected",
        {'groundwork_webhook_certificate_rejected{pod="w-0"}': "1x40 0x20"},
    ),
    Case(
        "the bundle is another's",
        "GroundworkWebhookNotTrusted",
        {'groundwork_webhook_ca_published{pod="w-0"}': "0x60"},
        fires("The caBundle of the MutatingWebhookConfiguration is not of the CA whose certificate w-0", pod="w-0"),
    ),
    Case(
        "the bundle is ours, or not our business",
        "GroundworkWebhookNotTrusted",
        {
            'groundwork_webhook_ca_published{pod="w-0"}': "1x60",
            'groundwork_webhook_ca_published{pod="w-1"}': steady("NaN"),
        },
    ),
    Case(
        "nothing was heard for long",
        "GroundworkPresetsStale",
        {'groundwork_podpreset_cache_age_seconds{pod="w-0", resource="PodPreset"}': "0+60x60"},
        fires("w-0 has heard nothing of its PodPreset objects for 45m 0s", pod="w-0", resource="PodPreset"),
    ),
    Case(
        "nothing was ever heard",
        "GroundworkPresetsStale",
        {'groundwork_podpreset_cache_age_seconds{pod="w-0", resource="PodPreset"}': steady("Inf")},
        fires("w-0 has heard nothing of its PodPreset objects for +Inf", pod="w-0", resource="PodPreset"),
    ),
    Case(
        "it was heard a minute ago",
        "GroundworkPresetsStale",
        {'groundwork_podpreset_cache_age_seconds{pod="w-0", resource="PodPreset"}': "60x60"},
    ),
    Case(
        "two replicas see one broken preset",
        "GroundworkPresetInvalid",
        {
            f'groundwork_podpreset_presets{{pod="{name}", instance="{name}", kind="PodPreset", ready="false"}}': "1x60"
            for name in ("w-0", "w-1")
        },
        fires("1 objects of kind PodPreset", kind="PodPreset", ready="false"),
    ),
    Case(
        "all presets are sound",
        "GroundworkPresetInvalid",
        {
            'groundwork_podpreset_presets{kind="PodPreset", ready="false"}': "0x60",
            'groundwork_podpreset_presets{kind="PodPreset", ready="true"}': "5x60",
        },
    ),
    Case(
        "nobody leads the allocator",
        "GroundworkNoLeader",
        {
            'leader_election_master_status{name="groundwork-ipam", pod="ipam-0"}': "0x60",
            'leader_election_master_status{name="groundwork-ipam", pod="ipam-1"}': "0x60",
            **{f'leader_election_master_status{{name="groundwork-{other}"}}': "1x60" for other in OTHERS},
        },
        fires("", service="ipam"),
    ),
    Case(
        "three services are not scraped at all",
        "GroundworkNoLeader",
        {'leader_election_master_status{name="groundwork-ipam", pod="ipam-0"}': "1x60"},
        tuple(fires("", service=other)[0] for other in OTHERS),
    ),
    Case(
        "each has a leader beside one that stands by",
        "GroundworkNoLeader",
        {
            f'leader_election_master_status{{name="groundwork-{name}", pod="{number}"}}': f"{number}x60"
            for name in ("ipam", *OTHERS)
            for number in (0, 1)
        },
    ),
    Case(
        "one key takes ten minutes",
        "GroundworkWorkQueueStuck",
        {
            f'workqueue_longest_running_processor_seconds{{{OURS}, pod="ipam-0", name="ipam-claim"}}': "0x20 600x40",
            LAG: "0+60x60",
        },
        fires("The queue ipam-claim of ipam-0", job="ipam", instance="a", pod="ipam-0", name="ipam-claim"),
    ),
    Case(
        "nobody takes the keys",
        "GroundworkWorkQueueStuck",
        {
            f'workqueue_depth{{{OURS}, name="ipam-claim"}}': "7x60",
            f'workqueue_work_duration_seconds_count{{{OURS}, name="ipam-claim"}}': "5x60",
            LAG: "0+60x60",
            LEADS: "1x60",
        },
        fires("The queue ipam-claim of a", job="ipam", instance="a", name="ipam-claim"),
    ),
    Case(
        "the queue is long and moves",
        "GroundworkWorkQueueStuck",
        {
            f'workqueue_depth{{{OURS}, name="ipam-claim"}}': "7000x60",
            f'workqueue_work_duration_seconds_count{{{OURS}, name="ipam-claim"}}': "0+5x60",
            LAG: "0+60x60",
            LEADS: "1x60",
        },
    ),
    Case(
        "who stands by lets keys lie",
        "GroundworkWorkQueueStuck",
        {
            f'workqueue_depth{{{OURS}, name="ipam-claim"}}': "7x60",
            f'workqueue_work_duration_seconds_count{{{OURS}, name="ipam-claim"}}': "0x60",
            LAG: "0+60x60",
            LEADS: "0x60",
        },
    ),
    Case(
        "the queue is another controller's",
        "GroundworkWorkQueueStuck",
        {'workqueue_longest_running_processor_seconds{job="capi", instance="c", name="machine"}': "600x60"},
    ),
    Case(
        "half of what is done fails",
        "GroundworkReconcileErrors",
        {
            f'controller_runtime_reconcile_errors_total{{{OURS}, controller="ipam-claim"}}': "0+3x60",
            f'controller_runtime_reconcile_total{{{OURS}, controller="ipam-claim", result="success"}}': "0+3x60",
            f'controller_runtime_reconcile_total{{{OURS}, controller="ipam-claim", result="error"}}': "0+3x60",
            LAG: "0+60x60",
        },
        fires("50 % of what controller ipam-claim", job="ipam", controller="ipam-claim"),
    ),
    Case(
        "a conflict now and then is normal",
        "GroundworkReconcileErrors",
        {
            f'controller_runtime_reconcile_errors_total{{{OURS}, controller="ipam-claim"}}': "0+1x60",
            f'controller_runtime_reconcile_total{{{OURS}, controller="ipam-claim", result="success"}}': "0+99x60",
            f'controller_runtime_reconcile_total{{{OURS}, controller="ipam-claim", result="error"}}': "0+1x60",
            LAG: "0+60x60",
        },
    ),
    Case(
        "the errors are another controller's",
        "GroundworkReconcileErrors",
        {
            'controller_runtime_reconcile_errors_total{job="capi", instance="c", controller="machine"}': "0+1x60",
            'controller_runtime_reconcile_total{job="capi", instance="c", controller="machine", result="error"}': (
                "0+1x60"
            ),
        },
    ),
]


def expected(rule, labels, begins):
    """An alert of promtool's `exp_alerts`."""
    annotations = rule["annotations"]
    return {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {**annotations, "description": begins + annotations["description"].rpartition("}}")[2]},
    }


def unit_test(case):
    """The case in promtool's format."""
    firing = []
    for labels, begins in case.fires:
        candidates = [rule for rule in alerts() if rule["alert"] == case.alert]
        matching = [r for r in candidates if r["labels"].get("service") == labels.get("service")]
        (rule,) = matching
        firing.append(expected(rule, labels, begins))
    return {
        "name": f"{case.alert}: {case.title}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": firing}],
    }


def run(tmp_path, rule_files, cases):
    document = {"rule_files": [str(path) for path in rule_files], "tests": [unit_test(case) for case in cases]}
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return promtool("test", "rules", path)


def test_each_alert_fires_when_it_should_and_only_then(tmp_path):
    code, output = run(tmp_path, alert_files(), CASES)
    assert code == 0, output


@pytest.mark.parametrize("name", sorted({rule["alert"] for rule in alerts()}))
def test_both_sides_of_each_alert_are_tried(name):
    cases = [bool(case.fires) for case in CASES if case.alert == name]
    assert set(cases) == {True, False}


def test_promtool_finds_no_fault_with_the_rules():
    code, output = promtool("check", "rules", "--lint=all", "--lint-fatal", *alert_files())
    assert code == 0, output


def test_prometheus_takes_the_scrapes_that_the_monitoring_page_shows(tmp_path):
    page = (ROOT / "docs" / "tasks" / "monitor.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    jobs = yaml.safe_load(block)
    assert all(job["honor_labels"] for job in jobs)
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    code, output = promtool("check", "config", "--syntax-only", path)
    assert code == 0, output


def test_a_rule_that_lost_its_threshold_is_seen(tmp_path):
    source = next(path for path in alert_files() if path.stem == "ipam")
    broken = tmp_path / "ipam.yaml"
    broken.write_text(source.read_text().replace("< 10 #", "< 1 #"))
    cases = [case for case in CASES if case.alert == "GroundworkPoolNearlyExhausted"]
    code, output = run(tmp_path, [broken], cases)
    assert code == 1
    assert "5 of 100 addresses are left" in output
