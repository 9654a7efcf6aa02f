"""Measurements of the allocator on a real API server, beside the bare writer where that tells something.

Responsible for: what is done in which order and what is read off.
Invariant: after each run what was promised is verified (every claim one address, no address twice, the ledger agrees),
and a violation is a BenchError.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from services.ipam import api, intervals, kinds
from services.ipam.space import PoolSpace
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw, view
from tests.bench import load
from tests.bench.load import BenchError, Observer
from tests.bench.party import Party
from tests.bench.stage import Stage, stage
from tools.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.runtime.kube.transport import Client

_WARM_UP = 100
_IDLE_SECONDS = 10.0
_PREPARERS = 32


class Options(NamedTuple):
    """How both parties are run; None is the program's own default."""

    workers: int | None = None
    uvloop: bool | None = None


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def throughput(
    name: str, count: int, options: Options, *, pace: float | None = None, release: bool = True
) -> dict[str, Any]:
    """Bind `count` claims and, by the allocator, release them; `pace` is how many are created a second (None: all)."""
    how = f"{name}: {count:,} claims" + (f" at {pace:g}/s" if pace else "")
    with (
        step(how),
        stage() as on,
        Party(name, on, workers=options.workers, uvloop=options.uvloop) as party,
    ):
        party.wait_ready()
        result = asyncio.run(_throughput(on, party, count, pace, release=release))
    say(f"    {result['bind']['rate']:.0f} claims/s")
    return result


async def _throughput(on: Stage, party: Party, count: int, pace: float | None, *, release: bool) -> dict[str, Any]:
    wanted, warm_up = load.claims("claim", count), load.claims("warm", _WARM_UP)
    names = [claim.name for claim in wanted]
    result: dict[str, Any] = {"party": party.name, "claims": count, "pace": pace}
    async with on.client() as client, Observer(client, lambda: party.pid).watching() as observer:
        # Connections, the server's schema caches and validation programs, and the Lease.
        await load.create(client, warm_up)
        await observer.wait(observer.bound, [claim.name for claim in warm_up], "bound")

        with _measured(on, party, count) as measured:
            await load.create(client, wanted, pace)
            await observer.wait(observer.bound, names, "bound")
        latencies = [observer.bound[name] - observer.seen[name] for name in names]
        first, last = min(observer.seen[name] for name in names), max(observer.bound[name] for name in names)
        created = max(observer.seen[name] for name in names)
        result["bind"] = {
            **measured,
            "seconds": last - first,
            "rate": count / (last - first),
            "created_rate": count / max(created - first, 1e-9),
            "p50": statistics.median(latencies),
            "p99": _percentile(latencies, 0.99),
        }
        await _verify(client, count + _WARM_UP)
        if party.name == "allocator" and pace is None:
            result["rss_peak"] = party.rss(peak=True)
            result["ready_seconds"] = await asyncio.to_thread(party.restart)
        if party.name == "allocator" and pace is None and release:
            with _measured(on, party, count) as measured:
                await load.delete(client, wanted)
                await observer.wait(observer.gone, names, "released")
            first, last = min(observer.leaving[name] for name in names), max(observer.gone[name] for name in names)
            result["release"] = {**measured, "seconds": last - first, "rate": count / (last - first)}
            await _verify(client, _WARM_UP)
        result.setdefault("rss_peak", party.rss(peak=True))
    return result


@contextmanager
def _measured(on: Stage, party: Party, count: int) -> Iterator[dict[str, Any]]:
    """Fill the dict, after the body, with requests and CPU milliseconds per claim."""
    usage = on.usage(process=party.pid)
    before = party.requests()
    figures: dict[str, Any] = {}
    yield figures
    used, others = usage.so_far()
    asked = party.requests().since(before)
    figures["writes"] = asked.writes / count
    figures["by_method"] = {method: number / count for method, number in sorted(asked.by_method.items()) if number}
    figures["calls"] = asked.calls / count
    figures["bytes"], figures["watched"] = asked.bytes / count, asked.watched / count
    figures["lists"] = asked.lists / count
    figures["refused"] = asked.refused
    figures["cpu_ms"] = {name: 1000 * seconds / count for name, seconds in used.items()}
    figures["other_cores"] = others


async def _verify(client: Client, count: int) -> None:
    """Hold the objects against each other: `count` claims, as many addresses and reservations, none of them twice."""
    addresses: dict[str, tuple[str, str]] = {}
    claims = 0
    for kind, claim_resource, address_resource in zip(
        (kinds.METAL3, kinds.CAPI), load.CLAIMS, load.ADDRESSES, strict=True
    ):
        held = {}
        for obj in (await client.list(address_resource, load.NAMESPACE)).items:
            holding = kinds.read_address(kind, obj)
            if holding is None:
                raise BenchError(f"{address_resource} {obj.metadata.name} cannot be read")
            text = intervals.text(holding.at)
            if text in addresses:
                raise BenchError(f"{text} was given twice: to {addresses[text]} and {(kind, holding.claim.name)}")
            addresses[text] = (kind, holding.claim.name)
            held[holding.name] = holding.claim.name
        for obj in (await client.list(claim_resource, load.NAMESPACE)).items:
            claim = kinds.read_claim(kind, obj)
            if held.pop(claim.bound, None) != obj.metadata.name:
                raise BenchError(
                    f"{kind} {obj.metadata.name}: the address {claim.bound!r} in its status is not its own"
                )
            claims += 1
        if held:
            raise BenchError(f"{len(held)} {kind} addresses without a claim that names them: {sorted(held)[:5]}")
    if claims != count:
        raise BenchError(f"{claims} claims instead of {count}")
    reserved = {}
    for obj in (await client.list(api.IP_RESERVATIONS)).items:
        spec = view(obj.spec, api.ReservationSpec)
        if spec.claim is not None:
            reserved[spec.address] = (spec.claim.kind, spec.claim.name)
    if reserved != addresses:
        raise BenchError(f"{len(reserved)} reservations do not agree with {len(addresses)} addresses")


def restart(count: int, options: Options) -> dict[str, Any]:
    """With `count` claims bound, stop the allocator as a rolling update does and time its next start."""
    with (
        step(f"allocator: restart with {count:,} bound"),
        stage() as on,
        Party("allocator", on, workers=options.workers, uvloop=options.uvloop) as party,
    ):
        party.wait_ready()
        return asyncio.run(_restart(on, party, count))


async def _restart(on: Stage, party: Party, count: int) -> dict[str, Any]:
    wanted = load.claims("claim", count)
    async with on.client() as client, Observer(client, lambda: None).watching() as observer:
        await load.create(client, wanted)
        await observer.wait(observer.bound, [claim.name for claim in wanted], "bound")
        result = {"claims": count, **await _first_bind(client, party, observer, "next")}
        await _verify(client, count + 1)
    return result


async def _first_bind(client: Client, party: Party, observer: Observer, name: str) -> dict[str, float]:
    """Seconds from starting the process anew to the first new claim bound; the claim is there before it lists."""
    party.stop()
    started = time.perf_counter()
    party.start()
    # Its name is the last of the list, so that it is not served before those which are bound were looked at.
    await load.create(client, load.claims(f"zz-{name}", 1))
    await observer.wait(observer.bound, [f"zz-{name}-0"], "bound")
    party.wait_ready()
    return {"first_bind": observer.bound[f"zz-{name}-0"] - started}


def memory(count: int, options: Options) -> dict[str, Any]:
    """Resident memory with `count` claims, addresses and reservations, made beforehand and adopted by the allocator.

    The claims have no status, as after a restore or `clusterctl move`, so adoption is `count` status writes.
    """
    with step(f"allocator: memory with {count:,} claims"), stage() as on:
        return asyncio.run(_memory(on, count, options))


async def _memory(on: Stage, count: int, options: Options) -> dict[str, Any]:
    wanted = load.claims("claim", count)
    async with on.client() as client:
        with step(f"    creating {3 * count:,} objects"):
            await _prepare(client, wanted)
        async with Observer(client, lambda: None).watching() as observer:
            party = Party("allocator", on, workers=options.workers, uvloop=options.uvloop)
            started = time.perf_counter()
            with party:
                with step("    adopting them"):
                    await observer.wait(observer.bound, [claim.name for claim in wanted], "adopted")
                adopted = time.perf_counter() - started
                await asyncio.sleep(_IDLE_SECONDS)
                result: dict[str, Any] = {"claims": count, "adopt_seconds": adopted, "adopt_rate": count / adopted}
                result["rss_adopted"] = party.rss()
                with step("    restarting"):
                    result |= await _first_bind(client, party, observer, "next")
                await asyncio.sleep(_IDLE_SECONDS)
                result["rss"], result["rss_peak"] = party.rss(), party.rss(peak=True)
                with step("    verifying"):
                    await _verify(client, count + 1)
    return result


async def _prepare(client: Client, wanted: list[load.Claim]) -> None:
    """Make what an allocator that ran before would have made, except the statuses of the claims."""
    pool_obj = await client.get(api.IP_POOLS, load.POOL, load.NAMESPACE)
    space = PoolSpace(view(pool_obj.spec, api.PoolSpec))
    first = intervals.network_of(intervals.point("10.0.0.0"), 8).first + 1

    async def make(item: tuple[int, load.Claim]) -> None:
        number, wish = item
        at = first + number
        kind = wish.resource.kind
        obj = await client.create(
            wish.resource,
            replace(wish.obj, metadata=replace(wish.obj.metadata, finalizers=api.CLAIM_FINALIZERS[kind][:1])),
        )
        claim = kinds.read_claim(kind, obj)
        reservation = KubeObject(
            apiVersion=api.IP_RESERVATIONS.api_version,
            kind=api.IP_RESERVATIONS.kind,
            metadata=ObjectMeta(name=kinds.reservation_name("default", at)),
            spec=raw(kinds.held_spec(claim, "default", at)),
        )
        await client.create(api.IP_RESERVATIONS, reservation)
        name = kinds.address_names(claim.key, claim.pool, load.POOL, "default", at)[0]
        await client.create(
            load.ADDRESSES[number % 2], kinds.new_address(claim, pool_obj, space.range_of(at), at, name)
        )

    await load.each(enumerate(wanted), make, width=_PREPARERS)
