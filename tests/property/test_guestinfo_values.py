"""Any bytes: they come back from the keys, or are told to be too large; and no secret is ever in a text of ours."""

from __future__ import annotations

import base64
import gzip
import logging
import shlex
import subprocess
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.machine_controller import hostscript
from services.machine_controller.guestinfo import encode, extraconfig
from services.machine_controller.guestinfo.encode import TooLargeError
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.guestinfo.userdata import UserData
from services.machine_controller.guestinfo.vendordata import Kind, Part, vendordata
from services.machine_controller.hostproxy import HostProxy

LIMIT = 256


@given(st.binary(min_size=1, max_size=100) | st.binary(min_size=1, max_size=20).map(lambda part: part * 500))
def test_any_value_that_fits_comes_back(value):
    keys = encode.encoded("k", value, limit=LIMIT)
    assert len(keys["k"]) <= LIMIT
    assert encode.decoded("k", keys) == value


@given(st.binary(max_size=2_000))
def test_a_value_is_refused_only_when_it_does_not_fit_even_compressed(value):
    compressed = len(base64.b64encode(gzip.compress(value, 9, mtime=0)))
    plain = len(base64.b64encode(value))
    limit = min(plain, compressed)
    assert len(encode.encoded("k", value, limit=limit)["k"]) == limit
    with pytest.raises(TooLargeError) as caught:
        encode.encoded("k", value, limit=limit - 1)
    assert caught.value.size == compressed


PASSWORDS = st.text(st.characters(min_codepoint=33, blacklist_categories=["Cs", "Cc"]), min_size=8, max_size=20)


@given(PASSWORDS)
def test_no_password_is_in_what_is_logged_or_raised(password):
    hidden = f"hunter2{password}hunter2"
    proxy = HostProxy.read({"httpProxy": f"http://user:{hidden}@proxy.example:3128"})
    part = Part(Kind.BOOTHOOK, "host.sh", hostscript.host_script(proxy))
    data = UserData.read(hidden.encode())
    config = extraconfig.at_clone(data, vendordata([part]), {"key": hidden})
    record = logging.LogRecord("a", logging.INFO, "p", 1, "%s %r %s", (proxy, part, [data, config]), None)
    assert "hunter2" not in record.getMessage()
    for broken in (f"ftp://user:{hidden}@proxy", f"http://user:{hidden}@pro xy", f"http://{hidden}@"):
        with pytest.raises(InvalidError) as caught:
            HostProxy.read({"httpsProxy": broken})
        assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.problems}"


@given(st.lists(PASSWORDS.filter(lambda text: "%" not in text), min_size=1, max_size=20))
def test_a_shell_and_a_url_reader_both_get_the_password_as_it_was(passwords):
    urls = [HostProxy.read({"httpProxy": f"http://user:{password}@proxy:1"}).http for password in passwords]
    assert [unquote(urlsplit(url).password) for url in urls] == passwords
    # As in /etc/environment: not quoted at all, and yet one word that is what it was.
    script = "\n".join(f"V={url}; printf '%s\\n' \"$V\"" for url in urls)
    read = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert read.stdout.splitlines() == urls
    assert all(shlex.split(url) == [url] for url in urls)
