"""The command line of every service: flags, each with an environment variable, into one frozen dataclass.

Responsible for: the settings all services share (`Settings`), the way a service declares its own (a subclass whose
fields are annotated with a `Flag`), parsing, and the names that Cluster API deployments pass to a provider's container.

Invariants: a field `watch_namespace` is the flag `--watch-namespace` and the variable `GROUNDWORK_WATCH_NAMESPACE`; the
flag wins over the variable, the variable over the default. A repeatable flag is a comma list in its variable. A bad
value ends in one line that names where it came from, the value and what was expected: `SettingsError`, exit code 2.

Must not know: what any setting is used for.
"""

import argparse
import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, NoReturn, Self, TypeVar, get_args, get_type_hints

from services.runtime.flags import (
    Address,
    Flag,
    Parser,
    address,
    boolean,
    choice,
    duration,
    host,
    namespace,
    service,
    text,
    whole,
)

__all__ = [
    "Address",
    "Flag",
    "Parser",
    "Settings",
    "SettingsError",
    "WebhookSettings",
    "address",
    "boolean",
    "choice",
    "duration",
    "host",
    "namespace",
    "text",
    "version",
    "whole",
]

_PREFIX: Final = "GROUNDWORK_"
_DEBUG_VERBOSITY: Final = 4  # Kubernetes' logging conventions: V(4) is debug


class SettingsError(Exception):
    """A setting cannot be used; the text is the line to show. The process exits with code 2."""


_EVERYWHERE: Final = Address("0.0.0.0", 8080)  # noqa: S104 - probes and scrapes come from outside the pod


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every service can be told. A service subclasses this with fields of its own."""

    program: ClassVar[str] = "groundwork"
    """Name of the console script, for usage and messages; a subclass sets its own."""

    kubeconfig: Annotated[
        str | None,
        Flag("kubeconfig file (default: $KUBECONFIG, else the in-cluster configuration)", text, "PATH"),
    ] = None
    watch_namespace: Annotated[
        tuple[str, ...],
        Flag(
            "watch this namespace only; repeatable (default: all)", namespace, "NS", ("--namespace",), repeatable=True
        ),
    ] = ()
    leader_election: Annotated[
        bool,
        Flag("work only while holding the Lease, so that replicas can stand by", boolean, aliases=("--leader-elect",)),
    ] = True
    lease_namespace: Annotated[
        str | None, Flag("namespace of the Lease (default: the pod's own, else default)", namespace, "NS")
    ] = None
    lease_duration: Annotated[
        float,
        Flag("how long others wait for a silent holder", duration, "TIME", ("--leader-elect-lease-duration",)),
    ] = 15.0
    renew_deadline: Annotated[
        float,
        Flag("when a leader that cannot renew gives up", duration, "TIME", ("--leader-elect-renew-deadline",)),
    ] = 10.0
    retry_period: Annotated[
        float, Flag("between two tries to get or renew the Lease", duration, "TIME", ("--leader-elect-retry-period",))
    ] = 2.0
    bind_address: Annotated[
        Address,
        Flag("where /livez, /readyz and /metrics listen", address, "HOST:PORT", ("--diagnostics-address",)),
    ] = _EVERYWHERE
    workers: Annotated[int, Flag("concurrent reconciles per controller", whole(1, 1000), "N")] = 4
    log_level: Annotated[
        str, Flag("debug, info, warning or error", choice("debug", "info", "warning", "error"), "LEVEL")
    ] = "info"
    log_format: Annotated[str, Flag("json or text", choice("json", "text"), "FORMAT")] = "json"
    uvloop: Annotated[bool | None, Flag("run on uvloop (default: when it is installed)", boolean)] = None

    @classmethod
    def parse(cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings from the arguments, without the program's name, and the environment.

        Raises `SettingsError`. `--help` and `--version` print and raise SystemExit(0).
        """
        return _read(cls, arguments, os.environ if environment is None else environment)


_EVERY_WEBHOOK: Final = Address("0.0.0.0", 9443)  # noqa: S104 - the API server calls from outside the pod


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(Settings):
    """What a service with an admission webhook can be told as well."""

    webhook_address: Annotated[
        Address, Flag("where the API server reaches the webhook (TLS)", address, "HOST:PORT")
    ] = _EVERY_WEBHOOK
    cert_dir: Annotated[
        str | None, Flag("folder with tls.crt and tls.key, loaded again when they change", text, "DIR")
    ] = None
    cert_secret: Annotated[
        str | None,
        Flag("Secret in the Lease's namespace for certificates that the service makes and rotates", text, "NAME"),
    ] = None
    webhook_configuration: Annotated[
        str | None,
        Flag("MutatingWebhookConfiguration that is given the CA of --cert-secret as caBundle", text, "NAME"),
    ] = None
    webhook_service: Annotated[
        str | None, Flag("Service in front of the webhook, a name of its certificate", service, "NAME")
    ] = None
    cert_name: Annotated[
        tuple[str, ...],
        Flag("one more DNS name or IP address of the certificate; repeatable", host, "NAME", repeatable=True),
    ] = ()
    processes: Annotated[int, Flag("processes that share the webhook's port", whole(1, 64), "N")] = 1
    drain_seconds: Annotated[
        int, Flag("how long to go on answering after SIGTERM, until nobody sends any more", whole(0, 300), "SECONDS")
    ] = 8
    failure_answer: Annotated[
        str, Flag("what a review gets when its handler fails: allow or deny", choice("allow", "deny"), "ANSWER")
    ] = "allow"
    max_body_bytes: Annotated[int, Flag("largest review that is read", whole(1024, 1_073_741_824), "BYTES")] = 8_388_608


S = TypeVar("S", bound=Settings)


def _read(kind: type[S], arguments: Sequence[str], environment: Mapping[str, str]) -> S:
    flags = _flags(kind)
    given = vars(_command_line(kind, flags).parse_args(arguments))
    values: dict[str, Any] = {}
    for name, declared in flags.items():
        variable = _PREFIX + name.upper()
        if name in given:
            source, value = given[name]
            values[name] = _value(declared, source, value)
        elif environment.get(variable):  # Helm renders unset values as empty variables
            value = environment[variable]
            items = [item.strip() for item in value.split(",")] if declared.repeatable else value
            values[name] = _value(declared, variable, items)
    verbosity = given.get("v")
    if verbosity is not None:
        level = _value(Flag("", whole(0, 10), "N"), *verbosity)
        # Zero and the other low levels leave the level as it is: they mean "what everybody sees".
        if level >= _DEBUG_VERBOSITY and "log_level" not in given:
            values["log_level"] = "debug"
    if "insecure_diagnostics" in given:
        _value(Flag("", boolean, ""), *given["insecure_diagnostics"])
    return kind(**values)


def _flags(kind: type[Settings]) -> dict[str, Flag]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: next(item for item in get_args(hints[field.name]) if isinstance(item, Flag))
        for field in dataclasses.fields(kind)
    }


def _value(declared: Flag, source: str, value: str | Sequence[str]) -> Any:
    if isinstance(value, str):
        return _parsed(declared, source, value)
    # Cluster API's manifests pass `--namespace=` for "all namespaces".
    return tuple(dict.fromkeys(_parsed(declared, source, item) for item in value if item))


def _parsed(declared: Flag, source: str, value: str) -> Any:
    try:
        return declared.parser.parse(value)
    except ValueError:
        raise SettingsError(f"{source}: {value!r} is not valid: expected {declared.parser.expects}") from None


class _CommandLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage: one line must do."""
        raise SettingsError(message)


class _Keep(argparse.Action):
    """Keeps a value with the flag as it was written, so that a message names what the user typed; the last one wins."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's interface
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store what was written and the value."""
        setattr(namespace, self.dest, (option_string, self.const if self.nargs == 0 else values))


class _KeepAll(argparse.Action):
    """Keeps every value of a repeatable flag, in order."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's interface
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Append the value to those before it."""
        _, earlier = getattr(namespace, self.dest, (option_string, []))
        setattr(namespace, self.dest, (option_string, [*earlier, values]))


def _command_line(kind: type[Settings], flags: Mapping[str, Flag]) -> argparse.ArgumentParser:
    parser = _CommandLine(
        prog=kind.program,
        description=f"Each flag has an environment variable: --log-level is {_PREFIX}LOG_LEVEL.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    for name, declared in flags.items():
        names = (f"--{name.replace('_', '-')}", *declared.aliases)
        shown = declared.help.replace("%", "%%")
        if declared.parser is boolean:
            parser.add_argument(*names, dest=name, action=_Keep, nargs="?", const="true", metavar="BOOL", help=shown)
            parser.add_argument(f"--no-{names[0][2:]}", dest=name, action=_Keep, nargs=0, const="false")
        else:
            action = _KeepAll if declared.repeatable else _Keep
            parser.add_argument(*names, dest=name, action=action, metavar=declared.metavar, help=shown)
    foreign = parser.add_argument_group("accepted because Cluster API deployments pass them")
    foreign.add_argument("--v", dest="v", action=_Keep, metavar="N", help="verbosity; 4 and more means debug")
    foreign.add_argument(
        "--insecure-diagnostics",
        dest="insecure_diagnostics",
        action=_Keep,
        nargs="?",
        const="true",
        metavar="BOOL",
        help="no effect: diagnostics are plain HTTP without secrets",
    )
    return parser


def version() -> str:
    """Return the version of the installed distribution."""
    try:
        return importlib.metadata.version("groundwork")
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"
