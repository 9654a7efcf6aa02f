import dataclasses
from typing import Annotated, ClassVar

import pytest

from services.runtime import main
from services.runtime import settings as module
from services.runtime.leader_decide import Timing
from services.runtime.settings import Address, Flag, Settings, SettingsError, WebhookSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OwnSettings(Settings):
    program: ClassVar[str] = "groundwork-own"

    cert_dir: Annotated[str | None, Flag("folder with tls.crt", module.text, "DIR")] = None
    quarantine: Annotated[int, Flag("seconds", module.whole(0, 3600), "SECONDS")] = 30
    zone: Annotated[tuple[str, ...], Flag("zones", module.text, "ZONE", repeatable=True)] = ("all",)
    strict: Annotated[bool, Flag("refuse what is odd", module.boolean)] = False


def parse(*arguments, kind=Settings, **environment):
    return kind.parse(arguments, environment)


def test_the_defaults_are_those_of_the_documentation():
    assert dataclasses.asdict(parse()) == {
        "kubeconfig": None,
        "watch_namespace": (),
        "leader_election": True,
        "lease_namespace": None,
        "lease_duration": 15.0,
        "renew_deadline": 10.0,
        "retry_period": 2.0,
        "bind_address": Address("0.0.0.0", 8080),
        "workers": 4,
        "log_level": "info",
        "log_format": "json",
        "uvloop": None,
    }


@pytest.mark.parametrize(
    ("arguments", "environment", "field", "value"),
    [
        (["--kubeconfig", "/a"], {}, "kubeconfig", "/a"),
        (["--kubeconfig=/a"], {}, "kubeconfig", "/a"),
        ([], {"KUBECONFIG": "/a"}, "kubeconfig", "/a"),
        (["--watch-namespace", "a", "--watch-namespace=b"], {}, "watch_namespace", ("a", "b")),
        (["--namespace=a", "--watch-namespace=b"], {}, "watch_namespace", ("a", "b")),
        (["--namespace=a", "--namespace=a"], {}, "watch_namespace", ("a",)),
        (["--namespace="], {}, "watch_namespace", ()),
        ([], {"WATCH_NAMESPACE": "a, b,,"}, "watch_namespace", ("a", "b")),
        (["--watch-namespace=c"], {"WATCH_NAMESPACE": "a,b"}, "watch_namespace", ("c",)),
        (["--no-leader-election"], {}, "leader_election", False),
        (["--leader-election"], {"LEADER_ELECTION": "false"}, "leader_election", True),
        (["--leader-elect"], {}, "leader_election", True),
        (["--leader-elect=false"], {}, "leader_election", False),
        (["--leader-elect=TRUE"], {}, "leader_election", True),
        (["--leader-elect", "--no-leader-election"], {}, "leader_election", False),
        ([], {"LEADER_ELECTION": "0"}, "leader_election", False),
        (["--lease-namespace", "kube-system"], {}, "lease_namespace", "kube-system"),
        (["--lease-duration", "1m30s"], {}, "lease_duration", 90.0),
        (["--leader-elect-renew-deadline=8s"], {}, "renew_deadline", 8.0),
        (["--leader-elect-retry-period", "500ms"], {}, "retry_period", 0.5),
        ([], {"LEASE_DURATION": "2.5"}, "lease_duration", 2.5),
        (["--lease-duration=1h0.5m"], {}, "lease_duration", 3630.0),
        (["--bind-address", "127.0.0.1:0"], {}, "bind_address", Address("127.0.0.1", 0)),
        (["--bind-address", ":9090"], {}, "bind_address", Address("", 9090)),
        (["--bind-address", "[::1]:9090"], {}, "bind_address", Address("::1", 9090)),
        (["--diagnostics-address=:8443"], {}, "bind_address", Address("", 8443)),
        (["--diagnostics-address=:8443", "--bind-address=:1"], {}, "bind_address", Address("", 1)),
        (["--insecure-diagnostics"], {}, "bind_address", Address("0.0.0.0", 8080)),
        (["--insecure-diagnostics=false"], {}, "bind_address", Address("0.0.0.0", 8080)),
        (["--workers", "16"], {"WORKERS": "2"}, "workers", 16),
        ([], {"WORKERS": "2"}, "workers", 2),
        ([], {"WORKERS": ""}, "workers", 4),
        (["--log-level=DEBUG"], {}, "log_level", "debug"),
        (["--v=2"], {}, "log_level", "info"),
        (["--v", "4"], {}, "log_level", "debug"),
        (["--v=5", "--log-level=error"], {}, "log_level", "error"),
        (["--v=0"], {"LOG_LEVEL": "warning"}, "log_level", "warning"),
        (["--log-format", "text"], {}, "log_format", "text"),
        (["--no-uvloop"], {}, "uvloop", False),
        ([], {"UVLOOP": "true"}, "uvloop", True),
    ],
)
def test_a_flag_wins_over_its_variable_and_the_variable_over_the_default(arguments, environment, field, value):
    settings = Settings.parse(arguments, {f"GROUNDWORK_{name}": text for name, text in environment.items()})
    assert getattr(settings, field) == value


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--workers", "many"], {}, "--workers: 'many' is not valid: expected a whole number from 1 to 1000"),
        (["--workers=0"], {}, "--workers: '0' is not valid: expected a whole number from 1 to 1000"),
        ([], {"WORKERS": "x"}, "GROUNDWORK_WORKERS: 'x' is not valid: expected a whole number from 1 to 1000"),
        (["--log-level", "loud"], {}, "--log-level: 'loud' is not valid: expected one of debug, info, warning, error"),
        (["--log-format=xml"], {}, "--log-format: 'xml' is not valid: expected one of json, text"),
        (["--bind-address", "8080"], {}, "--bind-address: '8080' is not valid: expected HOST:PORT"),
        (["--bind-address", "::1:80"], {}, "--bind-address: '::1:80' is not valid: expected HOST:PORT"),
        (["--bind-address", ":65536"], {}, "--bind-address: ':65536' is not valid: expected HOST:PORT"),
        (["--diagnostics-address", "x"], {}, "--diagnostics-address: 'x' is not valid: expected HOST:PORT"),
        (["--namespace", "Bad_Name"], {}, "--namespace: 'Bad_Name' is not valid: expected the name of a namespace"),
        ([], {"WATCH_NAMESPACE": "a,-b"}, "GROUNDWORK_WATCH_NAMESPACE: '-b' is not valid: expected the name"),
        (
            ["--lease-duration=15 s"],
            {},
            "--lease-duration: '15 s' is not valid: expected a duration above zero such as",
        ),
        (["--lease-duration=s"], {}, "--lease-duration: 's' is not valid: expected a duration"),
        (["--lease-duration="], {}, "--lease-duration: '' is not valid: expected a duration"),
        (["--lease-duration=10s5"], {}, "--lease-duration: '10s5' is not valid: expected a duration"),
        (["--retry-period=0s"], {}, "--retry-period: '0s' is not valid: expected a duration above zero"),
        (["--retry-period=-1s"], {}, "--retry-period: '-1s' is not valid: expected a duration above zero"),
        (["--leader-elect=maybe"], {}, "--leader-elect: 'maybe' is not valid: expected true or false"),
        ([], {"LEADER_ELECTION": "2"}, "GROUNDWORK_LEADER_ELECTION: '2' is not valid: expected true or false"),
        (["--kubeconfig="], {}, "--kubeconfig: '' is not valid: expected a text that is not empty"),
        (["--v=high"], {}, "--v: 'high' is not valid: expected a whole number from 0 to 10"),
        (["--insecure-diagnostics=x"], {}, "--insecure-diagnostics: 'x' is not valid: expected true or false"),
        (["--no-such-flag"], {}, "unrecognized arguments: --no-such-flag"),
        (["--work", "3"], {}, "unrecognized arguments: --work 3"),
        (["stray"], {}, "unrecognized arguments: stray"),
        (["--workers"], {}, "argument --workers: expected one argument"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_source_the_value_and_what_was_expected(arguments, environment, message):
    with pytest.raises(SettingsError) as caught:
        Settings.parse(arguments, {f"GROUNDWORK_{name}": text for name, text in environment.items()})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_variables_of_others_are_ignored():
    settings = parse(GROUNDWORK_IPAM_SERVICE_HOST="10.0.0.1", GROUNDWORK_PORT="tcp://10.0.0.1:80", WORKERS="9")
    assert settings == Settings()


def test_a_service_adds_flags_of_its_own():
    own = parse("--cert-dir=/certs", "--strict", "--zone=b", "--zone", "a", "--workers=2", kind=OwnSettings)
    assert (own.cert_dir, own.strict, own.zone, own.workers, own.quarantine) == ("/certs", True, ("b", "a"), 2, 30)
    assert parse(kind=OwnSettings, GROUNDWORK_QUARANTINE="7").quarantine == 7
    assert parse(kind=OwnSettings).zone == ("all",)


def test_help_lists_every_flag_with_its_aliases(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse("--help", kind=OwnSettings)
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: groundwork-own")
    for field in dataclasses.fields(OwnSettings):
        assert f"--{field.name.replace('_', '-')}" in text
    for alias in ("--namespace", "--leader-elect", "--diagnostics-address", "--insecure-diagnostics", "--v N"):
        assert alias in text


@pytest.mark.parametrize(
    ("address", "text"), [(Address("", 80), ":80"), (Address("::1", 80), "[::1]:80"), (Address("a", 0), "a:0")]
)
def test_an_address_prints_as_it_is_written(address, text):
    assert str(address) == text
    assert module.address.parse(text) == address


def test_times_of_the_election_under_which_two_could_lead_are_refused():
    assert main.timing(Settings()) == Timing()
    with pytest.raises(SettingsError, match="lease duration > renew deadline > retry period > 0, not 5 > 10 > 2"):
        main.timing(Settings(lease_duration=5.0))


def test_the_lease_lives_where_it_is_configured_else_where_the_pod_is_else_in_default(tmp_path):
    file = tmp_path / "namespace"
    assert main.lease_namespace(Settings(), file) == "default"
    file.write_text("groundwork-system\n")
    assert main.lease_namespace(Settings(), file) == "groundwork-system"
    assert main.lease_namespace(Settings(lease_namespace="own"), file) == "own"


def test_a_webhook_has_settings_of_its_own():
    found = WebhookSettings.parse(["--cert-name=Hook.NS.svc", "--cert-name=::0001", "--cert-secret=certs"], {})
    assert found.cert_name == ("hook.ns.svc", "::1")
    assert (str(found.webhook_address), found.processes, found.failure_answer) == ("0.0.0.0:9443", 1, "allow")
    assert (found.drain_seconds, found.max_body_bytes, found.cert_dir) == (8, 8 * 1024 * 1024, None)


def test_the_name_of_a_service_is_asked_for_as_such():
    with pytest.raises(SettingsError, match=r"--webhook-service: 'a\.b' .* expected the name of a Service"):
        WebhookSettings.parse(["--webhook-service=a.b"], {})


@pytest.mark.parametrize("name", ["a b", "a..b", "-a", "a_b", "ü.svc", "a." * 130, "1.2.3.4/24", "*"])
def test_what_no_certificate_can_be_for_is_refused(name):
    with pytest.raises(SettingsError, match="expected a DNS name or an IP address"):
        WebhookSettings.parse([f"--cert-name={name}"], {})
