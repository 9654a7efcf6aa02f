"""Which variables are proxy variables."""

import pytest

from services.proxyenv import names


@pytest.mark.parametrize(
    ("name", "family", "spelled"),
    [
        ("HTTP_PROXY", "http_proxy", ("HTTP_PROXY", "http_proxy")),
        ("http_proxy", "http_proxy", ("HTTP_PROXY", "http_proxy")),
        ("NO_PROXY", "no_proxy", ("NO_PROXY", "no_proxy")),
        ("all_proxy", "all_proxy", ("ALL_PROXY", "all_proxy")),
        ("Http_Proxy", None, ("Http_Proxy",)),
        ("KUBE_PROXY", None, ("KUBE_PROXY",)),
        ("HTTP_PROXY_HOST", None, ("HTTP_PROXY_HOST",)),
        ("PATH", None, ("PATH",)),
    ],
)
def test_a_proxy_variable_has_two_spellings_and_any_other_one(name, family, spelled):
    assert names.family(name) == family
    assert names.spellings(name) == spelled


def test_where_letter_case_does_not_count_there_is_one_spelling():
    assert names.spellings("http_proxy", ignore_case=True) == ("HTTP_PROXY",)
    assert names.spellings("Path", ignore_case=True) == ("Path",)


@pytest.mark.parametrize(
    ("name", "it_is"), [("NO_PROXY", True), ("no_proxy", True), ("No_Proxy", False), ("HTTP_PROXY", False)]
)
def test_no_proxy_is_the_one_that_holds_a_list(name, it_is):
    assert names.is_no_proxy(name) == it_is
