"""What CAPV's webhooks refuse, as ValidatingAdmissionPolicies: the API server itself refuses it then.

Source: cluster-api-provider-vsphere v1.16 internal/webhooks/{vspheremachine,vspheremachinetemplate}.go.
"""

from __future__ import annotations

from tests.support.capv_parts import INFRASTRUCTURE

_MAY_CHANGE = {"providerID", "powerOffMode", "guestSoftPowerOffTimeout", "guestSoftPowerOffTimeoutSeconds", "network"}
_ADMISSION = "admissionregistration.k8s.io/v1"


def policies(definition):
    """Manifests of policies and bindings; `definition` is the CRD of VSphereMachine."""
    fields = set()
    for version in definition["spec"]["versions"]:
        fields |= version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].keys()
    paths = [f"spec.{name}" for name in sorted(fields - _MAY_CHANGE)] + ["spec.network.routes"]
    same = [
        f"has(object.{path}) == has(oldObject.{path}) && (!has(object.{path}) || object.{path} == oldObject.{path})"
        for path in paths
    ]
    cidr = "!has(d.ipAddrs) || d.ipAddrs.all(ip, isCIDR(ip))"
    return [
        *_policy(
            "capv-vspheremachine",
            "vspheremachines",
            ["CREATE", "UPDATE"],
            (f"object.spec.network.devices.all(d, {cidr})", "ip addresses should be in the CIDR format"),
        ),
        *_policy(
            "capv-vspheremachine-update",
            "vspheremachines",
            ["UPDATE"],
            (" && ".join(f"({rule})" for rule in same), "spec: Forbidden: cannot be modified"),
        ),
        *_policy(
            "capv-vspheremachinetemplate",
            "vspheremachinetemplates",
            ["CREATE"],
            (
                "object.spec.template.spec.network.devices.all(d, !has(d.ipAddrs) || d.ipAddrs.size() == 0)",
                "cannot be set in templates",
            ),
        ),
    ]


def _policy(name, plural, operations, rule):
    expression, message = rule
    match = {"apiGroups": [INFRASTRUCTURE], "apiVersions": ["*"], "operations": operations, "resources": [plural]}
    policy = {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [match]},
            "validations": [{"expression": expression, "message": message}],
        },
    }
    binding = {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    return [policy, binding]
