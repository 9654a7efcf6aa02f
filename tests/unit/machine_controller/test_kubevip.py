"""kube-vip's static pod, and the command line that prints it."""

from __future__ import annotations

import pytest
import yaml

from services import cli, console
from services.machine_controller import kubevip
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.guestinfo.vendordata import Kind
from services.machine_controller.kubevip import KubeVip

IMAGE = "registry.example:5000/kube-vip/kube-vip:v0.8.9"
SETTINGS = KubeVip(image=IMAGE, address="10.0.0.9")
COMMAND = ("machine", "kube-vip", "--image", IMAGE)


def pod(**changes):
    return yaml.safe_load(kubevip.manifest(SETTINGS._replace(**changes)))


def environment(**changes):
    (container,) = pod(**changes)["spec"]["containers"]
    return {item["name"]: item.get("value") for item in container["env"]}


def test_the_pod_announces_the_address_and_elects_a_leader():
    found = environment()
    assert found == {
        "vip_arp": "true",
        "port": "6443",
        "address": "10.0.0.9",
        "vip_subnet": "32",
        "vip_cidr": "32",
        "dns_mode": "first",
        "vip_ddns": "false",
        "cp_enable": "true",
        "cp_namespace": "kube-system",
        "svc_enable": "false",
        "vip_leaderelection": "true",
        "vip_leasename": "plndr-cp-lock",
        "vip_leaseduration": "15",
        "vip_renewdeadline": "10",
        "vip_retryperiod": "2",
        "prometheus_server": ":2112",
        "vip_nodename": None,
    }


def test_the_pod_runs_on_the_host_and_reads_the_kubeconfig_and_its_own_hosts():
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["hostNetwork"] is True
    assert container["image"] == IMAGE
    assert container["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"kubeconfig": "/etc/kubernetes/admin.conf", "hosts": "/etc/hosts"}
    volumes = {volume["name"]: volume["hostPath"] for volume in spec["volumes"]}
    assert volumes["kubeconfig"]["path"] == "/etc/kubernetes/admin.conf"
    assert volumes["hosts"]["path"] == kubevip.HOSTS_PATH


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"address": "fd00::9"}, {"address": "fd00::9", "vip_subnet": "128", "vip_cidr": "128"}),
        ({"address": "vip.example", "ddns": True}, {"address": "vip.example", "vip_ddns": "true"}),
        ({"interface": "ens192"}, {"vip_interface": "ens192"}),
        ({"services": True}, {"svc_enable": "true", "svc_election": "true", "svc_leasename": "plndr-svcs-lock"}),
        ({"services": True, "services_election": False}, {"svc_election": "false"}),
        ({"lease_duration": 60, "renew_deadline": 40, "retry_period": 5}, {"vip_leaseduration": "60"}),
    ],
)
def test_settings_reach_the_pod(changes, values):
    assert values.items() <= environment(**changes).items()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": "kube-vip"}, "image"),
        ({"image": "registry.example:5000/kube-vip"}, "image"),
        ({"image": "kube-vip:v0.7.2"}, "image"),
        ({"image": "kube-vip:v1 x"}, "image"),
        ({"address": ""}, "address"),
        ({"address": "10.0.0.256"}, "address"),
        ({"address": "10.0.0.9", "ddns": True}, "ddns"),
        ({"port": 0}, "port"),
        ({"interface": "a b"}, "interface"),
        ({"renew_deadline": 15}, "lease duration, renew deadline, retry period"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(changes, field):
    with pytest.raises(InvalidError) as caught:
        kubevip.manifest(SETTINGS._replace(**changes))
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    "image", ["kube-vip:v0.8.0", "kube-vip:v1.0.0", "kube-vip:main", f"kube-vip@sha256:{'a' * 64}"]
)
def test_images_from_the_first_version_on_that_reads_the_settings(image):
    assert pod(image=image)["spec"]["containers"][0]["image"] == image


def test_a_control_plane_installs_it_once_and_keeps_a_unit_for_later_boots():
    (part,) = kubevip.vendor_parts(SETTINGS)
    assert part.kind is Kind.SCRIPT
    for content in (kubevip.manifest(SETTINGS), kubevip.HOSTS, kubevip.prepare_script(), kubevip.UNIT):
        assert content in part.content


def test_ignition_gets_the_files_and_a_unit_before_kubeadm():
    files, (unit,) = kubevip.ignition_parts(SETTINGS)
    assert {file.path: file.content for file in files} == {
        kubevip.MANIFEST_PATH: kubevip.manifest(SETTINGS),
        kubevip.HOSTS_PATH: kubevip.HOSTS,
        kubevip.SCRIPT_PATH: kubevip.prepare_script(),
    }
    assert (unit.name, unit.content, unit.enabled) == (kubevip.UNIT_NAME, kubevip.UNIT, True)
    assert "Before=kubelet.service kubeadm.service" in unit.content.splitlines()


# -- the command line ----------------------------------------------------------------------------------------------


def printed(capsys, *arguments):
    code = cli.main([*COMMAND, *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_manifest_is_printed(capsys):
    code, out, err = printed(
        capsys, "--address", "10.0.0.9", "--interface", "eth1", "--services", "--lease-duration", "20"
    )
    assert (code, err) == (console.OK, "")
    assert out == kubevip.manifest(SETTINGS._replace(interface="eth1", services=True, lease_duration=20))


def test_files_for_a_kubeadm_control_plane_are_printed(capsys):
    code, out, _ = printed(capsys, "--address", "10.0.0.9", "-o", "files")
    assert code == console.OK
    config = yaml.safe_load(out)
    contents = {file["path"]: file["content"] for file in config["files"]}
    assert contents[kubevip.MANIFEST_PATH] == kubevip.manifest(SETTINGS)
    assert contents[kubevip.SCRIPT_PATH] == kubevip.prepare_script()
    assert config["preKubeadmCommands"] == [f"/bin/sh {kubevip.SCRIPT_PATH}"]
    assert "\n      hostNetwork: true\n" in out, "files can be read as they are"
    # Cluster API hands files through Jinja.
    assert not any(mark in out for mark in ("{{", "{%", "{#"))


def test_the_script_is_printed(capsys):
    assert printed(capsys, "--address", "10.0.0.9", "-o", "script")[1] == kubevip.install_script(SETTINGS)


def test_services_without_an_election_of_their_own(capsys):
    _, out, _ = printed(capsys, "--address", "10.0.0.9", "--services", "--no-services-election")
    assert out == kubevip.manifest(SETTINGS._replace(services=True, services_election=False))


def test_a_value_that_cannot_be_used_is_one_line_and_exit_code_2(capsys):
    code, out, err = printed(capsys, "--address", "10.0.0.256")
    assert (code, out) == (console.UNUSABLE, "")
    assert err == "groundwork machine: address: '10.0.0.256': an IP address or a DNS name\n"
