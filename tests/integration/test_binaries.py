"""How a pinned program is found: the cache, its locks, and the archive that is believed only by its checksum."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from tools import binaries
from tools.sources import Archive, Unavailable, machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("GROUNDWORK_NO_DOWNLOAD", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "groundwork"


class Made:
    """A source that writes what it is told and counts how often it is asked."""

    def __init__(self, version="v1", content="#!/bin/sh\n", refusal=None):
        self.version, self.content, self.refusal, self.asked = version, content, refusal, 0

    def fetch(self, name, into):
        self.asked += 1
        if self.refusal:
            raise Unavailable(self.refusal)
        (into / name).write_text(self.content)
        (into / name).chmod(0o755)


def test_two_processes_that_want_one_binary_at_once_build_it_once(empty_cache, tmp_path):
    # The builder notes that it ran, says so, and goes on when it is told to.
    script = (
        "import sys\n"
        "from tools import binaries\n"
        "class Slow:\n"
        "    version = 'v1'\n"
        "    def fetch(self, name, into):\n"
        "        with open(sys.argv[1], 'a') as log:\n"
        "            log.write('built\\n')\n"
        "        print('building', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        (into / name).write_text('#!/bin/sh\\n')\n"
        "        (into / name).chmod(0o755)\n"
        "print(binaries.ensure('fake', table={'fake': (Slow(),)})['fake'], flush=True)\n"
    )
    log = tmp_path / "log"

    def launch():
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-c", script, str(log)], cwd=ROOT, text=True, **pipes)

    with launch() as first:
        assert first.stdout.readline() == "building\n"
        with launch() as second:
            assert "waiting for another process that makes fake v1" in second.stderr.readline()
            assert list(empty_cache.glob("fake/v1/fake")) == []  # nobody sees a binary that is not complete
            first.communicate("go on\n")
            answer, _ = second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert answer == f"{empty_cache}/fake/v1/fake\n"
    assert log.read_text() == "built\n"


def test_the_users_assets_come_before_the_cache_and_the_cache_before_every_source(empty_cache, tmp_path, monkeypatch):
    unwilling, willing = Made("archive", refusal="offline"), Made("built")
    table = {"fake": (unwilling, willing)}
    built = binaries.ensure("fake", table=table)["fake"]
    assert built == empty_cache / "fake" / "built" / "fake"
    assert binaries.ensure("fake", table=table)["fake"] == built
    assert (unwilling.asked, willing.asked) == (1, 1)
    own = tmp_path / "assets" / "fake"
    own.parent.mkdir()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(own.parent))
    assert binaries.ensure("fake", table=table)["fake"] == built  # the folder lacks it
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert binaries.ensure("fake", table=table)["fake"] == own


def test_a_binary_that_no_source_gives_is_an_error_that_says_what_each_of_them_said(empty_cache):
    table = {"fake": (Made("archive", refusal="offline"), Made("built", refusal="no compiler"))}
    with pytest.raises(binaries.BinaryError, match=r"archive: offline\n.*built: no compiler"):
        binaries.ensure("fake", table=table)
    assert list(empty_cache.glob(".partial-*")) == []


def test_a_folder_of_links_is_one_entry_for_a_path(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    for content in ("old", "new"):
        assets = tmp_path / content
        assets.mkdir()
        (assets / "kubectl").write_text(content)
        (assets / "kubectl").chmod(0o755)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
        folder = binaries.folder("kubectl", into=tmp_path / "bin")
        assert (folder / "kubectl").read_text() == content


@pytest.fixture
def website():
    """A server for one archive, with executables where the official one has them; counts its requests."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("etcd", "kubectl"):
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    body = content.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.digest = [], hashlib.sha512(body).hexdigest()
    server.url = f"http://127.0.0.1:{server.server_port}/{{machine}}.tar.gz"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_with_the_pinned_checksum_gives_all_its_programs_at_once(empty_cache, website):
    archive = Archive("v1", website.url, {machine(): website.digest})
    programs = binaries.ensure("etcd", "kubectl", table={"etcd": (archive,), "kubectl": (archive,)})
    assert {name: path.read_text() for name, path in programs.items()} == {"etcd": "etcd", "kubectl": "kubectl"}
    assert website.requests == [f"/{machine()}.tar.gz"]


def test_an_archive_with_another_checksum_is_not_used_and_the_next_source_is(empty_cache, website, capsys):
    archive = Archive("v1", website.url, {machine(): "0" * 128})
    built = Made("built", "from source")
    programs = binaries.ensure("etcd", "kubectl", table={"etcd": (archive, built), "kubectl": (archive, built)})
    assert [path.read_text() for path in programs.values()] == ["from source"] * 2
    assert len(website.requests) == 1  # what failed once in this process is not tried for the next program
    assert "not the pinned one" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["no route", "not wanted", "other machine"])
def test_an_archive_that_cannot_be_had_is_passed_over(empty_cache, website, reason, monkeypatch):
    url, digests = website.url, {machine(): website.digest}
    if reason == "no route":
        website.shutdown()
        website.server_close()
    elif reason == "not wanted":
        monkeypatch.setenv("GROUNDWORK_NO_DOWNLOAD", "1")
    else:
        digests = {"vax": website.digest}
    table = {"etcd": (Archive("v1", url, digests), Made("built", "from source"))}
    assert binaries.ensure("etcd", table=table)["etcd"].read_text() == "from source"
    assert website.requests == []


def test_every_pinned_archive_has_a_whole_sha512_for_each_machine():
    archives = [source for sources in binaries.TABLE.values() for source in sources if isinstance(source, Archive)]
    assert archives
    for archive in archives:
        assert {"amd64", "arm64"} <= set(archive.sha512)
        assert all(len(bytes.fromhex(digest)) == hashlib.sha512().digest_size for digest in archive.sha512.values())


def test_every_pinned_build_names_a_version_that_its_go_module_requires():
    builds = {name: source for name, sources in binaries.TABLE.items() for source in sources[-1:]}
    for name, build in builds.items():
        required = (ROOT / "tools" / build.module / "go.mod").read_text()
        if "require" not in required:
            continue  # a program of our own that needs nobody else's code
        assert build.version.partition("-")[0] in required, name
