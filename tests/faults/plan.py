"""Which faults a run makes: a table of kinds, and a plan drawn from it by a seed.

Responsible for: what may go wrong, where, how often and for how long; plans as lines of JSON.
Invariants: pure; the same seed, number and available kinds give the same plan on every machine. `inject` carries it
out.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

SERVICES = ("ipam-a", "ipam-b", "integrator", "webhook-a", "webhook-b", "machines")
LEASE_SECONDS = 6.0
"""Short, so that losing it does not take long; a machine that is busy with other things needs a longer one."""
BATCH = 25
"""Faults between two rests."""
_PATIENT = 5
"""Every so many batches may have faults that nobody notices before the watchdog of a watch, 70 s, does."""
_GAP_SECONDS = (0.1, 0.9)


class Kind(NamedTuple):
    """One kind of fault."""

    weight: int
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts; 0 for what is over at once."""
    beyond: bool = False
    """Whether it lasts so much longer than a Lease."""
    needs: str = ""
    """Of the machine: netns (root), faketime (libfaketime)."""
    patient: bool = False
    """Whether it takes more than a minute until a healthy service can notice."""


KINDS = {
    # Processes
    "kill": Kind(12, SERVICES),
    "terminate": Kind(4, SERVICES),
    "pause beyond the lease": Kind(5, SERVICES, (1.0, 4.0), beyond=True),
    "pause": Kind(4, SERVICES, (0.2, 2.5)),
    "full disk for logs": Kind(2, SERVICES, (1.0, 4.0)),
    "clock jump": Kind(3, SERVICES, (1.0, 4.0), needs="faketime"),
    # The control plane
    "kill the API server": Kind(2, ("apiserver",)),
    "restart the API server": Kind(1, ("apiserver",)),
    "pause the API server": Kind(2, ("apiserver",), (0.5, 4.0)),
    "kill etcd": Kind(2, ("etcd",)),
    "restart etcd": Kind(1, ("etcd",)),
    "compact etcd": Kind(3, ("etcd",)),
    "expire every watch": Kind(1, ("apiserver",)),
    "slow disk for etcd": Kind(3, ("etcd",), (1.0, 5.0)),
    # Between a service and the API server
    "watch stall": Kind(7, SERVICES, (0.5, 6.0)),
    "half-open watches": Kind(5, SERVICES, patient=True),
    "half-open requests": Kind(5, SERVICES, (0.5, 3.0)),
    "cut connections": Kind(5, SERVICES),
    "refused connections": Kind(4, SERVICES, (0.5, 5.0)),
    "storm of 5xx": Kind(7, SERVICES, (0.5, 5.0)),
    "storm of 429": Kind(6, SERVICES, (0.5, 5.0)),
    "storm of conflicts": Kind(7, SERVICES, (0.5, 5.0)),
    "lost answers": Kind(8, SERVICES, (0.5, 4.0)),
    "slow answers": Kind(4, SERVICES, (0.5, 4.0)),
    "expired credentials": Kind(3, SERVICES, (0.5, 4.0)),
    "partition": Kind(5, SERVICES, (1.0, 10.0)),
    "partition of its network namespace": Kind(4, ("ipam-b",), (1.0, 10.0), needs="netns"),
    # The webhook's certificates
    "expired certificate": Kind(2, ("certificates",)),
    "half-rotated certificate": Kind(2, ("certificates",)),
    "lost certificate": Kind(2, ("certificates",)),
    "wrong caBundle": Kind(2, ("certificates",)),
    # vCenter
    "vCenter outage": Kind(4, ("vcenter",), (0.5, 4.0)),
    "vCenter forgets its sessions": Kind(3, ("vcenter",)),
    "vCenter tasks fail": Kind(4, ("vcenter",), (0.5, 4.0)),
    "vCenter answers are lost": Kind(4, ("vcenter",), (0.5, 3.0)),
    "vCenter is slow": Kind(3, ("vcenter",), (0.5, 3.0)),
    "vCenter refuses the password": Kind(2, ("vcenter",), (0.5, 3.0)),
}


class Fault(NamedTuple):
    """One fault: `gap` seconds after the one before it began, for `seconds`; `salt` decides all that is left open."""

    number: int
    kind: str
    target: str
    gap: float
    seconds: float
    salt: int

    def __str__(self):
        return f"{self.number}: {self.kind} ({self.target}, {self.seconds:g} s)"


def available(found):
    """Kinds that can be made on a machine that has `found`."""
    return {name: kind for name, kind in KINDS.items() if kind.needs in {"", *found}}


def draw(seed, count, kinds, *, patient=True, lease=LEASE_SECONDS, dense=1):
    """A plan of `count` faults; without `patient` none that takes more than a minute to be noticed.

    `dense` times as many come in the same time, and between two rests.
    """
    rng = random.Random(seed)
    quick = {name: kind for name, kind in kinds.items() if not kind.patient}
    plan = []
    for number in range(1, count + 1):
        late = patient and ((number - 1) // (BATCH * dense)) % _PATIENT == _PATIENT - 1
        table = kinds if late else quick
        (name,) = rng.choices(list(table), [kind.weight for kind in table.values()])
        target = rng.choice(table[name].targets)
        gap, seconds = (
            rng.uniform(*_GAP_SECONDS) / dense,
            rng.uniform(*table[name].seconds) + table[name].beyond * lease,
        )
        plan.append(Fault(number, name, target, round(gap, 2), round(seconds, 2), rng.randrange(1 << 30)))
    return plan


def dump(plan):
    """Lines of JSON."""
    return "".join(json.dumps(fault._asdict()) + "\n" for fault in plan)


def load(text):
    """The plan of such lines; some of them may have been taken out."""
    return [Fault(**json.loads(line)) for line in text.splitlines() if line.strip()]
