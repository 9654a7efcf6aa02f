"""`python -m tools.sbom`: the bill of materials, in CycloneDX 1.6: what is in an image, or what the lock file names.

    python -m tools.sbom [--image FILE] [--out FILE]

Responsible for: listing the distribution, the Python packages and, with --image, the Debian packages, each with its
version and package URL, and with its licence where that is stated. Invariants: the same inputs give the same bytes,
with no time and no random number; a Python package of an image that is not in requirements.lock in that version is an
error. Must not know how images are built.

Sources: https://cyclonedx.org/docs/1.6, https://github.com/package-url/purl-spec (types pypi and deb).
"""

from __future__ import annotations

import argparse
import email.parser
import importlib.metadata
import sys
import tomllib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tools import paths
from tools.audit import licences, lock
from tools.image.contents import Contents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOCK = paths.ROOT / "requirements.lock"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://groundwork.dev/sbom")


class SbomError(RuntimeError):
    """The image holds what the lock file does not name."""


def of_lock(path: Path = LOCK) -> Bom:
    """Return the bill of materials of a lock file, on whatever Python and system it is installed."""
    return _bom([_python(pin.name, pin.version, _licence(pin)) for pin in lock.read(path)])


def of_image(image: Path, locked: Path = LOCK) -> Bom:
    """Return the bill of materials of an image's archive. Raises SbomError."""
    pins = {(pin.name, pin.version) for pin in lock.read(locked)}
    components: list[Component] = []
    with Contents(image) as contents:
        for metadata in _installed(contents):
            name, version = lock.normalised(metadata["Name"]), metadata["Version"]
            if name == "groundwork":
                continue
            if (name, version) not in pins:
                raise SbomError(f"{image} has {name} {version}, which {locked.name} does not name")
            components.append(_python(name, version, licences.stated(metadata)))
        components += _debian(contents)
    return _bom(components)


def rendered(bom: Bom) -> str:
    """Return the document as JSON, the same for the same materials."""
    bom.serial_number = uuid.uuid5(_NAMESPACE, "\n".join(sorted(str(part.purl) for part in bom.components)))
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n"


def _bom(components: Iterable[Component]) -> Bom:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    own = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        description=project["description"],
        licenses=[LicenseExpression(project["license"])],
        purl=PackageURL("pypi", name=project["name"], version=project["version"]),
        bom_ref=project["name"],
    )
    bom = Bom(components=components, metadata=BomMetaData(component=own))
    bom.metadata.timestamp = None  # type: ignore[assignment]  # optional in the format, and it would differ each time
    bom.register_dependency(own, bom.components)
    return bom


def _python(name: str, version: str, licence: str) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    stated = [LicenseExpression(licence)] if licence else []
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, licenses=stated, purl=purl, bom_ref=str(purl)
    )


def _licence(pin: lock.Pin) -> str:
    try:
        return licences.stated(importlib.metadata.metadata(pin.name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _installed(contents: Contents) -> list[email.message.Message]:
    parser = email.parser.Parser()
    found = [path for path, _ in contents.files() if path.endswith(".dist-info/METADATA")]
    return [parser.parsestr(contents.text(path), headersonly=True) for path in found]


def _debian(contents: Contents) -> list[Component]:
    parser = email.parser.Parser()
    release = _release(contents)
    components = []
    for text in _stanzas(contents):
        fields = parser.parsestr(text, headersonly=True)
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        qualifiers = {"arch": architecture, "distro": release}
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        components.append(
            Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl))
        )
    return components


def _stanzas(contents: Contents) -> list[str]:
    folder = "var/lib/dpkg/status.d/"
    if "var/lib/dpkg/status" in contents.entries:
        listed = contents.text("var/lib/dpkg/status").split("\n\n")
        return [stanza for stanza in listed if "\nStatus: install ok installed\n" in stanza]
    # Images without dpkg; md5sums lie beside the packages there.
    return [
        contents.text(path)
        for path, entry in contents.files()
        if path.startswith(folder) and entry.isreg() and not path.endswith(".md5sums")
    ]


def _release(contents: Contents) -> str:
    fields = dict(line.split("=", 1) for line in contents.text("usr/lib/os-release").splitlines() if "=" in line)
    return f"{fields['ID']}-{fields.get('VERSION_ID', 'unstable')}".replace('"', "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document; returns 0, or 1 when the image and the lock file disagree."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description="bill of materials, CycloneDX 1.6")
    parser.add_argument("--image", type=Path, help="archive of the image (default: only what requirements.lock names)")
    parser.add_argument("--out", type=Path, help="file to write (default: standard output)")
    given = parser.parse_args(arguments)
    try:
        text = rendered(of_image(given.image) if given.image else of_lock())
    except SbomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
