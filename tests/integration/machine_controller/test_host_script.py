"""The scripts that set a host up, run in a root folder of their own: twice, on every kind of system."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.machine_controller.hostproxy import HostProxy
from services.machine_controller.hostscript import APT, BEGIN, END, SERVICES, host_script
from services.machine_controller.kubevip import (
    HOSTS_PATH,
    MANIFEST_PATH,
    UNIT_NAME,
    KubeVip,
    install_script,
    prepare_script,
)
from services.proxyenv.host import HostFacts
from tests.support.chroot import Root

NASTY = "http://us'er:p\"a$HOME`id`\\n%41 %zz;&|*!#@proxy.example:3128"
ENVIRONMENT = 'LANG="C.UTF-8"\nPATH=/usr/bin'  # no newline at its end
DNF = "[main]\ngpgcheck=1\n\n[other]\nname=x\n"


def certificate(name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


CA = [certificate("one"), certificate("two")]


@pytest.fixture
def root(tmp_path):
    root = Root(tmp_path / "root")
    root.write("/etc/os-release", 'ID=debian\nPRETTY_NAME="Debian"\n')
    root.write("/etc/environment", ENVIRONMENT)
    root.path("/etc/apt/apt.conf.d").mkdir(parents=True)
    root.write("/etc/dnf/dnf.conf", DNF)
    root.path("/run/systemd/system").mkdir(parents=True)
    for name in ("systemctl", "update-ca-certificates", "update-ca-trust", "rehash_ca_certificates.sh"):
        root.program(name)
    return root


def proxy(**values):
    return HostProxy.read({"httpProxy": NASTY, "httpsProxy": NASTY, "noProxy": "a.example,10.0.0.0/8,.corp", **values})


def unit_environment(text):
    """Variables of a unit file as systemd.exec(5) and systemd.syntax(7) have it: quotes, C escapes, specifiers."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "Environment":
            assert value.startswith('"')
            assert value.endswith('"')
            plain, rest = "", iter(value[1:-1])
            for character in rest:
                assert character != '"'
                if character in "\\%":
                    escaped = next(rest)
                    assert escaped == character or (character == "\\" and escaped == '"')
                    plain += escaped
                else:
                    plain += character
            name, _, content = plain.partition("=")
            found[name] = content
    return found


def drop_in(root, service):
    return root.read(f"/etc/systemd/system/{service}.service.d/50-groundwork-proxy.conf")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_every_reader_gets_the_settings_and_a_second_run_changes_nothing(root, shell):
    settings = proxy().completed(HostFacts(vcenter=("vcenter.example",), endpoint=("10.1.1.1",)))
    done = root.run(host_script(settings), shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for service in SERVICES:
        assert unit_environment(drop_in(root, service)) == settings.variables()
    assert root.calls() == ["systemctl daemon-reload"] + [
        f"systemctl --no-block try-restart {service}.service" for service in SERVICES
    ]
    before = root.files()
    again = root.run(host_script(settings), shell)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert root.calls() == []
    assert root.files() == before


def test_what_is_in_etc_environment_stays_and_a_shell_reads_ours(root):
    settings = proxy()
    root.run(host_script(settings))
    text = root.read("/etc/environment")
    assert text.startswith(f"{ENVIRONMENT}\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\n")
    command = ["/bin/sh", "-c", f'. {shlex.quote(str(root.path("/etc/environment")))}; printf %s "$HTTP_PROXY"']
    read = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert read.stdout == settings.http


def test_other_settings_replace_ours_and_only_what_changed_is_restarted(root):
    root.run(host_script(proxy()))
    root.calls()
    root.write("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "[Service]\n")
    other = proxy(httpProxy="http://other.example:1", httpsProxy="http://other.example:1")
    root.run(host_script(other))
    assert root.read("/etc/environment").count("HTTP_PROXY=") == 1
    assert "HTTP_PROXY=http://other.example:1\n" in root.read("/etc/environment")
    assert root.read("/etc/dnf/dnf.conf").count("proxy=") == 1
    assert "us" not in drop_in(root, "kubelet").partition("NO_PROXY")[0]
    assert len(root.calls()) == 1 + len(SERVICES)
    assert root.read("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf") == "[Service]\n"


def test_a_damaged_block_costs_nobody_their_lines(root):
    root.write("/etc/environment", f"{BEGIN}\nLANG=C\n")
    root.run(host_script(proxy()))
    assert "LANG=C\n" in root.read("/etc/environment")


def test_dnf_gets_its_proxy_in_the_section_main(root):
    root.run(host_script(proxy()))
    head, _, tail = root.read("/etc/dnf/dnf.conf").partition(END)
    assert head.startswith(f"[main]\n{BEGIN}\nproxy=http://us%27er:")
    assert tail == "\ngpgcheck=1\n\n[other]\nname=x\n"


def test_apt_gets_both_proxies_and_the_hosts_that_need_none(root):
    root.run(host_script(proxy()))
    lines = root.read(APT).splitlines()
    assert f'Acquire::http::Proxy "{proxy().http}";' in lines
    assert 'Acquire::https::Proxy::a.example "DIRECT";' in lines
    assert not any("10.0.0.0" in line or ".corp" in line for line in lines)
    read = subprocess.run(
        ["apt-config", "dump", "Acquire::http::Proxy"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "APT_CONFIG": str(root.path(APT))},
    )
    assert f'Acquire::http::Proxy "{proxy().http}";' in read.stdout


def test_what_a_password_is_in_can_be_read_by_root_alone(root):
    root.run(host_script(proxy()))
    modes = {path: mode for path, (mode, _) in root.files().items()}
    assert modes[APT] == modes["/etc/systemd/system/kubelet.service.d/50-groundwork-proxy.conf"] == "0o600"
    # Login shells of every user read it; that is what it is for.
    assert modes["/etc/environment"] == "0o644"


def test_nothing_is_exported_to_what_runs_the_script(root):
    script = host_script(proxy())
    assert "export" not in script
    done = root.run(f"{script.replace('exit $failed', '')}\nenv")
    assert done.returncode == 0
    assert "proxy" not in done.stdout.lower()


def test_without_systemd_nothing_is_restarted(root):
    root.path("/run/systemd/system").rmdir()
    assert root.run(host_script(proxy())).returncode == 0
    assert root.calls() == []


SYSTEMS = {
    "debian": ("/usr/local/share/ca-certificates", "crt", "update-ca-certificates "),
    "rhel": ("/etc/pki/ca-trust/source/anchors", "pem", "update-ca-trust extract"),
    "suse": ("/etc/pki/trust/anchors", "pem", "update-ca-certificates "),
    "flatcar": ("/etc/ssl/certs", "pem", "update-ca-certificates "),
    "photon": ("/etc/ssl/certs", "pem", "rehash_ca_certificates.sh "),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_certificates_are_trusted_the_way_of_each_system(root, system):
    folder, suffix, call = SYSTEMS[system]
    root.write("/etc/os-release", f"ID={system}\n")
    if system in {"rhel", "suse"}:
        root.path(folder).mkdir(parents=True)
    two = HostProxy.read({"ca.crt": f"# a bundle\n{CA[0]}\n{CA[1]}"})
    assert root.run(host_script(two)).returncode == 0
    assert [root.read(f"{folder}/groundwork-{number}.{suffix}") for number in (1, 2)] == CA
    restarts = [f"systemctl --no-block try-restart {name}.service" for name in ("containerd", "crio", "docker")]
    assert root.calls() == [call, "systemctl daemon-reload", *restarts]
    assert root.run(host_script(two)).returncode == 0
    assert root.calls() == []
    one = HostProxy.read({"ca.crt": CA[0]})
    root.run(host_script(one))
    assert not root.path(f"{folder}/groundwork-2.{suffix}").exists()
    assert root.calls()[0] == call


def test_a_step_that_fails_is_told_and_keeps_no_other_from_being_done(root):
    root.program("update-ca-certificates", "exit 1")
    root.write("/etc/systemd/system/crio.service.d", "a file where a folder should be")
    done = root.run(host_script(proxy(**{"ca.crt": CA[0]})))
    assert done.returncode == 1
    assert "groundwork: cannot update the trusted certificates" in done.stderr
    assert "groundwork: cannot write /etc/systemd/system/crio.service.d/" in done.stderr
    assert unit_environment(drop_in(root, "kubelet")) == proxy().variables()
    assert BEGIN in root.read("/etc/environment")


VIP = KubeVip(image="registry.example/kube-vip:v0.8.9", address="10.0.0.9")


def mounted(root):
    """The kubeconfig that the pod reads."""
    (line,) = [
        line for line in root.read(MANIFEST_PATH).splitlines() if line.strip().startswith("path: /etc/kubernetes")
    ]
    return line.rpartition("/")[2]


def kubeadm(root, version="v1.33.4"):
    root.program("kubeadm", f"echo {version}")


@pytest.mark.parametrize(
    ("version", "next_", "kubeconfig"),
    [
        ("v1.33.4", "/run/kubeadm/kubeadm.yaml", "super-admin.conf"),
        ("v1.29.0-rc.1", "/run/kubeadm/kubeadm.yaml", "super-admin.conf"),
        ("v1.28.9", "/run/kubeadm/kubeadm.yaml", "admin.conf"),
        ("v1.33.4", "/run/kubeadm/kubeadm-join-config.yaml", "admin.conf"),
        ("v1.33.4", "/etc/kubeadm.sh", "super-admin.conf"),
    ],
)
def test_kube_vip_reads_super_admin_conf_only_where_init_of_a_new_kubeadm_is_next(root, version, next_, kubeconfig):
    kubeadm(root, version)
    root.write(next_, "kubeadm init --config /etc/kubeadm.yml\n")
    done = root.run(install_script(VIP))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted(root) == kubeconfig
    assert root.read(HOSTS_PATH).startswith("127.0.0.1 localhost kubernetes\n")
    assert {path for path in root.files() if path.startswith("/etc/kubernetes/")} == {MANIFEST_PATH}
    assert root.files()[MANIFEST_PATH][0] == "0o600"


def test_kube_vip_reads_admin_conf_again_at_the_next_boot(root):
    kubeadm(root)
    root.write("/run/kubeadm/kubeadm.yaml")
    root.run(install_script(VIP))
    assert mounted(root) == "super-admin.conf"
    root.write("/etc/kubernetes/admin.conf", "apiVersion: v1\n")
    wanted = root.path(f"/etc/systemd/system/multi-user.target.wants/{UNIT_NAME}").read_text()
    (command,) = [line for line in wanted.splitlines() if line.startswith("ExecStart=")]
    for _ in range(2):
        done = root.run(command.removeprefix("ExecStart="))
        assert (done.returncode, done.stderr) == (0, "")
        assert mounted(root) == "admin.conf"


def test_preparing_without_a_manifest_is_no_error(root):
    assert root.run(prepare_script()).returncode == 0
    assert not root.path(MANIFEST_PATH).exists()


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    "script",
    [host_script(proxy(**{"ca.crt": CA[0]})), install_script(VIP), prepare_script()],
    ids=["host", "vip", "prep"],
)
def test_shells_find_no_mistake_in_the_scripts(tmp_path, script, shell):
    path = tmp_path / "script"
    path.write_text(script)
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
