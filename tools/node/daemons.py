"""How each program of a node is started: flags and configuration files, with the reasons for those that are not plain.

Pure but for writing the configuration files. Invariants: every path is below the node's folder or one of Debian's;
every address is inside the node's network namespace. Knows nothing of processes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from tools.node.init import ADDRESS, NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tools.pki import Pki

API_PORT = 6443
ETCD_PORT = 2379
KUBELET_PORT = 10250
PROXY_HEALTH_PORT = 10256
API_URL = f"https://127.0.0.1:{API_PORT}"
PAUSE = "localhost/groundwork-pause:1"

_ETCD = f"http://127.0.0.1:{ETCD_PORT}"
_PEER = "http://127.0.0.1:2380"
_PODS = "10.244.0.0/24"
_SERVICES = "10.96.0.0/16"
_API_SERVICE = "10.96.0.1"
_DNS = "10.96.0.10"
_DOMAIN = "cluster.local"
_ISSUER = f"https://kubernetes.default.svc.{_DOMAIN}"


def containerd_socket(folder: Path) -> Path:
    """Where containerd listens."""
    return folder / "containerd.sock"


def etcd(folder: Path) -> list[str]:
    """Flags of etcd; what a crash of the machine would lose is of no interest."""
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_PEER}",
        f"--initial-advertise-peer-urls={_PEER}",
        f"--initial-cluster=default={_PEER}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(pki: Pki) -> list[str]:
    """Flags of kube-apiserver."""
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{_DOMAIN}",
        "localhost",
    ]
    serving = pki.server("apiserver", names, ["127.0.0.1", ADDRESS, _API_SERVICE])
    to_kubelet = pki.client("apiserver-kubelet", "groundwork-apiserver", "system:masters")
    signing, verifying = pki.signing_key("service-accounts")
    return [
        f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--advertise-address={ADDRESS}",
        f"--service-cluster-ip-range={_SERVICES}",
        f"--client-ca-file={pki.ca.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-client-certificate={to_kubelet.certificate}",
        f"--kubelet-client-key={to_kubelet.key}",
        f"--kubelet-certificate-authority={pki.ca.certificate}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={verifying}",
        f"--service-account-signing-key-file={signing}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def _delegating(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def controller_manager(pki: Pki, kubeconfig: Path) -> list[str]:
    """Flags of kube-controller-manager."""
    signing, _ = pki.signing_key("service-accounts")
    return [
        *_delegating(kubeconfig),
        f"--root-ca-file={pki.ca.certificate}",  # what pods verify the API server by
        f"--service-account-private-key-file={signing}",
        "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={pki.ca.certificate}",
        f"--cluster-signing-key-file={pki.ca.key}",
        "--allocate-node-cidrs=true",  # the node then says which addresses its pods have
        f"--cluster-cidr={_PODS}",
        "--node-cidr-mask-size=24",
    ]


def scheduler(kubeconfig: Path) -> list[str]:
    """Flags of kube-scheduler."""
    return _delegating(kubeconfig)


def containerd(folder: Path, plugins: Path) -> list[str]:
    """Flags of containerd; writes its configuration and that of the bridge that pods are on."""
    networks = folder / "cni"
    networks.mkdir(exist_ok=True)
    (networks / "10-bridge.conflist").write_text(json.dumps(_bridge(folder)))
    config = folder / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{folder / "containerd"}"
state = "{folder / "containerd-state"}"
# opt would write to /opt; restart is for containers that nobody made here; the snapshotters need what we do not have.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{containerd_socket(folder)}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# A lower score than one's own takes CAP_SYS_RESOURCE, which sandboxed build machines lack.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
    )
    return [f"--config={config}"]


def _bridge(folder: Path) -> Mapping[str, Any]:
    addresses = {"type": "host-local", "dataDir": str(folder / "addresses"), "ranges": [[{"subnet": _PODS}]]}
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,  # a pod may reach itself through a Service
        "ipMasq": False,
        "ipam": addresses,
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def kubelet(folder: Path, pki: Pki, kubeconfig: Path, cgroup: str) -> list[str]:
    """Flags of kubelet; writes its configuration. `cgroup` is the name of the cgroup that pods are below."""
    serving = pki.server("kubelet-serving", [NAME], [ADDRESS])
    resolver = folder / "resolv.conf"
    resolver.write_text("# no DNS outside of the cluster\n")
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.ca.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{containerd_socket(folder)}",
        "clusterDNS": [_DNS],
        "clusterDomain": _DOMAIN,
        "resolvConf": str(resolver),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        # A full disk of a developer is no reason to end the pods under test.
        "evictionHard": dict.fromkeys(("imagefs.available", "memory.available", "nodefs.available"), "0%"),
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
    }
    config = folder / "kubelet.yaml"
    config.write_text(yaml.safe_dump(settings))
    return [
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'pki'}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    ]


def proxy(folder: Path, kubeconfig: Path) -> list[str]:
    """Flags of kube-proxy; writes its configuration."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": _PODS,
        "hostnameOverride": NAME,
        "bindAddress": ADDRESS,
        "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        # The table's size belongs to the machine and cannot be set from a network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"localhostNodePorts": False},
    }
    config = folder / "proxy.yaml"
    config.write_text(yaml.safe_dump(settings))
    return [f"--config={config}"]
