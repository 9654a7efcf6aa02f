"""Keys and values: encodings, limits, metadata, user and vendor data, and what is told of them."""

from __future__ import annotations

import base64
import email
import json
import random

import pytest
import yaml

from services.machine_controller.guestinfo import encode, extraconfig, ignition, metadata, userdata, vendordata
from services.machine_controller.guestinfo.encode import MalformedError, TooLargeError
from services.machine_controller.guestinfo.network import NetworkConfig
from services.machine_controller.guestinfo.problems import InvalidError, Problem
from services.machine_controller.guestinfo.vendordata import Kind, Part

CONFIG = NetworkConfig(
    {"version": 2, "ethernets": {"id0": {"match": {"macaddress": "11:22:33:44:55:10"}}}}, True, False
)
SECRET = "hunter2-token"
NOISE = random.Random(1).randbytes(200_000)


def problems(call, *arguments, **options):
    with pytest.raises(InvalidError) as caught:
        call(*arguments, **options)
    return caught.value.problems


# -- encode --------------------------------------------------------------------------------------------------------


def test_a_value_is_base64_as_long_as_that_fits():
    assert encode.encoded("k", b"abc") == {"k": "YWJj", "k.encoding": "base64"}


def test_a_value_that_would_not_fit_is_compressed_always_to_the_same_text():
    value = b"a" * 100_000
    first, second = encode.encoded("k", value), encode.encoded("k", value)
    assert first == second
    assert first["k.encoding"] == "gzip+base64"
    assert encode.decoded("k", first) == value


def test_the_limit_is_on_the_encoded_text():
    room = encode.MAX_VALUE // 4 * 3
    assert encode.encoded("k", b"a" * room)["k.encoding"] == "base64"
    assert encode.encoded("k", b"a" * (room + 1))["k.encoding"] == "gzip+base64"
    assert encode.MAX_VALUE < 64 * 1024


def test_a_value_that_is_too_large_is_told_by_key_and_sizes_only():
    with pytest.raises(TooLargeError) as caught:
        encode.encoded("guestinfo.userdata", NOISE)
    error = caught.value
    assert (error.key, error.limit) == ("guestinfo.userdata", encode.MAX_VALUE)
    assert error.size > len(NOISE)
    assert str(error) == f"guestinfo.userdata: {error.size} characters, even compressed: at most {encode.MAX_VALUE}"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, None),
        ({"k": "---"}, None),
        ({"k": "", "k.encoding": ""}, None),
        ({"k": "plain"}, b"plain"),
        ({"k": "YWJj", "k.encoding": "b64"}, b"abc"),
    ],
)
def test_values_of_other_writers_are_read_too(values, found):
    assert encode.decoded("k", values) == found


@pytest.mark.parametrize(
    "values",
    [
        {"k": "a", "k.encoding": "base64"},
        {"k": "YWJj", "k.encoding": "gzip+base64"},
        {"k": "\x80", "k.encoding": "gzip+base64"},
    ],
)
def test_a_value_that_is_not_what_it_says_is_told_without_it(values):
    with pytest.raises(MalformedError) as caught:
        encode.decoded("k", values)
    assert str(caught.value) == f"k: not {values['k.encoding']}"


# -- metadata ------------------------------------------------------------------------------------------------------


def test_metadata_has_identity_both_host_names_and_what_to_wait_for():
    text = metadata.metadata("worker-0", CONFIG, instance_id="uid", redact=["vendordata", "userdata"]).decode()
    assert yaml.safe_load(text) == {
        "instance-id": "uid",
        "hostname": "worker-0",
        "local-hostname": "worker-0",
        "wait-on-network": {"ipv4": True, "ipv6": False},
        "network": CONFIG.config,
        "redact": ["userdata", "vendordata"],
    }
    # As images without cloud-init read it: grep, and the second word.
    assert "local-hostname: worker-0" in text.splitlines()


def test_metadata_without_redact_has_no_such_key():
    assert b"redact" not in metadata.metadata("a", CONFIG, instance_id="uid")


@pytest.mark.parametrize("name", ["", "a.example", "A", "-a", "a-", "a" * 64, "a_b", "a\n"])
def test_a_name_that_is_no_host_name_is_refused(name):
    (problem,) = problems(metadata.metadata, name, CONFIG, instance_id="uid")
    assert (problem.field, problem.value) == ("metadata.name", name)


def test_only_what_cloud_init_can_redact_is_redacted():
    found = problems(metadata.metadata, "a", CONFIG, instance_id="uid", redact=["metadata"])
    assert found == (Problem("redact", "metadata", "one of userdata, vendordata"),)


# -- user data and vendor data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "key"),
    [
        ("", "guestinfo.userdata"),
        ("cloud-config", "guestinfo.userdata"),
        ("ignition", "guestinfo.ignition.config.data"),
    ],
)
def test_bootstrap_data_goes_to_the_key_of_its_format_untouched(format_, key):
    value = b"\x1f\x8b any \xff bytes\n"
    data = userdata.UserData.read(value, format_)
    assert data.key == key
    assert encode.decoded(key, extraconfig.at_clone(data)) == value


@pytest.mark.parametrize(("value", "format_", "field"), [(b"x", "talos", "data.format"), (b"", "", "data.value")])
def test_bootstrap_data_that_no_image_reads_is_refused(value, format_, field):
    (problem,) = problems(userdata.UserData.read, value, format_)
    assert problem.field == field


def test_vendor_data_has_each_script_as_a_part_of_its_kind():
    parts = [
        Part(Kind.BOOTHOOK, "10-a.sh", "#!/bin/sh\necho a\n"),
        Part(Kind.SCRIPT, "20-b.sh", "#!/bin/sh\n# ünicode\n"),
    ]
    value = vendordata.vendordata(parts)
    assert value == vendordata.vendordata(parts)
    message = email.message_from_bytes(value)
    found = [
        (part.get_content_type(), part.get_filename(), part.get_payload(decode=True)) for part in message.get_payload()
    ]
    assert found == [
        ("text/cloud-boothook", "10-a.sh", b"#!/bin/sh\necho a\n"),
        ("text/x-shellscript", "20-b.sh", "#!/bin/sh\n# ünicode\n".encode()),
    ]
    assert b"echo a" in value, "what is plain stays readable"


def test_vendor_data_without_parts_is_no_vendor_data():
    assert vendordata.vendordata([]) == b""
    assert "guestinfo.vendordata" not in extraconfig.at_clone(userdata.UserData.read(b"x"), b"")


def test_two_parts_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two parts of one name"):
        vendordata.vendordata([Part(Kind.SCRIPT, "a", "1"), Part(Kind.SCRIPT, "a", "2")])


# -- extraConfig ---------------------------------------------------------------------------------------------------


def test_all_keys_are_ours_and_the_users_beside_them():
    first = extraconfig.at_clone(userdata.UserData.read(b"u"), b"v", {"disk.EnableUUID": "TRUE"})
    second = extraconfig.at_power_on(b"m", first)
    assert {**first, **second} == {
        "disk.EnableUUID": "TRUE",
        **encode.encoded("guestinfo.userdata", b"u"),
        **encode.encoded("guestinfo.vendordata", b"v"),
        **encode.encoded("guestinfo.metadata", b"m"),
    }


@pytest.mark.parametrize(
    "key",
    ["guestinfo.userdata", "guestinfo.vendordata.encoding", "guestinfo.ignition.config.data", "GuestInfo.Metadata"],
)
def test_a_users_key_that_is_ours_is_refused_and_not_dropped(key):
    (problem,) = problems(extraconfig.at_clone, userdata.UserData.read(b"u"), b"", {key: SECRET})
    assert problem.field == f"spec.customVMXKeys[{key}]"
    assert SECRET not in str(problem)


def test_all_keys_together_have_a_limit_too():
    many = {f"key{number}": "x" * 60_000 for number in range(18)}
    with pytest.raises(TooLargeError) as caught:
        extraconfig.at_clone(userdata.UserData.read(b"u"), b"", many)
    assert (caught.value.key, caught.value.limit) == ("extraConfig", 1024 * 1024)


def test_only_what_differs_is_written():
    wanted = extraconfig.at_clone(userdata.UserData.read(b"u"), b"v")
    assert dict(extraconfig.changes(wanted, {})) == dict(wanted)
    assert dict(extraconfig.changes(wanted, wanted)) == {}
    changed = {**wanted, "guestinfo.vendordata": "eA=="}
    assert dict(extraconfig.changes(wanted, changed)) == {"guestinfo.vendordata": wanted["guestinfo.vendordata"]}


def test_what_a_vm_has_redacted_counts_as_written_until_it_has_to_be_read_again():
    wanted = extraconfig.at_clone(userdata.UserData.read(b"u"), b"v")
    observed = {**wanted, "guestinfo.userdata": "---", "guestinfo.userdata.encoding": ""}
    assert extraconfig.redacted(observed) == ["guestinfo.userdata"]
    assert dict(extraconfig.changes(wanted, observed)) == {}
    assert dict(extraconfig.changes(wanted, observed, rewrite_redacted=True)) == encode.encoded(
        "guestinfo.userdata", b"u"
    )


# -- Ignition ------------------------------------------------------------------------------------------------------

FILES = [ignition.File("/opt/a.sh", SECRET, 0o700)]
UNITS = [
    ignition.Unit("a.service", "[Unit]\n", enabled=True),
    ignition.Unit("b.service", drop_ins=(ignition.DropIn("x.conf", SECRET),)),
]


def decoded_source(part):
    return base64.b64decode(part["source"].removeprefix("data:;base64,"))


@pytest.mark.parametrize(
    ("version", "key", "place"), [("2.3.0", "append", "filesystem"), ("3.4.0", "merge", "overwrite")]
)
def test_bootstrap_data_is_inside_as_it_came_and_ours_beside_it(version, key, place):
    bootstrap = f' {{"ignition": {{"version": "{version}"}},  "storage": {{}}}}\n'.encode()
    whole = json.loads(ignition.with_parts(bootstrap, FILES, UNITS))
    assert whole["ignition"]["version"] == version
    theirs, ours = whole["ignition"]["config"][key]
    assert decoded_source(theirs) == bootstrap
    config = json.loads(decoded_source(ours))
    assert config["ignition"] == {"version": version}
    (file,) = config["storage"]["files"]
    assert (file["path"], file["mode"], decoded_source(file["contents"])) == ("/opt/a.sh", 0o700, SECRET.encode())
    assert place in file
    assert config["systemd"]["units"] == [
        {"name": "a.service", "contents": "[Unit]\n", "enabled": True},
        {"name": "b.service", "dropins": [{"name": "x.conf", "contents": SECRET}]},
    ]


def test_bootstrap_data_with_nothing_to_add_stays_itself():
    assert ignition.with_parts(b"anything", [], []) == b"anything"


@pytest.mark.parametrize(
    "bootstrap", [b"#cloud-config", b"{}", b'{"ignition": {"version": "1.0"}}', b"[]", b'{"ignition": {"version": 3}}']
)
def test_data_that_is_no_ignition_config_is_refused(bootstrap):
    (problem,) = problems(ignition.with_parts, bootstrap, FILES, UNITS)
    assert problem.expected == "an Ignition config of version 2 or 3"


# -- secrets -------------------------------------------------------------------------------------------------------


def test_nothing_that_may_be_secret_is_in_a_repr():
    data = userdata.UserData.read(SECRET.encode())
    part = Part(Kind.SCRIPT, "a.sh", SECRET)
    config = extraconfig.at_clone(data, vendordata.vendordata([part]), {"key": SECRET})
    encoded = base64.b64encode(SECRET.encode()).decode().rstrip("=")
    for value in (data, part, config, *FILES, *UNITS):
        assert SECRET not in f"{value!r} {value} {[value]}"
        assert encoded not in f"{value!r} {value} {[value]}"
    assert repr(config).startswith("ExtraConfig(key: 13, guestinfo.userdata: ")
