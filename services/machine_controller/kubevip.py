"""kube-vip as a static pod: the control plane's virtual address on whichever node leads.

Responsible for: the manifest, the script that puts it in place before kubeadm runs, and the same as Ignition files.
Invariants: the pod reads admin.conf, but for the one node on which `kubeadm init` of 1.29 or newer is about to run:
there admin.conf has no rights before the API server is up behind this very address, so super-admin.conf is read until
admin.conf works. Nothing is written into the manifest folder but the manifest: kubelet takes every file there for a
pod. `kubernetes` is this node's own API server, by a hosts file, as hostAliases of static pods were broken for long.
Must not know: where the address comes from.
Sources: kube-vip v0.8 environment variables; kube-vip issues 684 (super-admin.conf) and 692 (hostAliases).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

import yaml

from services.machine_controller.guestinfo.ignition import File, Unit
from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.machine_controller.guestinfo.vendordata import Kind, Part

MANIFEST_PATH = "/etc/kubernetes/manifests/kube-vip.yaml"
HOSTS_PATH = "/etc/kube-vip.hosts"
SCRIPT_PATH = "/etc/kube-vip-prepare.sh"
UNIT_NAME = "groundwork-kube-vip.service"
HOSTS = "127.0.0.1 localhost kubernetes\n::1 localhost kubernetes\n"
OLDEST = (0, 8)
_IMAGE = re.compile(r"[a-z0-9][-a-zA-Z0-9._:/]*(@sha256:[0-9a-f]{64})?\Z")
_TAG = re.compile(r":v(\d+)\.(\d+)[^/]*\Z")
_INTERFACE = re.compile(r"[^\s/:]{1,15}\Z")
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_MAX_PORT = 65_535
_HEREDOC = "GROUNDWORK_END"
_MANIFEST_FOLDER = MANIFEST_PATH.rpartition("/")[0]
_ASIDE = "/etc/kubernetes/.kube-vip.new"
_UNIT_FOLDER = "/etc/systemd/system"
UNIT = f"""\
[Unit]
Description=Kubeconfig of kube-vip
Before=kubelet.service kubeadm.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT_PATH}

[Install]
WantedBy=multi-user.target
"""


class KubeVip(NamedTuple):
    """Settings of kube-vip. Times in seconds; an empty `interface` is that of the default route.

    `address` is the virtual address, or a DNS name; with `ddns` the name's address comes from DHCP. `services` serves
    Services of type LoadBalancer too, with `services_election` each from a node of its own.
    """

    image: str
    address: str
    port: int = 6443
    interface: str = ""
    services: bool = False
    services_election: bool = True
    ddns: bool = False
    lease_duration: int = 15
    renew_deadline: int = 10
    retry_period: int = 2
    prometheus: str = ":2112"

    def problems(self) -> list[Problem]:
        """Every mistake in the settings."""
        found = []
        tag = _TAG.search(self.image.partition("@")[0])
        if not _IMAGE.match(self.image) or ":" not in self.image.rpartition("/")[2]:
            found.append(Problem("image", self.image, "an image with its tag or digest"))
        elif tag and (int(tag[1]), int(tag[2])) < OLDEST:
            found.append(Problem("image", self.image, f"version {OLDEST[0]}.{OLDEST[1]} or newer"))
        if self.family is None and (not _DNS_NAME.match(self.address) or self.address.replace(".", "").isdigit()):
            found.append(Problem("address", self.address, "an IP address or a DNS name"))
        if self.family is not None and self.ddns:
            found.append(Problem("ddns", self.ddns, "a DNS name as address"))
        if not 0 < self.port <= _MAX_PORT:
            found.append(Problem("port", self.port, f"1 to {_MAX_PORT}"))
        if self.interface and not _INTERFACE.match(self.interface):
            found.append(Problem("interface", self.interface, "the name of a network interface"))
        if not 0 < self.retry_period < self.renew_deadline < self.lease_duration:
            times = f"{self.lease_duration}, {self.renew_deadline}, {self.retry_period}"
            found.append(Problem("lease duration, renew deadline, retry period", times, "each longer than the next"))
        return found

    @property
    def family(self) -> int | None:
        """4 or 6; None for a DNS name."""
        try:
            return ipaddress.ip_address(self.address).version
        except ValueError:
            return None


def manifest(settings: KubeVip) -> str:
    """YAML of the static pod. Raises InvalidError."""
    problems = settings.problems()
    if problems:
        raise InvalidError(problems)
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kube-vip", "namespace": "kube-system"},
        "spec": {
            "containers": [
                {
                    "name": "kube-vip",
                    "image": settings.image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["manager"],
                    "env": _environment(settings),
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                    "volumeMounts": [
                        {"name": "kubeconfig", "mountPath": "/etc/kubernetes/admin.conf", "readOnly": True},
                        {"name": "hosts", "mountPath": "/etc/hosts", "readOnly": True},
                    ],
                }
            ],
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "volumes": [
                {"name": "kubeconfig", "hostPath": {"path": "/etc/kubernetes/admin.conf", "type": "File"}},
                {"name": "hosts", "hostPath": {"path": HOSTS_PATH, "type": "File"}},
            ],
        },
    }
    text: str = yaml.safe_dump(document, sort_keys=False, width=10_000)
    return text


def _environment(settings: KubeVip) -> list[dict[str, Any]]:
    subnet = "128" if settings.family == 6 else "32"  # noqa: PLR2004 - the family's number
    values = {
        "vip_arp": True,  # for IPv6 that is neighbour discovery
        "port": settings.port,
        **({"vip_interface": settings.interface} if settings.interface else {}),
        "address": settings.address,
        # The first is what 0.8 reads in its later releases, the second what it read before; each ignores the other.
        "vip_subnet": subnet,
        "vip_cidr": subnet,
        "dns_mode": "first",
        "vip_ddns": settings.ddns,
        "cp_enable": True,
        "cp_namespace": "kube-system",
        "svc_enable": settings.services,
        **(
            {"svc_election": settings.services_election, "svc_leasename": "plndr-svcs-lock"}
            if settings.services
            else {}
        ),
        "vip_leaderelection": True,
        "vip_leasename": "plndr-cp-lock",
        "vip_leaseduration": settings.lease_duration,
        "vip_renewdeadline": settings.renew_deadline,
        "vip_retryperiod": settings.retry_period,
        "prometheus_server": settings.prometheus,
    }
    node = {"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    return [
        *(
            {"name": name, "value": str(value).lower() if isinstance(value, bool) else str(value)}
            for name, value in values.items()
        ),
        node,
    ]


# Where kubeadm init is about to run: Cluster API's cloud-config writes the one, its Ignition config the other.
_CHOOSE = f"""\
manifest={MANIFEST_PATH}
aside={_ASIDE}

init_is_next() {{
  [ ! -s /etc/kubernetes/admin.conf ] || return 1
  [ -e /run/kubeadm/kubeadm.yaml ] || grep -qs 'kubeadm init' /etc/kubeadm.sh
}}

knows_super_admin() {{
  minor=$(kubeadm version -o short 2>/dev/null | sed -n 's/^v1\\.\\([0-9]*\\).*/\\1/p')
  [ "${{minor:-29}}" -ge 29 ]
}}

# use CONF: let the pod read /etc/kubernetes/CONF.
use() {{
  [ -f "$manifest" ] || return 0
  (umask 077 && sed "s#^\\( *path: \\)/etc/kubernetes/[a-z-]*admin\\.conf\\$#\\1/etc/kubernetes/$1#" \\
    "$manifest" >"$aside") || return 1
  if [ "$(cat "$aside")" = "$(cat "$manifest")" ]; then rm -f "$aside"; else mv -f "$aside" "$manifest"; fi
}}
"""


def prepare_script() -> str:
    """A script that chooses the kubeconfig for a manifest which is in place; for `preKubeadmCommands` and each boot."""
    return f"""\
#!/bin/sh
# Chooses the kubeconfig that kube-vip reads: super-admin.conf where kubeadm init is about to run, else admin.conf.
set -u

{_CHOOSE}
if init_is_next && knows_super_admin; then
  use super-admin.conf
else
  use admin.conf
fi
"""


def install_script(settings: KubeVip) -> str:
    """A script that writes manifest and hosts file and chooses the kubeconfig. Raises InvalidError.

    It leaves a unit that chooses again at later boots, when the vendor data may be gone.
    """
    return f"""\
#!/bin/sh
# Puts kube-vip in place as a static pod, before kubeadm runs.
set -u

mkdir -p {_MANIFEST_FOLDER} {_UNIT_FOLDER}/multi-user.target.wants
cat >{HOSTS_PATH} <<'{_HEREDOC}'
{HOSTS}{_HEREDOC}
cat >{SCRIPT_PATH} <<'{_HEREDOC}'
{prepare_script()}{_HEREDOC}
cat >{_UNIT_FOLDER}/{UNIT_NAME} <<'{_HEREDOC}'
{UNIT}{_HEREDOC}
ln -sf ../{UNIT_NAME} {_UNIT_FOLDER}/multi-user.target.wants/{UNIT_NAME}
# Aside and renamed: kubelet reads whatever it finds in the folder of the manifest.
(umask 077 && cat >{_ASIDE}) <<'{_HEREDOC}'
{manifest(settings)}{_HEREDOC}
mv -f {_ASIDE} {MANIFEST_PATH} && sh {SCRIPT_PATH}
"""


def vendor_parts(settings: KubeVip) -> tuple[Part, ...]:
    """Parts of a control plane's vendor data. Raises InvalidError."""
    return (Part(Kind.SCRIPT, "20-kube-vip.sh", install_script(settings)),)


def ignition_parts(settings: KubeVip) -> tuple[list[File], list[Unit]]:
    """The same for Ignition. Raises InvalidError."""
    return [
        File(MANIFEST_PATH, manifest(settings), 0o600),
        File(HOSTS_PATH, HOSTS, 0o644),
        File(SCRIPT_PATH, prepare_script(), 0o700),
    ], [Unit(UNIT_NAME, UNIT, enabled=True)]


def kubeadm_config(settings: KubeVip) -> dict[str, Any]:
    """The same for a KubeadmControlPlane: `files` and `preKubeadmCommands` of its kubeadmConfigSpec."""
    files = (
        (MANIFEST_PATH, manifest(settings), "0600"),
        (HOSTS_PATH, HOSTS, "0644"),
        (SCRIPT_PATH, prepare_script(), "0700"),
    )
    return {
        "files": [
            {"path": path, "owner": "root:root", "permissions": mode, "content": content}
            for path, content, mode in files
        ],
        "preKubeadmCommands": [f"/bin/sh {SCRIPT_PATH}"],
    }
