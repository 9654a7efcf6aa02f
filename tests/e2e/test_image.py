"""The image as it is built: what is in it, what is not, and that it runs as the chart runs it.

Needs root, and Debian's packages and wheels from where this machine gets them; no cluster.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tomllib
import urllib.parse
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools import paths, sbom
from tools.audit import lock
from tools.image import build, debian, rootfs
from tools.image.contents import Contents
from tools.image.storage import Storage

USER = str(rootfs.USER)
SERVICES = ("ipam", "podpreset", "capv_integrator", "machine_controller")
# Debian's image has 51 MB, Python's packages 100 MB; what is much larger has something in it by mistake.
MAX_MB = 220
# Root is read-only, /tmp is empty, and there is no way to more rights, as in the chart's pods.
_ENTER = """
set -e
inside=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift
enter="$(command -v setpriv) --no-new-privs $(command -v chroot)"
PATH=$inside
exec $enter --userspec=USER:USER --groups= "$root" "$@"
""".replace("USER", USER)


@pytest.fixture(scope="module")
def contents(archives):
    with Contents(archives["build"]) as opened:
        yield opened


class Container:
    """A mounted image; `run` starts something in it."""

    def __init__(self, root, config):
        self._root = root
        self.config = config
        self._environment = dict(line.split("=", 1) for line in config["Env"])

    def run(self, *command):
        """Run a program as the image's user, with nothing but its environment; returns the finished process."""
        enter = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", _ENTER, "enter"]
        return subprocess.run(
            [*enter, self._root, *command],
            env=self._environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def python(self, program):
        done = self.run("python", "-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def mounted(archive):
    """The image of an archive as a container, until the generator is closed."""
    with Contents(archive) as opened:
        (name,), config = opened.names, opened.config["config"]
    storage = Storage.own()
    container = storage.run("from", "--pull-never", name)
    try:
        yield Container(storage.run("mount", container), config)
    finally:
        storage.run("rm", container)


@pytest.fixture(scope="module")
def container(archives):
    yield from mounted(archives["build"])


@pytest.fixture(scope="module")
def client(archives):
    yield from mounted(archives["client"])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_as_the_charts_user_on_a_read_only_root(container, service):
    script = f"groundwork-{service.replace('_', '-')}"
    for command, said in (
        (["python", "-m", f"services.{service}", "--version"], f"{script} {build.version()}\n"),
        ([script, "--help"], f"usage: {script} "),
    ):
        done = container.run(*command)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(said)


def test_a_service_that_is_started_gets_as_far_as_looking_for_its_cluster(container):
    # Loads all that it needs, and says in one line that it is in no cluster.
    done = container.run("python", "-m", "services.ipam")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_command_the_image_explains_the_command_line(container):
    done = container.run(*container.config["Entrypoint"], *container.config["Cmd"])
    assert done.returncode == 0
    assert done.stdout.startswith("usage: groundwork ")
    assert container.config["User"] == f"{USER}:{USER}"


def test_every_script_of_the_distribution_is_on_the_path_and_no_other(container, contents):
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    folder = "opt/groundwork/bin/"
    found = {path.removeprefix(folder) for path, _ in contents.files() if path.startswith(folder)}
    assert {name for name in found if not name.startswith("python")} == set(project["scripts"])
    assert container.config["Env"][0].startswith(f"PATH=/{folder.rstrip('/')}:")


def test_nothing_can_be_written_but_below_tmp(container):
    program = (
        "import os, pathlib\n"
        "for folder, _, files in os.walk('/'):\n"
        "    if folder.split('/')[1] in ('proc', 'dev', 'sys', 'tmp'): continue\n"
        "    for path in [folder, *(os.path.join(folder, name) for name in files)]:\n"
        "        if not os.path.islink(path) and os.access(path, os.W_OK): print(path)\n"
        "pathlib.Path('/tmp/x').write_text('x')\n"
        "print(os.getuid(), os.getgid(), os.getgroups())"
    )
    assert container.python(program) == f"{USER} {USER} []"


def test_no_file_is_setuid_or_writable_and_root_owns_all(contents):
    wrong = [
        path
        for path, entry in contents.files()
        if entry.mode & 0o6000 or entry.uid or entry.gid or (entry.mode & 0o022 and not entry.issym() and path != "tmp")
    ]
    assert wrong == []


def test_there_is_no_shell_compiler_package_manager_or_network_client(contents):
    programs = {Path(path).name for path, entry in contents.files() if not entry.isdir() and entry.mode & 0o111}
    unwanted = {"sh", "bash", "dash", "busybox", "gcc", "cc", "ld", "make", "apt", "apt-get", "dpkg", "perl"}
    unwanted |= {"pip", "pip3", "curl", "wget", "openssl", "su", "mount", "tar", "nc"}
    assert programs & unwanted == set()
    assert "python3.13" in programs, "the look at the programs sees programs"
    packages = {
        path
        for path in contents.entries
        if re.search(r"/(pip|setuptools|wheel|ensurepip|hatchling)(-[\d.]+|/|$)", path)
    }
    assert packages == set()


def test_every_module_was_compiled_so_that_no_start_has_to(contents):
    modules = [path for path in contents.entries if path.startswith("opt/groundwork/lib/") and path.endswith(".py")]
    assert len(modules) > 1000
    missing = []
    for path in modules:
        folder, _, name = path.rpartition("/")
        if f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc" not in contents.entries:
            missing.append(path)
    assert missing == []
    # Unchecked hashes (PEP 552): a time would differ in each build, and nobody can change the sources.
    compiled = contents.data("opt/groundwork/lib/python3.13/site-packages/services/__pycache__/cli.cpython-313.pyc")
    assert int.from_bytes(compiled[4:8], "little") == 0b01


def test_the_image_trusts_the_usual_authorities_and_no_other(container, contents):
    bundle = contents.text("etc/ssl/certs/ca-certificates.crt")
    named = bundle.count("BEGIN CERTIFICATE")
    assert named > 100
    loaded = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(container.python(loaded)) == named
    for authority in ssl.create_default_context(cadata=bundle).get_ca_certs():
        assert authority["issuer"] == authority["subject"], "only roots"


def secrets_of_this_machine():
    """What would tell where an image was built: addresses and passwords of pip, apt and proxies, names and folders."""
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    texts = [pip.stdout, *debian.mirrors()]
    texts += [
        value for name, value in os.environ.items() if re.search(r"proxy|^PIP_|INDEX_URL|_TOKEN$", name, re.IGNORECASE)
    ]
    found = {socket.gethostname(), str(paths.ROOT), str(paths.cache()), str(Path.home() / ".cache")}
    for address in re.findall(r"\w+://[^\s'\",]+", " ".join(texts)):
        split = urllib.parse.urlsplit(address)
        found |= {split.hostname, split.username, split.password} - {None, ""}
    public = re.compile(r"localhost|127\.|::1|(.*\.)?(debian\.org|pypi\.org|pythonhosted\.org)$")
    return {text.encode() for text in found if len(text) > 3 and not public.match(text)}


def test_what_an_image_must_not_tell_is_known(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://somebody:passphrase@proxy.inside.example:3128")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://packages.inside.example/simple")
    found = secrets_of_this_machine()
    assert {b"somebody", b"passphrase", b"proxy.inside.example", b"packages.inside.example"} <= found


def test_no_layer_tells_where_it_was_built(contents):
    secrets = secrets_of_this_machine()
    assert secrets, "a machine has at least folders"
    told = {path: secret for path, data in contents.layers() for secret in secrets if secret in data}
    config = json.dumps(contents.config).encode()
    assert told == {}
    assert [secret for secret in secrets if secret in config] == []
    assert not [line for line in contents.config["config"]["Env"] if re.match(r"(?i)pip_|.*_proxy", line)]
    forgotten = [
        path for path in contents.entries if re.search(r"pip\.conf$|\.netrc$|sources\.list|apt\.conf|\.cache/", path)
    ]
    assert forgotten == []


def test_the_image_is_small(archives, steps):
    size = {name: archive.stat().st_size / 1e6 for name, archive in archives.items()}
    steps.say(f"image: {size['build']:.0f} MB, client: {size['client']:.0f} MB")
    assert size["build"] < MAX_MB
    assert size["client"] < 5


def test_the_bill_of_materials_lists_what_is_in_the_image(archives, contents):
    document = sbom.rendered(sbom.of_image(archives["build"]))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    components = {(part["purl"].split("/")[0], part["name"]) for part in json.loads(document)["components"]}
    # A package that only an older Python needs is locked, but not in the image.
    pins = lock.read(sbom.LOCK)
    assert {name for kind, name in components if kind == "pkg:pypi"} == {pin.name for pin in pins} - {
        "typing-extensions"
    }
    debians = {name for kind, name in components if kind == "pkg:deb"}
    assert {"libc6", "python3.13", "libssl3t64", "ca-certificates"} < debians
    assert debians & {"dpkg", "perl-base", "openssl", "dash", "python3-venv"} == set()
    assert sbom.rendered(sbom.of_image(archives["build"])) == document


def test_labels_say_what_it_is_and_of_which_commit(contents):
    labels = contents.config["config"]["Labels"]
    kind = "org.opencontainers.image"
    assert labels[f"{kind}.title"] == "groundwork"
    assert labels[f"{kind}.version"] == build.version()
    assert labels[f"{kind}.licenses"] == "Apache-2.0"
    revision = labels[f"{kind}.revision"].removesuffix("-dirty")
    known = subprocess.run(
        ["git", "cat-file", "-t", revision], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert revision == "unknown" or known.stdout == "commit\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels[f"{kind}.created"])


def test_the_clients_image_shows_its_environment_and_waits(client):
    shown = client.run("sh", "-c", "NO_PROXY='a b' exec printenv NO_PROXY PATH")
    assert shown.stdout == "a b\n/usr/bin:/usr/sbin\n"
    assert client.run("printenv", "NOT_SET").returncode == 1
    shell, flag, program = client.config["Cmd"]
    ended = client.run(shell, flag, f"( {program} ) & child=$!; sleep 1; kill -0 $child && kill $child && wait $child")
    assert (ended.returncode, ended.stderr) == (0, "")
