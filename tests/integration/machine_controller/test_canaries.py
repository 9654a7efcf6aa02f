"""Secrets of the machine controller, planted wherever it reads one and looked for in all that it says."""

from __future__ import annotations

import asyncio
import base64
import random
import re

from services.machine_controller import api, contract
from services.runtime.kube.resource import EVENTS
from tests.integration.machine_controller.test_process import rules
from tests.support.canaries import Canaries, said
from tests.support.kube import eventually, manifest
from tests.support.machine_site import SECRETS, VERSIONS, MachineController, unique
from tests.support.vcenter import USER

SPOKEN = (
    EVENTS,
    api.VSPHERE_MACHINES,
    api.VSPHERE_CLUSTERS,
    VERSIONS.machines,
    VERSIONS.clusters,
    contract.IP_ADDRESS_CLAIMS[0],
)


def encoded(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


async def test_no_secret_is_in_any_log_metric_event_or_status_whatever_fails(start_site, capv_cluster, tmp_path):
    canaries = Canaries()
    site = await start_site(controller=False)
    password, later = canaries.new("vCenter's password"), canaries.new("a wrong password")
    site.sim.users({USER: password})
    await site.identity(password=password)
    await site.kube.patch(
        SECRETS, "vcenter", site.namespace, data={"other": encoded(canaries.new("another key of the identity"))}
    )
    proxy = canaries.new("the proxy's password")
    values = {"httpProxy": f"http://user:{proxy}@proxy.example:3128", "note": canaries.new("a key beside the proxy")}
    await site.kube.create(SECRETS, {**manifest(SECRETS, "proxy", site.namespace), "stringData": values})
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    await site.cluster(annotations={api.PROXY_SECRET_ANNOTATION: "proxy"})
    kubeconfig = capv_cluster.service_account_kubeconfig("default", unique("canaries"), rules())
    token = re.search(r"token: (\S+)", kubeconfig.read_text())[1]
    canaries.plant("the token for the API server", token.rpartition(".")[2])
    process = MachineController(
        tmp_path, kubeconfig, "--all", f"--watch-namespace={site.namespace}", "--log-level=debug"
    )
    await asyncio.to_thread(process.start)
    try:
        # What works.
        await site.machine("m1", bootstrap=False)
        await site.bootstrap("m1", f"#cloud-config\nruncmd: [kubeadm join --token {canaries.new('bootstrap data')}]\n")
        await site.provisioned("m1")

        # Bootstrap data of every kind that cannot be used.
        noise = random.Random(1).randbytes(120_000).hex()
        broken = {
            "ignition that is no JSON": ("ignition", f"{{ {canaries.new('broken ignition')}"),
            "ignition of another shape": ("ignition", f'{{"ignition": "{canaries.new("odd ignition")}"}}'),
            "too large": ("cloud-config", f"#cloud-config\n# {canaries.new('large data')} {noise}\n"),
            "no text": ("ignition", b"\xff\xfe" + canaries.new("binary data").encode()),
        }
        for number, (format_, value) in enumerate(broken.values()):
            name = f"broken-{number}"
            await site.machine(name, bootstrap=False)
            data = {"value": encoded(value), "format": encoded(format_)}
            obj = {**manifest(SECRETS, f"{name}-boot", site.namespace), "data": data}
            await site.kube.create(SECRETS, obj)
        for number in range(len(broken)):
            await site.says(f"broken-{number}", "InvalidConfiguration")

        # Proxy settings that cannot be used.
        for url in (
            f"ftp://user:{canaries.new('ftp')}@p",
            f"http://user:{canaries.new('no host')}@",
            "http://\n" + proxy,
        ):
            await site.kube.patch(SECRETS, "proxy", site.namespace, stringData={"httpProxy": url})
            name = unique("proxy")
            await site.machine(name)
            await site.says(name, "InvalidConfiguration", "httpProxy")

        # vCenter refuses, falls silent, and fails at what it is asked.
        site.sim.fault("PowerOffVM_Task", "InvalidState", message="broken", times=2)
        await site.identity(password=later)
        site.sim.expire()
        await eventually(lambda: asyncio.to_thread(process.log), lambda log: f"refuses {USER}" in log)
        await site.kube.patch(SECRETS, "vcenter", site.namespace, data={"password": encoded(b"\xff" + later.encode())})
        await site.kube.patch(
            SECRETS, "vcenter", site.namespace, data={"ca.crt": encoded(canaries.new("no authority"))}
        )
        await site.identity(password=password)
        site.sim.down()
        site.sim.up()
        names = [m["metadata"]["name"] for m in await site.kube.list(VERSIONS.machines, site.namespace)]
        await site.delete(*names)
        await site.gone(*names)
        metrics = await asyncio.to_thread(process._get, "/metrics")
        spoken = await said(site.kube, [site.namespace, "default"], SPOKEN)
    finally:
        process.stop()
    assert len(process.records()) > len(names), "the log is there"
    assert canaries.found(process.log(), str(metrics), *spoken) == {}
