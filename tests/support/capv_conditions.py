"""Where CAPV says how far a machine is: the four places and two styles that its two API versions have.

Responsible for: the status of a VSphereVM or VSphereMachine as CAPV v1.16 (v1beta2) and older releases (v1beta1) write
it, as far as others read it. Conditions of others stay.
Source: cluster-api-provider-vsphere v1.16 apis/{v1beta1,v1beta2}/*_types.go, controllers/vspherevm_controller.go.
"""

from __future__ import annotations

from services.runtime.kube.conditions import timestamp

PROVISIONED = "VirtualMachineProvisioned"
OLD_PROVISIONED = "VMProvisioned"
WAITING = "WaitingForStaticIPAllocation"


def report(status, api_version, generation, now, reason=""):
    """The status with CAPV's conditions: provisioned, or not yet for a reason."""
    old_style = api_version.endswith("/v1beta1")
    modern = _modern(reason, generation)
    legacy = _legacy(reason)
    holder, deprecated = ("v1beta2", None) if old_style else (None, "deprecated")
    result = dict(status)
    if old_style:
        result["conditions"] = _merged(result.get("conditions"), legacy, now)
        inner = dict(result.get(holder) or {})
        inner["conditions"] = _merged(inner.get("conditions"), modern, now)
        result[holder] = inner
        return result
    result["conditions"] = _merged(result.get("conditions"), modern, now)
    outer = dict(result.get(deprecated) or {})
    inner = dict(outer.get("v1beta1") or {})
    inner["conditions"] = _merged(inner.get("conditions"), legacy, now)
    result[deprecated] = {**outer, "v1beta1": inner}
    return result


def reasons(obj):
    """Reasons that an object's conditions give for not being provisioned, wherever they stand."""
    status = obj.get("status", {})
    places = (status, status.get("v1beta2", {}), status.get("deprecated", {}).get("v1beta1", {}))
    return {
        condition.get("reason", "")
        for place in places
        for condition in place.get("conditions", [])
        if condition["type"] in {PROVISIONED, OLD_PROVISIONED} and condition["status"] == "False"
    }


def _modern(reason, generation):
    ready = {"type": "Ready", "status": "False", "reason": "NotReady", "message": f"* {PROVISIONED}: {reason}"}
    provisioned = {"type": PROVISIONED, "status": "False", "reason": reason, "message": ""}
    if not reason:
        ready |= {"status": "True", "reason": "Ready", "message": ""}
        provisioned |= {"status": "True", "reason": "Provisioned"}
    return [{**row, "observedGeneration": generation} for row in (ready, provisioned)]


def _legacy(reason):
    if not reason:
        return [{"type": type_, "status": "True"} for type_ in ("Ready", OLD_PROVISIONED)]
    return [
        {"type": type_, "status": "False", "reason": reason, "severity": "Info"} for type_ in ("Ready", OLD_PROVISIONED)
    ]


def _merged(existing, rows, now):
    found = {row["type"]: row for row in existing or []}
    for row in rows:
        before = found.get(row["type"])
        same = before is not None and before["status"] == row["status"]
        found[row["type"]] = {**row, "lastTransitionTime": before["lastTransitionTime"] if same else timestamp(now)}
    return list(found.values())
