"""What the container image is made of, as far as that shows without building it, which tests/e2e/test_image.py does."""

import io
import json
import re
import tarfile
import tomllib

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools import paths, sbom
from tools.image import build, debian, rootfs, storage, wheels
from tools.image.__main__ import main
from tools.image.contents import Contents
from tools.image.deb import Deb

DOCKERFILE = build.DOCKERFILE.read_text()
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
SERVICES = ("ipam", "podpreset", "capv-integrator", "machine-controller")


def instructions():
    """The Dockerfile as (instruction, rest) pairs, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def last(name):
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def test_every_stage_starts_from_a_build_argument_or_from_nothing():
    arguments = {rest.split("=")[0]: rest.partition("=")[2] for name, rest in instructions() if name == "ARG"}
    stages = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert stages == ["scratch", "${BUILDER}", "${BASE}"]
    for name in ("BUILDER", "BASE"):
        registry = arguments[name].split("/")[0]
        assert registry in {"docker.io", "gcr.io"}, "a public registry, so that the file works as it is"
        assert "@" not in arguments[name]


def test_the_image_runs_as_the_user_that_the_chart_names():
    values = yaml.safe_load((paths.ROOT / "deploy" / "chart" / "values.yaml").read_text())
    user, group = last("USER").split(":")
    assert int(user) == values["podSecurityContext"]["runAsUser"] == rootfs.USER
    assert int(group) == values["podSecurityContext"]["runAsGroup"]


def test_the_image_starts_the_command_line_and_has_every_service():
    (entry,) = json.loads(last("ENTRYPOINT"))
    assert entry in PROJECT["scripts"]
    assert {f"groundwork-{service}" for service in SERVICES} < set(PROJECT["scripts"])
    imported = set(re.findall(r"services\.(\w+)\.service", last("RUN")))
    assert imported == {service.replace("-", "_") for service in SERVICES}


def test_the_services_modules_that_the_chart_runs_are_in_the_image():
    templates = "\n".join(path.read_text() for path in (paths.ROOT / "deploy/chart/templates").rglob("*.yaml"))
    modules = set(re.findall(r"\bservices(?:\.\w+)+", templates))
    assert modules
    for module in modules:
        path = paths.ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_pip_installs_only_wheels_of_the_locks_with_their_hashes():
    calls = re.findall(r"/tmp/pip/bin/pip[^&\n]*", "\n".join(rest for name, rest in instructions() if name == "RUN"))
    assert len(calls) == 4
    for call in calls:
        from_lock = "--require-hashes" in call and "--only-binary :all:" in call and "-r " in call
        own = "--no-deps" in call and ("--no-index" in call or "--no-build-isolation" in call)
        assert from_lock or own, call
    assert set(re.findall(r"-r (\S+)", DOCKERFILE)) == {"build-requirements.lock", "requirements.lock"}


def test_nothing_of_the_builder_but_the_installed_packages_is_copied():
    copies = [rest for name, rest in instructions() if name == "COPY"]
    assert [copy for copy in copies if "--from" in copy] == ["--from=build /opt/groundwork /opt/groundwork"]
    assert not [name for name, _ in instructions() if name == "ADD"]


def test_all_that_is_copied_is_let_through_and_nothing_else_is_sent():
    ignore = build.DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert "*" in ignore
    assert copied == allowed
    for path in copied:
        assert (paths.ROOT / path).exists()


def blocks(path):
    """The pins of a lock with their hashes, by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return {block.split("==")[0]: block for block in re.split(r"(?m)^(?=\w)", text) if block}


def test_what_builds_the_distribution_is_pinned_as_in_the_lock_for_developers():
    ours, developers = blocks(build.LOCKS[0]), blocks(paths.ROOT / "requirements-dev.lock")
    assert "hatchling" in ours
    assert ours == {name: developers[name] for name in ours}


def test_the_licence_label_is_the_projects():
    assert f'org.opencontainers.image.licenses="{PROJECT["license"]}"' in last("LABEL")
    assert PROJECT["description"] in last("LABEL")


def test_conditions_are_taken_from_the_lock_before_wheels_are_fetched():
    lock = (
        "# from: a ; b\n"
        "one==1 ; python_full_version < '3.13' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via x\n"
        "two==2 \\\n    --hash=sha256:22\n"
    )
    assert wheels.without_markers(lock) == (
        "# from: a ; b\n"
        "one==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via x\n"
        "two==2 \\\n    --hash=sha256:22\n"
    )


def member(name, kind=tarfile.REGTYPE, mode=0o644, link="", content=b""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size, entry.uid, entry.mtime = (
        kind,
        mode,
        link,
        len(content),
        1000,
        99,
    )
    return entry, content


def tar(*members, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def deb(folder, name, *members):
    """A Debian package as dpkg-deb would write it."""
    control = (
        f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: all\nDescription: a package\n with a long one\n".encode()
    )
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar(member("./control", content=control), mode="w:xz"),
        "data.tar.xz": tar(*members, mode="w:xz"),
    }
    path = folder / f"{name}_2.0-1_all.deb"
    with path.open("wb") as out:
        out.write(b"!<arch>\n")
        for part, data in parts.items():
            out.write(f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
            out.write(data + b"\n" * (len(data) % 2))
    return path


@pytest.fixture
def layer(tmp_path):
    """The layer of two packages, as headers by path, and the texts of its files."""
    first = deb(
        tmp_path,
        "first",
        member("./", tarfile.DIRTYPE, 0o755),
        member("./lib/", tarfile.DIRTYPE, 0o755),
        member("./lib/x.so.1", content=b"library"),
        member("./usr/lib/x.so", tarfile.SYMTYPE, 0o777, "x.so.1"),
        member("./usr/bin/su", mode=0o4777, content=b"program"),
        member("./usr/bin/su2", tarfile.LNKTYPE, 0o4777, "./usr/bin/su"),
        member("./usr/share/man/man1/su.1.gz", content=b"manual"),
        member("./usr/share/doc/first/copyright", content=b"licence"),
        member("./usr/share/doc/first/changelog.gz", content=b"changes"),
        member("./var/empty/", tarfile.DIRTYPE, 0o1777),
    )
    second = deb(
        tmp_path,
        "second",
        member("./usr/share/ca-certificates/mozilla/b.crt", content=b"B\n"),
        member("./usr/share/ca-certificates/mozilla/a.crt", content=b"A"),
        member("./usr/bin/su", content=b"another"),
    )
    target = tmp_path / "layer.tar"
    names = rootfs.write([first, second], target, links={"usr/bin/sh": "su"}, programs={"usr/bin/hi": "#!/bin/sh\n"})
    assert names == ["first 1:2.0-1", "second 1:2.0-1"]
    again = tmp_path / "again.tar"
    rootfs.write([first, second], again, links={"usr/bin/sh": "su"}, programs={"usr/bin/hi": "#!/bin/sh\n"})
    assert target.read_bytes() == again.read_bytes(), "the same packages make the same bytes"
    with tarfile.open(target) as archive:
        texts = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}
        return {entry.name: entry for entry in archive}, texts


def test_a_layer_has_the_files_of_its_packages_below_one_usr(layer):
    entries, texts = layer
    assert entries["lib"].linkname == "usr/lib"
    assert texts["usr/lib/x.so.1"] == b"library"
    assert entries["usr/lib/x.so"].linkname == "x.so.1"
    assert texts["usr/bin/su"] == b"program", "who comes first keeps the path"
    assert entries["usr/bin/su2"].linkname == "usr/bin/su"
    assert entries["usr/bin/sh"].linkname == "su"
    assert entries["usr/bin/hi"].mode == 0o755


def test_a_layer_has_no_setuid_file_and_nothing_to_write_to_but_tmp(layer):
    entries, _ = layer
    assert [name for name, entry in entries.items() if entry.mode & 0o6000] == []
    writable = [name for name, entry in entries.items() if entry.mode & 0o022 and not entry.issym()]
    assert writable == ["tmp"]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, rootfs.EPOCH)}


def test_a_layer_lists_its_packages_and_keeps_their_licences_alone(layer):
    _, texts = layer
    assert texts["var/lib/dpkg/status.d/first"].startswith(b"Package: first\n")
    assert texts["usr/share/doc/first/copyright"] == b"licence"
    assert not [name for name in texts if "man1" in name or "changelog" in name or "ca-certificates/" in name]


def test_a_layer_has_certificates_a_user_and_every_folder_before_what_is_in_it(layer):
    entries, texts = layer
    assert texts["etc/ssl/certs/ca-certificates.crt"] == b"A\nB\n"
    assert b"nonroot:x:65532:65532:" in texts["etc/passwd"]
    order = {name: at for at, name in enumerate(entries)}
    for name in entries:
        folder = name.rpartition("/")[0]
        assert not folder or order[folder] < order[name]


@pytest.mark.parametrize("content", [b"", b"no archive", b"!<arch>\n"])
def test_what_is_no_package_is_refused(tmp_path, content):
    path = tmp_path / "x.deb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no Debian package"):
        Deb(path)


def test_a_field_that_a_package_has_not_is_an_error(tmp_path):
    package = Deb(deb(tmp_path, "first"))
    assert package["Version"] == "1:2.0-1"
    with pytest.raises(KeyError):
        package["Homepage"]


def image(folder, *layers, config=None):
    """An archive as `docker save` writes it."""
    names = [f"{number}/layer.tar" for number, _ in enumerate(layers)]
    manifest = [{"Config": "config.json", "RepoTags": ["example:1"], "Layers": names}]
    files = {"config.json": json.dumps(config or {}).encode(), **dict(zip(names, layers, strict=True))}
    files["manifest.json"] = json.dumps(manifest).encode()
    path = folder / "image.tar"
    path.write_bytes(tar(*(member(name, content=content) for name, content in files.items())))
    return path


def test_later_layers_replace_and_hide_what_is_below_them(tmp_path):
    below = tar(
        member("a/", tarfile.DIRTYPE),
        member("a/kept", content=b"1"),
        member("a/gone", content=b"1"),
        member("b/old", content=b"1"),
        member("c/deep/file", content=b"1"),
    )
    above = tar(
        member("a/.wh.gone"),
        member("a/kept", content=b"2"),
        member("b/new", content=b"2"),
        member("b/.wh..wh..opq"),
        member(".wh.c"),
    )
    with Contents(image(tmp_path, below, above, config={"os": "linux"})) as contents:
        assert contents.names == ["example:1"]
        assert contents.config == {"os": "linux"}
        assert [path for path, _ in contents.files()] == ["a", "a/kept", "b/new"]
        assert contents.text("a/kept") == "2"
        assert ("a/gone", b"1") in list(contents.layers()), "what is hidden is still shipped"
        with pytest.raises(KeyError):
            contents.text("a/gone")


def installed(name, version, licence="MIT"):
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: {licence}\n\nName: none\n"
    return member(
        f"opt/groundwork/lib/python3.13/site-packages/{name}-{version}.dist-info/METADATA", content=text.encode()
    )


RELEASE = member("usr/lib/os-release", content=b'ID=debian\nVERSION_ID="13"\nNAME="x=y"\n')


def bill(document):
    """The package URLs of a document, after its check against the schema of CycloneDX."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    return [component["purl"] for component in json.loads(document)["components"]]


def test_the_bill_of_a_lock_is_valid_and_lists_every_package():
    document = sbom.rendered(sbom.of_lock())
    pins = [block.split()[0].replace("==", "@") for block in blocks(sbom.LOCK).values()]
    assert sorted(bill(document)) == sorted(f"pkg:pypi/{pin}" for pin in pins)
    own = json.loads(document)["metadata"]["component"]
    assert (own["name"], own["version"]) == (PROJECT["name"], PROJECT["version"])
    assert sbom.rendered(sbom.of_lock()) == document, "the same materials make the same bytes"


def test_a_schema_that_is_not_met_is_noticed():
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str('{"bomFormat": "CycloneDX"}') is not None


@pytest.mark.parametrize(
    "packages",
    [
        [member("var/lib/dpkg/status.d/libc6", content=b"Package: libc6\nVersion: 1:2-3+b1\nArchitecture: amd64\n")],
        [
            member(
                "var/lib/dpkg/status",
                content=(
                    b"Package: libc6\nStatus: install ok installed\nVersion: 1:2-3+b1\nArchitecture: amd64\n\n"
                    b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
                ),
            )
        ],
    ],
)
def test_the_bill_of_an_image_lists_what_is_in_it(tmp_path, packages):
    locked = tmp_path / "some.lock"
    locked.write_text("good-lib==1.2\nelsewhere==3 ; os_name == 'x'\n")
    archive = image(tmp_path, tar(RELEASE, installed("groundwork", "0.1.0"), installed("Good_Lib", "1.2"), *packages))
    document = sbom.rendered(sbom.of_image(archive, locked))
    assert bill(document) == ["pkg:pypi/good-lib@1.2", "pkg:deb/debian/libc6@1:2-3%2Bb1?arch=amd64&distro=debian-13"]
    listed = {component["name"]: component.get("licenses") for component in json.loads(document)["components"]}
    assert listed == {"libc6": None, "good-lib": [{"expression": "MIT"}]}


def test_the_bill_is_refused_when_the_image_has_what_the_lock_does_not_name(tmp_path, capsys):
    archive = image(tmp_path, tar(RELEASE, installed("goodlib", "1.3")))
    assert sbom.main(["--image", str(archive), "--out", str(tmp_path / "sbom.json")]) == 1
    assert "goodlib 1.3, which requirements.lock does not name" in capsys.readouterr().err
    assert not (tmp_path / "sbom.json").exists()


def test_the_bill_is_written_where_it_is_wanted(tmp_path, capsys):
    target = tmp_path / "out" / "sbom.json"
    assert sbom.main(["--out", str(target)]) == 0
    assert sbom.main([]) == 0
    assert capsys.readouterr().out == target.read_text()


def test_who_cannot_build_is_told_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["build", "--out", str(tmp_path / "x.tar")]) == 1
    assert "install it (apt-get install buildah)" in capsys.readouterr().err
    with pytest.raises(debian.PackageError, match="no apt-get here"):
        debian.Apt.of("trixie")


def test_who_is_not_root_is_told_so_before_anything_is_made(tmp_path, monkeypatch):
    program = tmp_path / "buildah"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(storage.BuildError, match="run it as root"):
        storage.Storage.own()
    assert not (tmp_path / "cache").exists()


def test_what_buildah_says_is_in_the_error(tmp_path, monkeypatch):
    program = tmp_path / "buildah"
    program.write_text("#!/bin/sh\necho no such image >&2\nexit 125\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(storage.BuildError, match="buildah from: no such image"):
        storage.Storage(tmp_path).run("from", "x")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["https://x.test/linux/debian X Ltd.", "http://m.test/debian Debian"], "http://m.test/debian"),
        (["https://x.test/linux/debian X Ltd.", "http://m.test/debian "], "http://m.test/debian"),
        (["http://m.test/debian $(ORIGIN)"], "http://m.test/debian"),
        (["https://x.test/linux/debian X Ltd."], "http://deb.debian.org/debian/"),
    ],
)
def test_another_s_repository_is_no_mirror_of_debian(tmp_path, monkeypatch, lines, expected):
    program = tmp_path / "apt-get"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.mirrors() == (expected, "http://deb.debian.org/debian-security/")


def test_without_a_mirror_of_its_own_debians_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.mirrors() == ("http://deb.debian.org/debian/", "http://deb.debian.org/debian-security/")
