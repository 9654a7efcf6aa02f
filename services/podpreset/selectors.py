"""Label selectors, and globs for names of containers, made into functions once.

Responsible for: selecting exactly as Kubernetes does, and telling of a selector that Kubernetes would refuse.
Invariants: an empty or absent selector selects everything; one with a problem selects nothing; a function made here
never fails, whatever labels it is given.
Source: apimachinery meta/v1 LabelSelectorAsSelector and labels.NewRequirement; API concepts "Labels and Selectors".
Must not know: presets, pods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.podpreset.api import LabelSelector, Requirement

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_PREFIX_LENGTH = 253
CONTAINER_NAME_LENGTH = 63
"""Characters of a container's name; that of a pod under review has not been looked at yet."""
_OPERATORS = "In, NotIn, Exists or DoesNotExist"


class Selector(NamedTuple):
    """A compiled selector. With problems, one sentence each, it selects nothing."""

    match: Match
    problems: tuple[str, ...] = ()


def everything(_labels: Labels) -> bool:
    """Select everything."""
    return True


def nothing(_labels: Labels) -> bool:
    """Select nothing."""
    return False


def compile_selector(selector: LabelSelector | None, where: str) -> Selector:
    """Compile a selector; `where` is its place in the object, for problems: `spec.selector`."""
    if selector is None:
        return Selector(everything)
    problems: list[str] = []
    tests: list[Match] = []
    for key, value in (selector.match_labels or {}).items():
        problems += _key_problems(key, f"{where}.matchLabels")
        problems += _value_problems(value, f"{where}.matchLabels[{key}]")
    if selector.match_labels:
        tests.append(_equal(tuple(selector.match_labels.items())))
    for at, requirement in enumerate(selector.match_expressions or ()):
        place = f"{where}.matchExpressions[{at}]"
        problems += _key_problems(requirement.key, f"{place}.key")
        test = _compile_requirement(requirement, place, problems)
        if test is not None:
            tests.append(test)
    if problems:
        return Selector(nothing, tuple(problems))
    return Selector(_all_of(tests))


def _all_of(tests: list[Match]) -> Match:
    if not tests:
        return everything
    if len(tests) == 1:
        return tests[0]
    return lambda labels: all(test(labels) for test in tests)


def _equal(pairs: tuple[tuple[str, str], ...]) -> Match:
    if len(pairs) == 1:
        ((key, value),) = pairs
        return lambda labels: labels.get(key) == value
    wanted = frozenset(pairs)
    return lambda labels: wanted <= labels.items()


def _compile_requirement(requirement: Requirement, where: str, problems: list[str]) -> Match | None:
    key, operator = requirement.key, requirement.operator
    values = frozenset(requirement.values or ())
    for value in requirement.values or ():
        problems += _value_problems(value, f"{where}.values")
    if operator in {"In", "NotIn"} and not values:
        problems.append(f"{where}.values: empty, expected at least one for {operator}")
    if operator in {"Exists", "DoesNotExist"} and values:
        problems.append(f"{where}.values: {sorted(values)}, expected none for {operator}")
    if operator == "In":
        return lambda labels: labels.get(key) in values
    if operator == "NotIn":
        return lambda labels: labels.get(key) not in values
    if operator == "Exists":
        return lambda labels: key in labels
    if operator == "DoesNotExist":
        return lambda labels: key not in labels
    problems.append(f"{where}.operator: '{operator}', expected {_OPERATORS}")
    return None


def is_object_name(text: str) -> bool:
    """Tell whether an object such as a ConfigMap can have this name (a DNS subdomain)."""
    return len(text) <= _PREFIX_LENGTH and _PREFIX.fullmatch(text) is not None


def _key_problems(key: str, where: str) -> list[str]:
    prefix, slash, name = key.rpartition("/")
    good = _NAME.fullmatch(name) and (not slash or (len(prefix) <= _PREFIX_LENGTH and _PREFIX.fullmatch(prefix)))
    return [] if good else [f"{where}: '{key}', expected a label key"]


def _value_problems(value: str, where: str) -> list[str]:
    return [] if not value or _NAME.fullmatch(value) else [f"{where}: '{value}', expected a label value"]


# -- containers ----------------------------------------------------------------------------------------------------


def compile_globs(globs: Iterable[str]) -> Callable[[str], bool] | None:
    """Compile globs, of which one has to match a whole name; None for no globs, which any name matches.

    `*` stands for any characters and `?` for one, all others for themselves. No glob matches a name that is too long
    for a container: such a pod is refused after its review.
    """
    patterns = [_pattern(glob) for glob in globs]
    if not patterns:
        return None
    fullmatch = re.compile("|".join(patterns), re.DOTALL).fullmatch
    return lambda name: len(name) <= CONTAINER_NAME_LENGTH and fullmatch(name) is not None


def _pattern(glob: str) -> str:
    """Return a glob as a regular expression that takes no time to fail.

    What stands between two `*` is taken where it is found first, once and for all (an atomic group): if the rest does
    not match behind that place, it does not behind a later one. Trying all of them takes years for a few more `*`.
    """
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not rest:
        return first
    *between, last = rest
    return "".join([first, *[f"(?>.*?{part})" for part in between if part], f".*{last}"])
