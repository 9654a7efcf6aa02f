"""What a dashboard is made of, and the questions that panels ask again and again.

Must not know: which metrics exist, or the JSON that Grafana wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Panel(NamedTuple):
    """One panel. `asks` are (expression, legend); `kind` is Grafana's; `unit` one of Grafana's."""

    title: str
    description: str
    asks: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False


class Row(NamedTuple):
    """A heading over the panels that follow."""

    title: str


class Variable(NamedTuple):
    """A choice at the top, of the values that a label of a metric has."""

    name: str
    metric: str
    label: str


class Dashboard(NamedTuple):
    """One dashboard; `name` is its file and, with a prefix, its uid."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    panels: Sequence[Panel | Row]


def stat(title: str, description: str, expression: str, unit: str = "short") -> Panel:
    """One number, a quarter of the width."""
    return Panel(title, description, [(expression, "")], unit, kind="stat", width=6)


def quantiles(
    metric: str, by: str = "", where: str = "", shares: Sequence[float] = (0.5, 0.99)
) -> list[tuple[str, str]]:
    """Questions for quantiles of a histogram, one line for each of them and each value of the label `by`."""
    group = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({share}, sum by ({group}) (rate({metric}_bucket{where}[$__rate_interval])))",
            f"{share * 100:g} %{legend}",
        )
        for share in shares
    ]


def rate(metric: str, by: str, where: str = "") -> list[tuple[str, str]]:
    """A question for the rate of a counter by labels ("a, b"), each line called by their values."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ") if label)
    group = f"sum by ({by}) " if by else "sum"
    return [(f"{group}(rate({metric}{where}[$__rate_interval]))", legend or "all")]
