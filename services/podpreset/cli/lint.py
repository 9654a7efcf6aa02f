"""What is wrong with presets and pods although the API server takes them, said before it costs an evening.

Responsible for: the rules, each with a name that can be ignored, and for lists the clients that an entry fails.
Invariants: no finding shows a value beyond entries of NO_PROXY, which are no secrets. What a rule says of a client is
what its model says (`services.proxyenv.clients`). The same input gives the same findings in the same order.
Must not know: files, the cluster, how findings are printed.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from services.podpreset import api
from services.podpreset.cli import redact
from services.podpreset.compiled import compile_preset, mount_path
from services.proxyenv import lists, names
from services.proxyenv.clients import Client, Verdict, bypasses
from services.proxyenv.javahosts import java_non_proxy_hosts
from services.proxyenv.probes import Form, Probe, crashed_by, missed_by, probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.podpreset.cli.workloads import Workload
    from services.podpreset.compiled import Preset
    from services.runtime.kube.objects import KubeObject

Json = dict[str, Any]

INSIDE = ("service.namespace.svc", "service.namespace.svc.cluster.local")
"""Names that pods call each other by; they are inside wherever the proxy is."""
OWN = ("localhost", "127.0.0.1")
# Directories and files that Go and OpenSSL look for roots in (crypto/x509 root_linux.go), and those above them.
_ROOTS = frozenset(
    {
        *("/etc", "/etc/ssl", "/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"),
        *("/etc/ssl/ca-bundle.pem", "/etc/pki", "/etc/pki/tls", "/etc/pki/tls/certs", "/etc/pki/tls/cacert.pem"),
        *("/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust", "/etc/pki/ca-trust/extracted"),
        *("/etc/pki/ca-trust/extracted/pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    }
)
_PROXIES = frozenset(names.LOWER) - {names.NO_PROXY}


class Severity(enum.StrEnum):
    """How bad it is. Notes alone do not count as something found."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """One thing to look at."""

    severity: Severity
    rule: str
    where: str
    """The object, and the variable or container in it."""
    message: str
    clients: tuple[str, ...] = ()
    """Clients that are concerned; none where it is not about clients."""


RULES = {
    "invalid": "the preset cannot be applied",
    "ineffective": "something in the preset has no effect, or another one than it seems",
    "unequal-cases": "the two spellings of a proxy variable have different values, and clients read one or the other",
    "one-case": "one spelling of a proxy variable only, which some clients do not read",
    "no-scheme": "a proxy without http:// before it",
    "credentials": "a password in a literal value",
    "hides-roots": "a mount over the image's own certificates",
    "inside-proxied": "requests inside the cluster, or to the pod itself, go to the proxy",
    "blank-inside": "entries separated by a blank, which only curl understands",
    "client-crash": "an entry that makes a client fail as soon as it is made",
    "star-beside": "* beside other entries, which only some clients understand",
    "not-a-host": "an entry that is neither a name, an address nor a network",
    "no-match": "an entry that some clients do not match with what it is for",
    "java": "Java reads no NO_PROXY, and not all entries mean the same to it",
}


class _Linter:
    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients
        self.found: list[Finding] = []

    def add(self, severity: Severity, rule: str, where: str, message: str, clients: Iterable[Client] = ()) -> None:
        finding = Finding(severity, rule, where, message, tuple(client.value for client in clients))
        if finding not in self.found:
            self.found.append(finding)


def lint(
    presets: Sequence[KubeObject], workloads: Sequence[Workload], clients: Sequence[Client] = tuple(Client)
) -> list[Finding]:
    """Findings about presets and pods as they are written, for programs with the given clients."""
    linter = _Linter(clients)
    compiled = [compile_preset(obj) for obj in presets]
    for preset in compiled:
        _lint_preset(linter, preset, compiled)
    for workload in workloads:
        _lint_pod(linter, workload, compiled)
    return linter.found


def lint_list(no_proxy: str, where: str, clients: Sequence[Client] = tuple(Client)) -> list[Finding]:
    """Findings about one NO_PROXY list."""
    linter = _Linter(clients)
    _lint_entries(linter, where, no_proxy)
    return linter.found


# -- lists ---------------------------------------------------------------------------------------------------------


def _lint_entries(linter: _Linter, where: str, no_proxy: str, *, as_is: bool = True) -> None:
    entries = lists.split(no_proxy)
    if as_is and lists.EVERYTHING in entries and len(entries) > 1:
        lost = [client for client in linter.clients if bypasses(client, no_proxy, "host.example") is not Verdict.DIRECT]
        if lost:
            message = "* beside other entries means nothing to some clients: give * alone"
            linter.add(Severity.WARNING, "star-beside", where, message, lost)
    told = [_lint_entry(linter, where, read) for read in map(probe, entries)]
    if not all(told):
        hosts = java_non_proxy_hosts(no_proxy).hosts
        message = f"Java reads no NO_PROXY: give it -Dhttp.nonProxyHosts='{hosts}'"
        linter.add(Severity.NOTE, "java", where, message, [Client.JAVA])


def _lint_entry(linter: _Linter, where: str, read: Probe) -> bool:
    """Tell of one entry; False when it fails Java alone, which is told once for the whole list."""
    entry = read.entry
    crashed = crashed_by(entry, linter.clients)
    if crashed:
        message = f"'{entry}' makes {_names(crashed)} raise in every process that has it in its environment"
        linter.add(Severity.ERROR, "client-crash", where, message, crashed)
    if read.form is Form.BLANK:
        parts = ",".join(entry.split())
        message = f"'{entry}' is one entry to all but curl: separate with commas, {parts}"
        others = [client for client in linter.clients if client is not Client.CURL]
        linter.add(Severity.ERROR, "blank-inside", where, message, others)
        return True
    if read.form is Form.UNKNOWN:
        message = f"'{entry}' is no host: a name, an address or a network is expected, without scheme or path"
        linter.add(Severity.WARNING, "not-a-host", where, message)
        return True
    missed = {client: verdict for client, verdict in missed_by(read, linter.clients).items() if client not in crashed}
    if list(missed) == [Client.JAVA]:
        return False
    if missed:
        message = f"'{entry}' does not match {read.host} for {_names(missed)}: {_advice(read)}"
        linter.add(Severity.WARNING, "no-match", where, message, missed)
    return True


def _names(clients: Iterable[Client]) -> str:
    return ", ".join(clients)


def _advice(read: Probe) -> str:
    if read.port is not None:
        return "leave the port out"
    if read.last_dot:
        return f"leave the dot at its end out, {read.entry.removesuffix('.')}"
    if read.form is Form.WILDCARD:
        return f"write {read.entry.removeprefix('*')}"
    if read.form is Form.BRACKETS:
        return f"write it without brackets, {read.host}"
    if read.form in {Form.GLOB, Form.PREFIX}:
        return "only some clients know networks, as a CIDR; list the addresses or names that matter"
    if read.form is Form.NETWORK:
        return "list the addresses or names in it that matter as well"
    return "list the names that matter as well"


# -- presets -------------------------------------------------------------------------------------------------------


def _lint_preset(linter: _Linter, preset: Preset, all_presets: Sequence[Preset]) -> None:
    where = str(preset.key)
    for problem in preset.problems:
        linter.add(Severity.ERROR, "invalid", where, problem)
    for note in preset.notes:
        linter.add(Severity.WARNING, "ineffective", where, note)
    literal = [(env.name, env.value or "") for env in preset.spec.env if env.value_from is None]
    _lint_variables(linter, where, literal, as_is=False)
    for mount in preset.spec.volume_mounts:
        _lint_mount(linter, where, mount)
    given = dict(literal)
    if any(names.family(name) in _PROXIES for name in given):
        known = [given.get(name, "") for name in given if names.is_no_proxy(name)]
        known += [_gives(other) for other in all_presets if _may_meet(preset, other)]
        _lint_inside(linter, where, ",".join(known), "noProxy.include")


def _gives(preset: Preset) -> str:
    """Return what a preset adds to NO_PROXY; entries that only a cluster can tell stand for nothing here."""
    written = [env.value or "" for env in preset.spec.env if names.is_no_proxy(env.name)]
    return ",".join([*written, *(name for name in preset.include if name.startswith("."))])


def _may_meet(one: Preset, other: Preset) -> bool:
    return one.key.namespace == other.key.namespace or api.CLUSTER_KIND in {one.key.kind, other.key.kind}


def _lint_inside(linter: _Linter, where: str, no_proxy: str, remedy: str) -> None:
    clients = [client for client in linter.clients if client is not Client.JAVA]
    for hosts, missing in ((INSIDE, ".svc,.cluster.local"), (OWN, "localhost,127.0.0.1")):
        lost = [
            client for client in clients if any(bypasses(client, no_proxy, host) is Verdict.PROXIED for host in hosts)
        ]
        if lost:
            how = f" or {remedy}" if hosts is INSIDE and remedy else ""
            message = f"requests to {hosts[0]} go to the proxy: add {missing} to NO_PROXY{how}"
            linter.add(Severity.WARNING, "inside-proxied", where, message, lost)


# -- variables -----------------------------------------------------------------------------------------------------


def _lint_variables(linter: _Linter, where: str, variables: Sequence[tuple[str, str]], *, as_is: bool = True) -> None:
    """Look at literal values. Those of a preset do not reach a pod as they are: its notes tell what becomes of them."""
    given = dict(variables)
    for name, value in variables:
        family, place = names.family(name), f"{where}: env {name}"
        if as_is and family is not None and name.isupper() and given.get(family, value) != value:
            message = f"{name} and {family} differ: Go reads the upper case first, curl and Python the lower"
            linter.add(Severity.ERROR, "unequal-cases", place, message)
        if family == names.NO_PROXY:
            if not (name.isupper() and given.get(family) == value):  # what both spellings say is told once
                _lint_entries(linter, place, value, as_is=as_is)
        elif family is not None and value and "://" not in value:
            message = "the proxy has no scheme: write http:// before it, not every client guesses it"
            linter.add(Severity.WARNING, "no-scheme", place, message)
        if redact.value(name, value) != value:
            message = "credentials are readable by everyone who may see pods: take the value from a Secret"
            linter.add(Severity.NOTE, "credentials", place, message)


def _lint_mount(linter: _Linter, where: str, mount: Mapping[str, Any]) -> None:
    path = mount_path(dict(mount))
    if path in _ROOTS:
        message = f"the mount at {path} covers the image's own roots: use caBundle, or a path of its own"
        linter.add(Severity.WARNING, "hides-roots", where, message)


# -- pods ----------------------------------------------------------------------------------------------------------


def _lint_pod(linter: _Linter, workload: Workload, presets: Sequence[Preset]) -> None:
    for container in containers(workload.pod):
        where = f"{workload}: container {container.get('name', '')}"
        env = [item for item in container.get("env") or () if isinstance(item, dict) and item.get("name")]
        literal = [(str(item["name"]), str(item.get("value") or "")) for item in env if not item.get("valueFrom")]
        _lint_variables(linter, where, literal)
        _lint_spellings(linter, where, {str(item["name"]) for item in env}, presets)
        for mount in container.get("volumeMounts") or ():
            _lint_mount(linter, where, mount)
        given = dict(literal)
        if any(names.family(name) in _PROXIES and value for name, value in literal):
            known = [value for name, value in given.items() if names.is_no_proxy(name)]
            _lint_inside(linter, where, ",".join([*known, *(_gives(preset) for preset in presets)]), "")


def _lint_spellings(linter: _Linter, where: str, given: set[str], presets: Sequence[Preset]) -> None:
    mirrored = {names.family(variable.name) for preset in presets for variable in preset.variables}
    for name in sorted(given):
        family = names.family(name)
        if family is None or family in mirrored:  # a preset that gives the variable makes both spellings equal
            continue
        other = family.upper() if name == family else family
        if other not in given:
            message = f"{name} without {other}: clients differ in which one they read"
            linter.add(Severity.WARNING, "one-case", f"{where}: env {name}", message)


def containers(pod: Json) -> Iterator[Json]:
    """Yield the containers of a pod, init containers and ephemeral ones included."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in (pod.get("spec") or {}).get(field) or ():
            if isinstance(container, dict):
                yield container
