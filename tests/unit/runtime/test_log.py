import asyncio
import enum
import io
import json
import logging
import warnings

import msgspec
import pytest

from services.runtime import log
from services.runtime.kube.objects import KubeObject, ObjectKey, ObjectMeta


class Colour(enum.Enum):
    RED = "red"


class Hostile:
    def __str__(self):
        return 'two\nlines \x1b[31m"quoted"'


def logged_value(value, format_="json"):
    root = logging.getLogger()
    handlers, root.handlers = root.handlers[:], []
    buffer = io.StringIO()
    try:
        log.configure("info", format_, buffer)
        log.get("t").info("Message", field=value)
    finally:
        root.handlers = handlers
        logging.captureWarnings(capture=False)
    return buffer.getvalue()


def test_a_record_is_one_json_object_with_the_keys_of_controller_runtime(logged):
    log.get("ipam.allocator").info("Allocated an address", address="10.0.0.4", pool=ObjectKey("prod", "a"), tries=2)
    (record,) = logged()
    stamp = record.pop("ts")
    assert record == {
        "level": "info",
        "logger": "ipam.allocator",
        "msg": "Allocated an address",
        "address": "10.0.0.4",
        "pool": "prod/a",
        "tries": 2,
    }
    assert next(iter(record)) == "level"
    assert len(stamp) == len("2026-01-01T00:00:00.000Z")
    assert (stamp[10], stamp[19], stamp[-1]) == ("T", ".", "Z")


@pytest.mark.parametrize("created", [0.0, 0.9996, 1767225599.9999, 1767225600.001])
def test_the_fraction_of_a_timestamp_belongs_to_its_second(created):
    record = logging.makeLogRecord({"created": created, "levelname": "INFO", "name": "t", "msg": "m"})
    stamp = json.loads(log.JSONFormatter().format(record))["ts"]
    seconds, milliseconds = int(created), int(created * 1000) % 1000
    assert stamp.endswith(f":{seconds % 60:02d}.{milliseconds:03d}Z")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (ObjectKey("ns", "name"), "ns/name"),
        (ObjectKey("", "name"), "name"),
        (Colour.RED, "red"),
        (("a", 1), ["a", 1]),
        ({"b"}, ["b"]),
        ({"a": {"b": Colour.RED}}, {"a": {"b": "red"}}),
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (b"secret", "<6 bytes>"),
        (msgspec.Raw(b'{"a":1}'), "<7 bytes>"),
        (2**70, 2**70),
        ("\ud800", "\ud800"),
        (float("inf"), None),
    ],
)
def test_a_value_is_shown_as_plain_json(value, shown):
    assert json.loads(logged_value(value))["field"] == shown


def test_a_kubernetes_object_is_logged_by_kind_and_name_and_never_with_its_content():
    secret = KubeObject(
        kind="Secret",
        metadata=ObjectMeta(namespace="ns", name="tls", annotations={"a": "hunter2"}),
        spec=msgspec.Raw(b'"hunter2"'),
    )
    for format_ in ("json", "text"):
        line = logged_value(secret, format_)
        assert "Secret ns/tls" in line
        assert "hunter2" not in line
        assert "hunter2" not in logged_value([secret, {"nested": secret}], format_)


@pytest.mark.parametrize("name", ["password", "token", "bearer_token", "Authorization", "db-password", "private_key"])
def test_a_field_that_is_named_like_a_credential_is_redacted(logged, name):
    log.get("t").info("Connected", **{name: "hunter2"}, nested={name: "hunter2"})
    (record,) = logged()
    assert record[name] == "[redacted]"
    assert record["nested"] == {name: "[redacted]"}


def test_a_field_cannot_replace_what_every_record_has(logged):
    log.get("t").info("Message", msg="forged", level="forged", logger="forged", ts="forged")
    (record,) = logged()
    assert (record["msg"], record["level"], record["logger"]) == ("Message", "info", "t")
    assert record["ts"] != "forged"


@pytest.mark.parametrize("format_", ["json", "text"])
@pytest.mark.parametrize("value", [Hostile(), "a\nb", "a\r\nb", "a\u2028b", "\x1b]0;title\x07", ["a\nb"], {"k\n": "v"}])
def test_a_record_is_one_line_whatever_its_values_hold(value, format_):
    line = logged_value(value, format_)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert "\x1b" not in line
    if format_ == "text":
        assert len(line.splitlines()) == 1


def test_a_long_value_is_cut():
    shown = json.loads(logged_value("x" * 100_000))["field"]
    assert shown.startswith("xxx")
    assert shown.endswith("(100000 characters)")
    assert len(shown) < 5000


def test_text_is_for_people():
    line = logged_value("two words", "text")
    assert line.rstrip().endswith('INFO    t: Message field="two words"')
    assert logged_value("plain", "text").rstrip().endswith("field=plain")
    assert logged_value("", "text").rstrip().endswith('field=""')


def test_the_traceback_of_the_exception_being_handled_is_logged(logged):
    def fail():
        raise KeyError("lost")

    try:
        fail()
    except KeyError as error:
        log.get("t").exception("Failed", error=error)
        log.get("t").error("Failed", error=error)
    with_traceback, without = logged()
    assert "in fail" in with_traceback["stacktrace"]
    assert with_traceback["error"] == without["error"] == "KeyError: 'lost'"
    assert "stacktrace" not in without


def test_fields_that_are_bound_follow_the_task_and_those_started_from_it(logged):
    async def child():
        log.get("t").info("Child")

    async def main():
        with log.bound(a=1):
            with log.bound(b=2, a=3):
                await asyncio.create_task(child())
            log.get("t").info("Outer", a="own")
        log.get("t").info("Outside")

    asyncio.run(main())
    shown = [{name: record[name] for name in ("msg", "a", "b") if name in record} for record in logged()]
    assert shown == [{"msg": "Child", "a": 3, "b": 2}, {"msg": "Outer", "a": "own"}, {"msg": "Outside"}]


def test_levels_below_the_configured_one_cost_no_formatting(logged):
    class Expensive:
        def __str__(self):
            raise AssertionError("formatted although nobody sees it")

    logging.getLogger().setLevel("WARNING")
    log.get("t").info("Hidden", field=Expensive())
    assert not log.get("t").enabled(logging.INFO)
    assert logged() == []


def test_records_of_libraries_have_the_same_form_and_their_chatter_is_left_out(logged):
    logging.getLogger("aiohttp.client").warning("Unclosed %s", "session")
    logging.getLogger("aiohttp.client").info("chatter")
    logging.getLogger("kubernetes_asyncio.client.rest").debug("response body: hunter2")
    (record,) = logged()
    assert (record["logger"], record["msg"]) == ("aiohttp.client", "Unclosed session")


def test_warnings_of_python_become_records(logged):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (record,) = logged()
    assert record["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in record["msg"]
