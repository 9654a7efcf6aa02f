"""`groundwork machine zones`: from a vCenter without tags to zones that are ready."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import pytest
import yaml

from services import cli
from tests.support.kube import eventually
from tests.support.vcenter import PASSWORD, USER
from tests.support.zones import ZONES


@pytest.fixture
def zones_cli(zone_cluster, sim, tmp_path, monkeypatch, capsys):
    """`groundwork machine zones`, in a thread: it has an event loop of its own."""
    (tmp_path / "ca.pem").write_bytes(sim.ca)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    for name in ("VSPHERE_SERVER", "VSPHERE_USERNAME", "VSPHERE_PASSWORD", "VSPHERE_TLS_THUMBPRINT"):
        monkeypatch.delenv(name, raising=False)
    signed = [
        f"--server={sim.server}",
        f"--username={USER}",
        f"--password-file={tmp_path / 'password'}",
        f"--ca-file={tmp_path / 'ca.pem'}",
    ]

    async def run(*arguments, flags=signed, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = await asyncio.to_thread(cli.main, ["machine", "zones", *arguments, *flags])
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        assert err.count("\n") == (code == 2) + ("--dry-run" in arguments and code != 2), err
        return code, out, err

    return run


async def test_a_plan_that_is_applied_gives_zones_that_are_ready(world, zones_cli, tmp_path, zone_cluster):
    categories = [f"--region-category={world.name('region')}", f"--zone-category={world.name('zone')}"]
    own = [f"--name-prefix=z{world.id}", "--label", f"world={world.id}", "--network=VM Network"]
    code, out, _ = await zones_cli("discover", *categories)
    assert code == 0
    assert out.splitlines()[2].split()[:3] == ["/DC0", "DC0_C0", "3/3"]

    code, text, _ = await zones_cli("plan", *categories, *own)
    assert code == 0
    assert (
        f"#   attach tag z{world.id}-dc0-c1 of category {world.name('zone')} to /DC0/host/DC0_C1" in text.splitlines()
    )
    assert (await zones_cli("plan", *categories, *own))[1] == text
    assert await world.vc.tags.category(world.name("zone")) is None
    plan = tmp_path / "zones.yaml"
    plan.write_text(text)
    apply = ("apply", f"--filename={plan}", "--objects", f"--kubeconfig={zone_cluster.kubeconfig}")

    code, out, err = await zones_cli(*apply, "--dry-run")
    assert (code, err) == (0, "dry run: nothing was changed\n")
    assert f"would create VSphereDeploymentZone z{world.id}-dc0-c0" in out.splitlines()
    assert out.count("would be ready") == 2
    code, _, err = await zones_cli(*apply)
    assert (code, err) == (2, "groundwork machine: nobody to ask: give --yes, or --dry-run to see what would be done\n")
    assert await world.vc.tags.category(world.name("zone")) is None
    assert await world.kube.find(ZONES, f"z{world.id}-dc0-c0") is None

    code, out, _ = await zones_cli(*apply, "--yes")
    assert code == 0
    assert f"created VSphereFailureDomain z{world.id}-dc0-c1" in out.splitlines()
    names = [f"z{world.id}-dc0-c{number}" for number in range(2)]
    for name in names:
        world.made(ZONES, name)
        zone = await eventually(
            lambda name=name: world.kube.get(ZONES, name), lambda obj: obj.get("status", {}).get("ready")
        )
        assert zone["metadata"]["labels"] == {"world": world.id}
    code, out, _ = await zones_cli(*apply)  # nothing left to do, so nothing to agree to
    assert (code, out.count("is as it should be"), out.count("attach")) == (0, 4, 0)

    # What is there gives the plan its names, and a plan as JSON is one too.
    code, text, _ = await zones_cli("plan", *categories, *own, "-o", "json")
    assert json.loads(text)["changes"] == []
    plan.write_text(text)
    assert (await zones_cli("apply", f"--filename={plan}"))[0] == 0
    code, out, _ = await zones_cli("discover", *categories, "-o", "json")
    (datacenter,) = json.loads(out)["datacenters"]
    assert [each["tags"]["zone"] for each in datacenter["clusters"]] == [[name] for name in names]


async def test_a_failure_domain_that_is_another_is_not_overwritten(world, zones_cli, tmp_path, zone_cluster):
    await world.tagged()
    await world.create(world.domain(), world.zone())
    await world.ready()
    plan = tmp_path / "zones.yaml"
    changed = world.domain(datastore="LocalDS_0")
    plan.write_text(yaml.safe_dump_all([changed, world.zone()]))
    flags = ("--objects", "--yes", f"--kubeconfig={zone_cluster.kubeconfig}")
    await world._untag()
    code, _, err = await zones_cli("apply", f"--filename={plan}", *flags)
    assert code == 2
    assert await world.vc.tags.category(world.name("zone")) is None, "the cluster was asked before vCenter was changed"
    assert f"the cluster refuses VSphereFailureDomain {world.name('a')}" in err
    assert "delete it with its zone first" in err


async def test_zones_of_hosts_are_planned_and_applied(world, zones_cli, tmp_path):
    await world.hosts(world.name("vms"), world.name("rack"))
    categories = [f"--region-category={world.name('region')}", f"--zone-category={world.name('zone')}"]
    _, out, _ = await zones_cli("discover", *categories, "-o", "wide")
    (row,) = [line.split() for line in out.splitlines() if f" {world.name('rack')} " in line]
    assert row[:5] == ["/DC0", "DC0_C0", "2/2", world.name("rack"), world.name("vms")]
    _, text, _ = await zones_cli("plan", "--by=hosts", "--cluster=DC0_C0", *categories)
    wanted = [each for each in yaml.safe_load_all(text) if world.id in each["metadata"]["name"]]
    assert len(wanted) == 2
    plan = tmp_path / "zones.yaml"
    plan.write_text(yaml.safe_dump_all(wanted))
    code, out, _ = await zones_cli("apply", f"--filename={plan}", "--yes")
    assert (code, out.count("attach tag")) == (0, 3)  # the cluster's region, and two hosts


@pytest.mark.parametrize(
    ("arguments", "flags", "complaint"),
    [
        (("discover",), (), "no vCenter: give --server or set VSPHERE_SERVER"),
        (("discover",), ("--server=vc",), "nobody to sign in as: give --username"),
        (("discover",), ("--server=vc", "--username=u"), "no password: give --password-file"),
        (
            ("discover",),
            ("--server=vc", "--username=u", "--password-file=/nowhere"),
            "cannot read /nowhere: No such file",
        ),
        (("plan", "--label=x"), (), "'x' is no label: write KEY=VALUE"),
        (("apply", "--filename=/nowhere"), (), "cannot read /nowhere"),
    ],
)
async def test_what_is_missing_is_said_in_one_line(zones_cli, arguments, flags, complaint):
    code, out, err = await zones_cli(*arguments, flags=flags)
    assert (code, out) == (2, "")
    assert complaint in err


async def test_credentials_come_from_a_file_and_the_certificate_is_verified(sim, zones_cli, tmp_path):
    stored = tmp_path / "secret.yaml"
    stored.write_text(yaml.safe_dump({"kind": "Secret", "stringData": {"username": USER, "password": PASSWORD}}))
    server, file = f"--server={sim.server}", f"--credentials-file={stored}"
    code, _, err = await zones_cli("discover", flags=(server, file))
    assert code == 2
    assert "is not trusted" in err
    assert "--ca-file or --thumbprint" in err
    code, _, err = await zones_cli("discover", flags=(server, file, f"--thumbprint={'00' * 32}"))
    assert (code, sim.thumbprint() in err) == (2, True)
    assert (await zones_cli("discover", flags=(server, file, f"--thumbprint={sim.thumbprint()}")))[0] == 0
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in (("username", USER), ("password", "x"))}
    stored.write_text(yaml.safe_dump({"kind": "Secret", "data": encoded}))
    code, _, err = await zones_cli("discover", flags=(server, file, "--insecure"))
    assert (code, "refuses" in err) == (2, True)


async def test_names_that_are_nowhere_are_told_with_those_that_are(zones_cli):
    code, _, err = await zones_cli("plan", "--cluster=nowhere")
    assert (code, "cluster 'nowhere' not found; there are: DC0_C0, DC0_C1" in err) == (2, True)
    code, _, err = await zones_cli("plan", "--datacenter=nowhere")
    assert (code, "datacenter 'nowhere' not found; there are: DC0" in err) == (2, True)
