"""`groundwork machine zones`: failure domains found in vCenter, planned as objects, and set up.

Responsible for: flags, exit codes and what is printed.
Invariants: discover and plan change nothing; apply says what it will change and asks first. stdout carries the answer.
Must not know: how anything is found, planned or made.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

import yaml

from services import access, console, output
from services.console import CommandLine, Progress, UnusableError
from services.machine_controller.cli import zonesapply, zonesconnect, zonesplan, zonesread
from services.machine_controller.cli.zonesplan import Choice
from services.machine_controller.zones import tagging

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.machine_controller.cli.zonesite import ClusterSite, DatacenterSite, Site

_COLUMNS = ("DATACENTER", "CLUSTER", "HOSTS", "HOST GROUP", "VM GROUP", "DATASTORES", "NETWORKS", "REGION", "ZONE")
_SHOWN = 3
_LABEL = re.compile(r"([A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?)=([-A-Za-z0-9_.]*)")


def add(commands: Any) -> None:
    """Add the subcommands to what `add_subparsers` returned."""
    summary = "failure domains: find what vCenter has, plan them, set them up"
    parser: CommandLine = commands.add_parser("zones", help=summary, description=summary)
    inner = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, work: Any, text: str, *codes: str) -> CommandLine:
        listed = ["0  done", *codes, "2  the command could not do its work: wrong flags, no vCenter, no permission"]
        added: CommandLine = inner.add_parser(
            name, help=text, description=text, epilog="\n  ".join(["exit codes:", *listed])
        )
        added.set_defaults(work=work)
        zonesconnect.add_flags(added)
        return added

    discover = command("discover", _discover, "show datacenters, clusters, host groups, and their tags")
    _add_scope(discover)
    discover.add_argument(
        "-o", "--output", choices=("table", "wide", "json", "yaml"), default="table", help="default: %(default)s"
    )

    plan = command(
        "plan", _plan, "print VSphereFailureDomains and VSphereDeploymentZones as YAML, and the tags they need"
    )
    _add_scope(plan)
    _add_choice(plan)
    plan.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="default: %(default)s")

    apply = command(
        "apply",
        zonesapply.run,
        "create and attach the tags that planned zones need, and check the zones",
        "1  a zone is not usable",
    )
    file = apply.add_argument("-f", "--filename", required=True, metavar="FILE", help="a plan; - is stdin")
    console.complete_with(file, access.FILES)
    apply.add_argument("--objects", action="store_true", help="apply the objects to the cluster too")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    apply.add_argument("-y", "--yes", action="store_true", help="do not ask")
    access.add_cluster(apply, "for --objects")


def _add_scope(parser: CommandLine) -> None:
    parser.add_argument(
        "--datacenter", action="append", default=[], metavar="NAME", help="name or path; repeatable (default: all)"
    )
    parser.add_argument(
        "--cluster", action="append", default=[], metavar="NAME", help="name or path; repeatable (default: all)"
    )
    for name, default in (("region", Choice().region_category), ("zone", Choice().zone_category)):
        parser.add_argument(
            f"--{name}-category", default=default, metavar="NAME", help=f"tag category of {name}s (default: {default})"
        )


def _add_choice(parser: CommandLine) -> None:
    parser.add_argument(
        "--by",
        choices=zonesplan.LEVELS,
        default=Choice().by,
        help="what a zone is: a cluster, the hosts of a VM-host rule, or a datacenter (default: %(default)s)",
    )
    parser.add_argument(
        "--region",
        default="",
        metavar="NAME",
        help="region of all zones (default: by datacenter; by cluster with hosts)",
    )
    parser.add_argument("--datastore", default="", metavar="NAME", help="of all zones (default: the only one there is)")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME",
        help="of the first device of all zones; repeat it for further devices (default: the only one there is)",
    )
    parser.add_argument("--folder", default="", metavar="NAME", help="VM folder of all zones")
    parser.add_argument(
        "--resource-pool", default="", metavar="PATH", help="below each cluster's root pool (default: that itself)"
    )
    parser.add_argument("--name-prefix", default="", metavar="TEXT", help="in front of each object's name")
    parser.add_argument(
        "--label",
        action="append",
        type=_label,
        default=[],
        metavar="KEY=VALUE",
        help="label of the VSphereDeploymentZones, for failureDomainSelector; repeatable",
    )
    parser.add_argument("--no-control-plane", action="store_true", help="for workers alone")
    parser.add_argument(
        "--auto-configure", action="store_true", help="let the machine controller make the tags, now and after a change"
    )


def _label(text: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no label: write KEY=VALUE")
    return match[1], match[2]


async def _site(options: argparse.Namespace) -> Site:
    server = zonesconnect.server_of(options)
    with Progress() as progress:
        async with zonesconnect.connect(options, server, progress) as vcenter:
            return await zonesread.look(
                vcenter,
                server,
                progress,
                categories=(options.region_category, options.zone_category),
                datacenters=options.datacenter,
                clusters=options.cluster,
            )


async def _discover(options: argparse.Namespace) -> int:
    site = await _site(options)
    if options.output in {"json", "yaml"}:
        print(output.structured(_data(site, options), options.output), end="")
        return console.OK
    rows = [
        row
        for datacenter in site.datacenters
        for row in _rows(site, datacenter, options, shown=_SHOWN if options.output == "table" else sys.maxsize)
    ]
    print(output.table(_COLUMNS, rows), end="")
    return console.OK


async def _plan(options: argparse.Namespace) -> int:
    site = await _site(options)
    choice = Choice(
        by=options.by,
        region=options.region,
        region_category=options.region_category,
        zone_category=options.zone_category,
        datastore=options.datastore,
        networks=tuple(options.network),
        folder=options.folder,
        resource_pool=options.resource_pool,
        name_prefix=options.name_prefix,
        labels=tuple(options.label),
        control_plane=not options.no_control_plane,
        auto_configure=options.auto_configure,
    )
    plan = zonesplan.make(site, choice)
    if not plan.objects:
        raise UnusableError("; ".join(plan.remarks) or f"{site.server} has nothing that could be a zone")
    changes = [change.text(site.names) for change in tagging.plan(plan.wanted, site.present)]
    conflicts = [conflict.text(site.names) for conflict in tagging.conflicts(plan.wanted, site.present)]
    if options.output == "json":
        data = {"items": list(plan.objects), "changes": changes, "conflicts": conflicts, "remarks": list(plan.remarks)}
        print(output.structured(data, "json"), end="")
        return console.OK
    print(_comments(f"zones of {site.server}, by {choice.by}", ()), end="")
    print(_comments("tags: to be created and attached", changes or ["nothing: all is as it should be"]), end="")
    for title, lines in (("cannot be done", conflicts), ("note", plan.remarks)):
        if lines:
            print(_comments(title, lines), end="")
    text = yaml.dump_all(plan.objects, Dumper=output.Dumper, sort_keys=False, allow_unicode=True, explicit_start=True)
    print(text, end="")
    return console.OK


def _comments(title: str, lines: Iterable[str]) -> str:
    return "".join(f"# {line}\n" for line in (title, *(f"  {line}" for line in lines)))


# -- what discover prints ------------------------------------------------------------------------------------------


def _rows(site: Site, datacenter: DatacenterSite, options: argparse.Namespace, *, shown: int) -> list[list[str]]:
    region = ",".join(site.tags_of(datacenter.found.ref, options.region_category))
    zone = ",".join(site.tags_of(datacenter.found.ref, options.zone_category))
    rows = [[datacenter.found.path, "", "", "", "", "", "", region, zone]]
    for each in datacenter.clusters:
        tags = [
            ",".join(site.tags_of(each.cluster.ref, category))
            for category in (options.region_category, options.zone_category)
        ]
        available = f"{sum(host.available for host in each.hosts)}/{len(each.hosts)}"
        seen = [_few(each.datastores, shown), _few(each.networks, shown)]
        rows.append([datacenter.found.path, each.label, available, "", "", *seen, *tags])
        for group, vm_group, hosts, carried in _groups(site, each, options):
            rows.append([datacenter.found.path, each.label, hosts, group, vm_group, "", "", "", ",".join(carried)])
    return rows


def _groups(
    site: Site, each: ClusterSite, options: argparse.Namespace
) -> Iterable[tuple[str, str, str, tuple[str, ...]]]:
    """Host groups, each with the VM groups that a rule joins to it, its hosts that are available, and their zone."""
    available = {host.ref: host.available for host in each.hosts}
    for group, hosts in sorted(each.rules.host_groups.items()):
        vm_groups = ",".join(sorted(rule.vm_group for rule in each.rules.rules if rule.host_group == group))
        carried = [set(site.tags_of(host, options.zone_category)) for host in hosts]
        common = tuple(sorted(set.intersection(*carried))) if carried else ()
        yield group, vm_groups, f"{sum(available.get(host, False) for host in hosts)}/{len(hosts)}", common


def _few(names: tuple[str, ...], shown: int) -> str:
    more = f" +{len(names) - shown}" if len(names) > shown else ""
    return ",".join(names[:shown]) + more


def _data(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    def tags(target: Any) -> dict[str, list[str]]:
        categories = {"region": options.region_category, "zone": options.zone_category}
        return {name: list(site.tags_of(target, category)) for name, category in categories.items()}

    return {
        "server": site.server,
        "datacenters": [
            {
                "name": datacenter.found.name,
                "path": datacenter.found.path,
                "tags": tags(datacenter.found.ref),
                "clusters": [
                    {
                        "name": each.cluster.name,
                        "path": each.cluster.path,
                        "tags": tags(each.cluster.ref),
                        "hosts": [
                            {"name": host.name, "available": host.available, "tags": tags(host.ref)}
                            for host in each.hosts
                        ],
                        "hostGroups": {
                            name: sorted(host.name for host in each.hosts if host.ref in members)
                            for name, members in sorted(each.rules.host_groups.items())
                        },
                        "rules": [
                            {
                                "name": rule.name,
                                "vmGroup": rule.vm_group,
                                "hostGroup": rule.host_group,
                                "enabled": rule.enabled,
                                "mandatory": rule.mandatory,
                            }
                            for rule in each.rules.rules
                            if rule.host_group
                        ],
                        "datastores": list(each.datastores),
                        "networks": list(each.networks),
                    }
                    for each in datacenter.clusters
                ],
            }
            for datacenter in site.datacenters
        ],
    }
