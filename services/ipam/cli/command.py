"""`groundwork ipam`: pools and their fill, holders of addresses, the ledger check, export and import.

Responsible for: flags, reading a snapshot, and handing it to the pure modules that do the rest.
Invariants: only `import` writes to the cluster. Exit codes: 0 all is well, 1 discrepancies were found or objects
refused, 2 the command could not do its work.
Must not know: how anything is computed or printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from services import access, console, output
from services.console import CommandLine, Progress, UnusableError, complete_with
from services.ipam.cli import importer, importplan, overview, portable, reading, tables, verify
from services.ipam.cli.importplan import Verdict
from services.runtime.clock import SystemClock
from services.runtime.kube.conditions import timestamp
from services.runtime.kube.discovery import Discovery
from services.runtime.kube.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from services.ipam.cli.snapshot import Snapshot
    from services.runtime.kube.objects import KubeObject

REQUEST_SECONDS = 30.0
_OK_CODE = "0  done, nothing to complain about"
_UNUSABLE_CODE = "2  the command could not do its work: wrong flags, no cluster, no permission, definitions missing"


def main(arguments: Sequence[str], program: str = "groundwork ipam") -> int:
    """Run the command line; returns the exit code."""
    return console.run(parser(program), arguments)


# -- the command line ----------------------------------------------------------------------------------------------


def parser(program: str = "groundwork ipam") -> CommandLine:
    """Return the command line, for `main` and for shells that complete it."""
    line = CommandLine(prog=program, description="Look at, check and move what the IP address allocator keeps.")
    commands = line.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, work: Callable[[argparse.Namespace], object], summary: str, found: str = "") -> CommandLine:
        codes = [_OK_CODE, *([f"1  {found}"] if found else []), _UNUSABLE_CODE]
        epilog = "\n  ".join(["exit codes:", *codes])
        added: CommandLine = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
        added.set_defaults(work=work)
        access.add_cluster(added)
        return added

    pools = command("pools", _pools, "show pools and their fill, computed from what is reserved")
    access.add_namespaces(pools, "show IPPools of this namespace, and GlobalIPPools")
    _add_output(pools, "table", "wide", "json", "yaml", "name")

    addresses = command("addresses", _addresses, "show who holds which address")
    access.add_namespaces(addresses, "show addresses of claims and pools of this namespace")
    _add_output(addresses, "table", "wide", "json", "yaml", "name")
    pool = addresses.add_argument(
        "--pool", type=_pool_name, metavar="POOL", help="NAME, NAMESPACE/NAME, IPPool/NAMESPACE/NAME, GlobalIPPool/NAME"
    )
    complete_with(pool, "pools")
    addresses.add_argument("--domain", default="", help="addresses of this network domain")
    addresses.add_argument(
        "--state", action="append", default=[], choices=overview.STATES, help="addresses in this state; repeatable"
    )
    addresses.add_argument(
        "--address", type=_span, metavar="ADDRESSES", help="one address, a CIDR or a range first-last"
    )

    check = command(
        "verify", _verify, "check that claims, IPAddresses and IPReservations agree", "discrepancies were found"
    )
    access.add_namespaces(check, "report only what concerns this namespace; everything is read all the same")
    _add_output(check, "table", "json", "yaml")
    check.add_argument("--strict", action="store_true", help="count addresses outside their pool's ranges too")
    check.add_argument(
        "--settle",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="look again after this long and report only what is still so (default: %(default)s)",
    )

    export = command("export", _export, "write pools, claims and their addresses as YAML for another cluster")
    access.add_namespaces(export, "claims of this namespace and what they need")
    file = export.add_argument("-f", "--filename", metavar="FILE", help="where to write (default: stdout)")
    complete_with(file, access.FILES)

    load = command(
        "import",
        _import,
        "create what an export has, so that every claim keeps its address; nothing that exists is changed",
        "some objects were refused",
    )
    load.description = f"""{load.description}.
Claims get the annotation ipAddress, so that the allocator gives them the address they had and no other.
What would break something in the target is refused together with what goes with it, and said on stderr."""
    _add_output(load, "table", "json", "yaml")
    file = load.add_argument("-f", "--filename", metavar="FILE", default="-", help="what to read (default: -, stdin)")
    complete_with(file, access.FILES)
    load.add_argument("--dry-run", action="store_true", help="let the API server check every object and store none")
    load.add_argument("--create-namespaces", action="store_true", help="create the namespaces that are missing")
    return line


def _add_output(parser: CommandLine, *choices: str) -> None:
    parser.add_argument("-o", "--output", choices=choices, default=choices[0], help="default: %(default)s")


def _pool_name(text: str) -> overview.PoolName:
    try:
        return overview.PoolName.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no pool: write NAME or NAMESPACE/NAME") from None


def _span(text: str) -> object:
    try:
        return overview.parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


# -- the session ---------------------------------------------------------------------------------------------------


class _Session(NamedTuple):
    client: Client
    discovery: Discovery
    progress: Progress
    clock: SystemClock
    url: str

    async def take(self, *, claims: bool = True) -> Snapshot:
        return await reading.take(self.client, self.discovery, self.progress, claims=claims)


@asynccontextmanager
async def _session(options: argparse.Namespace) -> AsyncIterator[_Session]:
    connection = await access.connect(options)
    clock = SystemClock()
    with Progress() as progress:
        progress.step(f"connecting to {connection.url}")
        async with Client(connection, user_agent="groundwork-cli", timeout=REQUEST_SECONDS) as client:
            yield _Session(client, Discovery(client, clock), progress, clock, connection.url)


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# -- the commands --------------------------------------------------------------------------------------------------


async def _pools(options: argparse.Namespace) -> int:
    async with _session(options) as session:
        taken = await session.take(claims=False)
        rows = overview.select_pools(overview.pool_rows(taken, session.clock.now().timestamp()), options.namespace)
    if options.output in {"json", "yaml"}:
        print(output.structured([tables.pool_data(row) for row in rows], options.output), end="")
    elif options.output == "name":
        print(output.names(map(tables.pool_name, rows)), end="")
    elif rows:
        print(tables.pools(rows, wide=options.output == "wide"), end="")
    else:
        _note("no pools")
    return console.OK


async def _addresses(options: argparse.Namespace) -> int:
    async with _session(options) as session:
        taken = await session.take(claims=False)
        now = session.clock.now().timestamp()
        session.progress.step("sorting addresses")
        rows = overview.select_addresses(
            overview.address_rows(taken, now),
            namespaces=options.namespace,
            pool=options.pool,
            domain=options.domain,
            states=options.state,
            span=options.address,
        )
    if options.output in {"json", "yaml"}:
        print(output.structured([tables.address_data(row) for row in rows], options.output), end="")
    elif options.output == "name":
        print(output.names(name for row in rows for name in tables.address_names(row)), end="")
    elif rows:
        print(tables.addresses(rows, now, wide=options.output == "wide"), end="")
    else:
        _note("no addresses")
    return console.OK


async def _verify(options: argparse.Namespace) -> int:
    async with _session(options) as session:
        taken = await session.take()
        session.progress.step("checking")
        found = verify.check(taken)
        if any(options.strict or not item.information for item in found):
            session.progress.step("waiting to look again")
            await session.clock.sleep(options.settle)
            taken = await session.take()
            session.progress.step("checking again")
            found = verify.persistent(set(found), verify.check(taken))
    if options.strict:
        found = [item._replace(information=False) for item in found]
    spaces = set(options.namespace)
    found = [item for item in found if not spaces or not spaces.isdisjoint(item.namespaces)]
    serious = sum(not item.information for item in found)
    checked = {
        "pools": len(taken.pools),
        "claims": len(taken.claims),
        "ipAddresses": len(taken.addresses),
        "ipReservations": len(taken.reservations),
    }
    if options.output == "table":
        counted = ", ".join(f"{count} {what}" for what, count in checked.items())
        summary = f"checked {counted}: {serious} discrepancies, {len(found) - serious} notes"
        print(tables.discrepancies(found, summary), end="")
    else:
        data = {"checked": checked, "discrepancies": [tables.discrepancy_data(item) for item in found]}
        print(output.structured(data, options.output), end="")
    return console.FOUND if serious else console.OK


async def _export(options: argparse.Namespace) -> int:
    async with _session(options) as session:
        taken = await session.take()
        session.progress.step("writing")
        chosen = portable.choose(taken, options.namespace)
        where = f" of {', '.join(options.namespace)}" if options.namespace else ""
        counts = Counter(obj.kind for obj in chosen.objects)
        contents = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
        header = [
            f"Groundwork IPAM export{where}, made {timestamp(session.clock.now())} from {session.url}",
            f"by groundwork {console.version()}: {contents}",
            "apply it with: groundwork ipam import -f FILE",
            *chosen.remarks,
        ]
        pieces = portable.write(chosen.objects, header)
        if options.filename in {None, "-"}:
            sys.stdout.writelines(pieces)
        else:
            _write_file(Path(options.filename), pieces)
    for remark in chosen.remarks:
        _note(remark)
    return console.OK


def _write_file(path: Path, pieces: Iterable[str]) -> None:
    path = path.resolve()  # what a link points to, not the link
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            with path.open("w", encoding="utf-8") as file:
                file.writelines(pieces)
            return
    except OSError as error:
        raise UnusableError(f"cannot write {path}: {error.strerror}") from error
    # Written aside and renamed, so that a file of that name is always a whole export.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        fresh.replace(path)
    except OSError as error:
        raise UnusableError(f"cannot write {path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


async def _import(options: argparse.Namespace) -> int:
    stream = _read_stream(options.filename)
    async with _session(options) as session:
        progress = session.progress
        steps = importplan.plan(stream, await session.take())
        missing = await importer.missing_namespaces(session.client, steps)
        if missing and not options.create_namespaces:
            raise UnusableError(
                f"the target has no namespace {', '.join(missing)}: create them or give --create-namespaces"
            )
        worker = importer.Importer(session.client, session.clock, progress, steps)
        if options.dry_run:
            steps = await worker.rehearse(missing)
        elif any(step.verdict is Verdict.CREATE for step in steps):
            await importer.create_namespaces(session.client, missing)
            steps = importer.confirm(await worker.run(), await session.take())
    refused = [step for step in steps if step.verdict is Verdict.REFUSED]
    verdicts = Counter((step.obj.kind, step.verdict) for step in steps)
    if options.output == "table":
        kinds = dict.fromkeys(step.obj.kind for step in steps)
        rows = [[kind, *(str(verdicts[kind, verdict]) for verdict in Verdict)] for kind in kinds]
        print(output.table(("KIND", "CREATED", "UNCHANGED", "REFUSED"), rows), end="")
        for step in refused:
            _note(f"refused {portable.identity(step.obj)}: {step.reason}")
        if options.dry_run:
            _note("dry run: nothing was created")
    else:
        counts = {verdict.value: sum(step.verdict is verdict for step in steps) for verdict in Verdict}
        reasons = [{"object": str(portable.identity(step.obj)), "reason": step.reason} for step in refused]
        data = {"dryRun": options.dry_run, **counts, "refusals": reasons}
        print(output.structured(data, options.output), end="")
    return console.FOUND if refused else console.OK


def _read_stream(filename: str) -> list[KubeObject]:
    if filename == "-" and sys.stdin.isatty():
        raise UnusableError("nothing to import: give -f FILE or pipe an export in")
    try:
        text = sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableError(f"cannot read {filename}: {error}") from error
    try:
        return portable.read(text)
    except portable.StreamError as error:
        raise UnusableError(f"{'stdin' if filename == '-' else filename}: {error}") from error
