"""What may follow on a command line: subcommands, flags, choices, or the names of something.

Responsible for: walking argparse's tree along the words that are there already.
Invariants: nothing is parsed or run, so an incomplete or a wrong line is no error; what the parser would refuse is not
offered a second time (a flag that is given once, the other one of an exclusive group).
Must not know: shells, where names come from.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from services.console import COMPLETER

if TYPE_CHECKING:
    from collections.abc import Sequence


class Word(NamedTuple):
    """One word that may follow, and what it is."""

    text: str
    description: str = ""


class Answer(NamedTuple):
    """Words that may follow, and the kind of names that may (`services.access`), "" for none."""

    words: tuple[Word, ...] = ()
    names: str = ""
    prefix: str = ""
    """What stands before a name in the word that is being written: `--namespace=`."""


def complete(parser: argparse.ArgumentParser, given: Sequence[str], current: str) -> Answer:
    """Answer for the word `current`, which is being written after the words `given`."""
    state = _State(parser)
    for word in given:
        state.take(word)
    if state.expected is not None:
        return _values(state.expected, current)
    flag, equals, value = current.partition("=")
    if equals and flag in state.flags:
        answer = _values(state.flags[flag], value)
        words = tuple(Word(f"{flag}={word.text}", word.description) for word in answer.words)
        return Answer(words, answer.names, f"{flag}=")
    if current.startswith("-"):
        return Answer(_matching(state.open_flags(), current))
    return Answer(_matching(state.commands(), current))


class _State:
    """Where in the tree the words so far have led."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._enter(parser)

    def _enter(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self.flags = {name: action for action in parser._actions for name in action.option_strings}  # noqa: SLF001 - argparse has no public way to read a parser
        self._subparsers = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)  # noqa: SLF001 - as above
        self._seen: set[argparse.Action] = set()
        self._positionals = 0
        self.expected: argparse.Action | None = None
        """The flag whose value comes next."""

    def take(self, word: str) -> None:
        """Go on over one word that is complete."""
        if self.expected is not None:
            self.expected = None
        elif word.startswith("-"):
            name, equals, _ = word.partition("=")
            action = self.flags.get(name)
            if action is not None:
                self._seen.add(action)
                self.expected = action if action.nargs != 0 and not equals else None
        elif self._subparsers is not None and word in self._subparsers.choices:
            self._enter(self._subparsers.choices[word])
        else:
            self._positionals += 1

    def open_flags(self) -> list[Word]:
        """Flags that may still be given, long ones first since they say more."""
        closed = {a for a in self._seen if not isinstance(a, argparse._AppendAction)}  # noqa: SLF001 - as above
        for group in self._parser._mutually_exclusive_groups:  # noqa: SLF001 - as above
            chosen = self._seen.intersection(group._group_actions)  # noqa: SLF001 - as above
            closed.update(a for a in group._group_actions if chosen and a not in chosen)  # noqa: SLF001 - as above
        names = sorted(self.flags, key=lambda name: (not name.startswith("--"), name))
        return [Word(name, _summary(self.flags[name])) for name in names if self.flags[name] not in closed]

    def commands(self) -> list[Word]:
        """Subcommands, in the order of the help."""
        if self._subparsers is None:
            actions = [action for action in self._parser._actions if not action.option_strings]  # noqa: SLF001 - as above
            # One that takes any number of words is the last.
            following = actions[min(self._positionals, len(actions) - 1) :] if actions else []
            if not following or (self._positionals >= len(actions) and following[0].nargs not in {"*", "+"}):
                return []
            return list(_values(following[0], "").words)
        return [Word(each.dest, each.help or "") for each in self._subparsers._choices_actions]  # noqa: SLF001 - as above


def _values(action: argparse.Action, current: str) -> Answer:
    if action.choices is not None:
        return Answer(_matching([Word(str(choice)) for choice in action.choices], current))
    return Answer((), getattr(action, COMPLETER, ""))


def _matching(words: Sequence[Word], current: str) -> tuple[Word, ...]:
    return tuple(word for word in words if word.text.startswith(current))


def _summary(action: argparse.Action) -> str:
    text = action.help or ""
    return " ".join((text % {"default": action.default} if "%(default)s" in text else text).split())
