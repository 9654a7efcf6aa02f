"""A simulated vCenter as a process: its inventory, its certificate, and everything that can go wrong with it.

Responsible for: starting and stopping vcsim, its control endpoint as methods, and reading the inventory back without
the code under test. Names follow govmomi's simulator: DC0, DC0_C0 (cluster), DC0_C0_H0 (host), LocalDS_0, DC0_DVPG0,
"VM Network", DC0_C0_RP0_VM0.
Invariants: the process ends with the test process; a restart keeps port and inventory and loses connections, sessions
and whatever a request had not finished; `reset` leaves no rule and no held task behind.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import http.client
import json
import ssl
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from services.machine_controller.vsphere.credentials import Credentials, Trust
from services.machine_controller.vsphere.properties import read
from services.machine_controller.vsphere.soap import vim
from services.machine_controller.vsphere.values import Server
from services.runtime import pki
from tools import binaries
from tools.process import Daemon, free_ports

USER, PASSWORD = "administrator@vsphere.local", "canary-Passw0rd"
_START_SECONDS = 60.0


class Vcsim:
    """`with Vcsim.running() as sim:`; keyword arguments are vcsim's inventory flags (`cluster=2`, `ds=3`)."""

    def __init__(self, folder, **inventory):
        self._folder = Path(folder)
        self._daemon = Daemon("vcsim", self._folder)
        self._inventory = {"standalone-host": 0, "nsx": 1, "pool": 1, **inventory}
        (self.port,) = free_ports(1)
        self._control = ""
        self.ca = self.certificate = b""

    @classmethod
    @contextmanager
    def running(cls, **inventory):
        with tempfile.TemporaryDirectory(prefix="vcsim-") as folder:
            sim = cls(folder, **inventory)
            sim.start()
            try:
                yield sim
            finally:
                sim.stop()

    def start(self):
        if not self.ca:
            self._certify()
        seen = self._daemon.log.stat().st_size if self._daemon.log.exists() else 0
        flags = [f"-{name}={value}" for name, value in self._inventory.items()]
        self._daemon.start(
            [
                str(binaries.ensure("vcsim")["vcsim"]),
                f"-l=127.0.0.1:{self.port}",
                "-control=127.0.0.1:0",
                f"-user={USER}",
                f"-password={PASSWORD}",
                f"-cert={self._folder / 'tls.crt'}",
                f"-key={self._folder / 'tls.key'}",
                *flags,
            ],
            tethered=True,
        )

        def ready():
            lines = self._daemon.log.read_bytes()[seen:].decode().split("\n")
            urls = [line for line in lines[:-1] if line.startswith("http://")]
            self._control = urls[0].removeprefix("http://") if urls else ""
            return bool(urls)

        self._daemon.wait_ready(ready, timeout=_START_SECONDS)

    def stop(self):
        self._daemon.stop()

    def _certify(self):
        now, life = dt.datetime.now(dt.UTC), dt.timedelta(days=2)
        authority = pki.make_authority("vcsim", now, life)
        pair = pki.issue(authority, ["127.0.0.1", "localhost"], now, life)
        self.ca, self.certificate = authority.certificate, pair.certificate
        (self._folder / "tls.crt").write_bytes(pair.certificate)
        (self._folder / "tls.key").write_bytes(pair.key)

    def log(self):
        """Everything it printed."""
        return self._daemon.log.read_text(errors="replace")

    # How to reach it.

    @property
    def server(self):
        return Server("127.0.0.1", self.port)

    @property
    def credentials(self):
        return Credentials(USER, PASSWORD)

    @property
    def trust(self):
        """Verification by CA, which is on by default."""
        return Trust(ca=self.ca.decode())

    def thumbprint(self, algorithm="sha256"):
        digest = hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(self.certificate.decode())).hexdigest()
        return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()

    # What goes wrong.

    def fault(self, method, fault, **rule):
        """Calls of a SOAP method raise a fault type; `fields`, `message`, `times`, `skip`, `type`, `name` (object)."""
        self._ask("POST", "/faults", {"method": method, "fault": fault, **rule})

    def task(self, operation, **rule):
        """Tasks ("cloneVm", "powerOn", "reconfigVm", "destroy") `hold`, take `delayMs` or end with `fault`."""
        self._ask("POST", "/tasks", {"method": operation, **rule})

    def request(self, method, **rule):
        """Requests (SOAP method, or "POST /rest/...") `hold`, `delayMs`, `drop` ("before", "after"), or `status`."""
        self._ask("POST", "/requests", {"method": method, **rule})

    def release(self):
        """Forget every rule; what is held goes on."""
        self._ask("DELETE", "/rules")

    def expire(self):
        """Forget every session."""
        self._ask("POST", "/expire")

    def down(self):
        """Close the port, every connection and every session."""
        self._ask("POST", "/down")

    def up(self):
        self._ask("POST", "/up")

    def users(self, passwords):
        """Only these users may sign in, with these passwords."""
        self._ask("POST", "/users", passwords)

    def reset(self):
        self.release()
        self.users({USER: PASSWORD})

    # What happens to VMs behind our back, and what guests say.

    def change(self, vm, do, **arguments):
        """Do powerOn, powerOff, destroy, rename (name=), snapshot (name=) or template to a VM by name, id or UUID."""
        self._ask("POST", "/vms", {"vm": vm, "do": do, **arguments})

    def report(self, vm, *, addresses=None, host_name=None, tools=""):
        """Have VMware Tools report `addresses` (MAC to list), a host name, their own state.

        A MAC that no card of the VM has is that of an interface which the guest alone has, a bridge of pods, say.
        """
        said = {"vm": vm, "addresses": addresses, "hostName": host_name, "tools": tools}
        self._ask("POST", "/guest", {key: value for key, value in said.items() if value is not None})

    # Reading back.

    def vms(self):
        """Every VM by name: id, power, template, instanceUuid, uuid, folder, pool, nics, disksGiB, extraConfig, ..."""
        return {vm["name"]: vm for vm in self._ask("GET", "/vms")}

    def vm(self, name):
        return self.vms()[name]

    def runs(self):
        """Of every VM id, name, power, and whether it was `told` anything: cheap, however many there are."""
        return self._ask("GET", "/runs")

    def told(self, vm):
        """What one VM was told, by its id."""
        (found,) = self._ask("GET", "/vms", {"vm": vm})
        return found["extraConfig"]

    def stats(self):
        """calls by method, sessions, connections, inFlight, and the peaks of the last two."""
        return self._ask("GET", "/stats")

    def forget_stats(self):
        self._ask("DELETE", "/stats")

    def wait_stats(self, condition, *, limit=30.0):
        """Ask until the statistics satisfy a condition; the limit is for a test that would hang."""
        end = time.monotonic() + limit
        while not condition(stats := self.stats()):
            assert time.monotonic() < end, stats
            time.sleep(0.02)
        return stats

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(self._control, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            content = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == http.HTTPStatus.OK, f"{method} {path}: {content}"
        return json.loads(content)


async def add_disk(vc, vm, gib):
    """Give a VM (a reference) another disk, on the controller of its first."""
    path, change = "config.hardware.device", vim.vm.device.VirtualDeviceSpec
    devices = (await vc.vms._session.call("look", lambda api: read(api, vm, path)))[path]
    disks = [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]
    disk = vim.vm.device.VirtualDisk(
        key=-1,
        controllerKey=disks[0].controllerKey,
        unitNumber=len(disks),
        capacityInKB=gib << 20,
        capacityInBytes=gib << 30,
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", fileName=""),
    )
    added = change(operation=change.Operation.add, fileOperation=change.FileOperation.create, device=disk)
    spec = vim.vm.ConfigSpec(deviceChange=[added])
    task = await vc.vms._task("add a disk", vm, lambda managed: managed.ReconfigVM_Task(spec))
    assert (await vc.watch.finished(task)).error is None
