"""How answers look: tables for people, plain data for programs, unified diffs.

Responsible for: columns, and the field names of the JSON and YAML output.
Invariants: the same answers give the same text. Whatever holds values goes through `Show`, which hides credentials
unless the user wants them.
Must not know: where answers come from.
"""

from __future__ import annotations

import difflib
import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from services import output
from services.podpreset.cli import redact
from services.podpreset.cli.workloads import TEMPLATED
from services.podpreset.explain import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.podpreset.cli.lint import Finding
    from services.podpreset.cli.stale import StaleRow
    from services.podpreset.cli.whatif import Admitted, Passed
    from services.podpreset.explain import Row
    from services.proxyenv.clients import Client, Verdict

Json = dict[str, Any]


class Show(NamedTuple):
    """What may be shown of values."""

    credentials: bool = False

    def value(self, name: str, text: str) -> str:
        """Return the value of a variable as it is shown."""
        return text if self.credentials else redact.value(name, text)

    def pod(self, data: Any) -> Any:
        """Return a pod, or a part of one, as it is shown."""
        return data if self.credentials else redact.pod(data)

    def any(self, name: str, value: Any) -> str:
        """Return one cell for a string or an object."""
        if isinstance(value, str):
            return self.value(name, value)
        return json.dumps(self.pod(value), separators=(",", ":"), sort_keys=True)


# -- explain -------------------------------------------------------------------------------------------------------

_EXPLAINED = ("CONTAINER", "KIND", "NAME", "RESULT", "VALUE", "FROM")
_SAME = (" ",) * 4


def explained(admitted: Admitted, passed: Sequence[Passed], show: Show) -> str:
    """Lines about one pod: what became of it, which presets it gets and does not get, then everything it gets.

    A value has a line for each who gave a part of it, and then one for each preset of which nothing is in it.
    """
    decision = admitted.decision
    reason = f" ({decision.skip})" if decision.skip is not None else ""
    lines = [f"{admitted.workload}: {decision.outcome}{reason}"]
    lines += [f"  {decision.message}"] if decision.message else []
    lines += [f"  gets {key}" for key in decision.applied]
    lines += [f"  passes over {item.preset}: {item.reason}" for item in passed]
    lines += [f"  warning: {text}" for text in decision.warnings]
    cells = [cells for row in admitted.rows for cells in _explained_row(row, show)]
    return "".join(f"{line}\n" for line in lines) + (output.table(_EXPLAINED, cells) if cells else "")


def _explained_row(row: Row, show: Show) -> Iterator[Sequence[str]]:
    actions = {str(step.preset): step.action for step in row.steps}
    groups = [
        (giver, ",".join(item for item, _ in items))
        for giver, items in itertools.groupby(row.givers, key=lambda pair: pair[1])
    ]
    if len(groups) > 1:
        parts = [(show.value(row.name, text), giver) for giver, text in groups]
    else:
        parts = [(show.any(row.name, row.value), giver) for giver, _ in groups]
    if row.fate is Fate.MIRRORED:
        parts, actions = [(show.any(row.name, row.value), "the other letter case")], {}
    parts += [("", preset) for preset in actions if preset not in {giver for giver, _ in groups}]
    first: Sequence[str] = (row.container, row.kind, row.name, row.fate)
    for text, giver in parts:
        yield (*first, text, f"{giver} ({actions[giver]})" if giver in actions else giver)
        first = _SAME


def explained_data(admitted: Admitted, passed: Sequence[Passed], show: Show) -> Json:
    """Return the same for programs."""
    decision = admitted.decision
    return {
        "workload": _identity(admitted.workload.kind, admitted.workload.namespace, admitted.workload.name),
        "outcome": decision.outcome.value,
        "skipped": decision.skip.value if decision.skip is not None else "",
        "refused": decision.message,
        "presets": [str(key) for key in decision.applied],
        "passedOver": [{"preset": str(item.preset), "reason": item.reason} for item in passed],
        "conflicts": [str(conflict) for conflict in decision.conflicts],
        "warnings": list(decision.warnings),
        "items": [
            {
                "container": row.container,
                "kind": row.kind,
                "name": row.name,
                "result": row.fate.value,
                "value": show.value(row.name, row.value) if isinstance(row.value, str) else show.pod(row.value),
                "from": [{"item": show.value(row.name, item), "by": giver} for item, giver in row.givers],
                "steps": [{"preset": str(step.preset), "action": step.action} for step in row.steps],
            }
            for row in admitted.rows
        ],
    }


def _identity(kind: str, namespace: str, name: str) -> Json:
    return {"kind": kind, "namespace": namespace, "name": name}


# -- diff ----------------------------------------------------------------------------------------------------------


def diff(title: str, before: Any, after: Any, labels: tuple[str, str], show: Show) -> str:
    """Unified diff of two states of a pod as YAML; empty when they are equal as they are shown."""
    old, new = (output.structured(show.pod(state), "yaml").splitlines() for state in (before, after))
    fromfile, tofile = (f"{title} ({label})" for label in labels)
    return "".join(f"{line}\n" for line in difflib.unified_diff(old, new, fromfile, tofile, lineterm=""))


# -- lint ----------------------------------------------------------------------------------------------------------

_FOUND = ("SEVERITY", "RULE", "WHERE", "MESSAGE")


def findings(found: Iterable[Finding], summary: str) -> str:
    """Table of findings and a line that counts them."""
    rows = [[item.severity, item.rule, item.where, item.message] for item in found]
    return (output.table(_FOUND, rows) if rows else "") + f"{summary}\n"


def finding_data(found: Finding) -> Json:
    """Return one finding for programs."""
    return {
        "severity": found.severity.value,
        "rule": found.rule,
        "where": found.where,
        "message": found.message,
        "clients": list(found.clients),
    }


def ways(rows: Mapping[str, Mapping[Client, Verdict]], clients: Sequence[Client]) -> str:
    """Table of what each client does with each list."""
    columns = ("LIST", *(client.upper() for client in clients))
    cells = [[where, *(verdicts[client] for client in clients)] for where, verdicts in rows.items()]
    return output.table(columns, cells)


def ways_data(rows: Mapping[str, Mapping[Client, Verdict]]) -> list[Json]:
    """Return the same for programs."""
    return [
        {"where": where, "clients": {client.value: verdict.value for client, verdict in verdicts.items()}}
        for where, verdicts in rows.items()
    ]


# -- stale ---------------------------------------------------------------------------------------------------------

_STALE = ("NAMESPACE", "KIND", "NAME", "PODS", "STALE", "REASON")


def stale(rows: Sequence[StaleRow], *, wide: bool = False) -> str:
    """Table of workloads with stale pods; the wide one names the pods."""

    def cells(row: StaleRow) -> list[str]:
        shown = [row.namespace, row.kind, row.name, str(row.pods), str(len(row.stale)), row.reason]
        return [*shown, ", ".join(row.stale)] if wide else shown

    return output.table((*_STALE, *(("STALE PODS",) if wide else ())), map(cells, rows))


def stale_name(row: StaleRow) -> str:
    """Name of a workload as kubectl takes it."""
    groups = {resource.kind: resource.group for resource in TEMPLATED}
    group = groups.get(row.kind, "")
    return f"{row.kind.lower()}.{group}/{row.name}" if group else f"{row.kind.lower()}/{row.name}"


def stale_data(row: StaleRow) -> Json:
    """Return one workload for programs."""
    identity = _identity(row.kind, row.namespace, row.name)
    return {**identity, "pods": row.pods, "stalePods": list(row.stale), "reason": row.reason.value}
