"""`groundwork machine kube-vip`: kube-vip's static pod, printed for whoever puts it in place by other means.

Invariant: it needs no cluster and writes nothing but stdout.
Must not know: what the manifest says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from services import console
from services.console import UnusableError
from services.machine_controller.guestinfo.problems import InvalidError
from services.machine_controller.kubevip import KubeVip, install_script, kubeadm_config, manifest

if TYPE_CHECKING:
    import argparse

_DEFAULTS = KubeVip(image="", address="")
_EPILOG = """\
exit codes:
  0  printed
  2  a value cannot be used

-o files prints files and preKubeadmCommands for spec.kubeadmConfigSpec of a KubeadmControlPlane, -o manifest the
static pod alone, -o script a shell script that puts it in place and chooses the kubeconfig."""


class _Readable(yaml.SafeDumper):
    """Writes files as blocks of lines, so that people can read and change them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def add(commands: Any) -> None:
    """Add the subcommand to what `add_subparsers` returned."""
    summary = "print kube-vip's static pod for a control plane"
    parser = commands.add_parser("kube-vip", help=summary, description=summary, epilog=_EPILOG)
    parser.set_defaults(work=_print)
    parser.add_argument("--image", required=True, metavar="IMAGE", help="kube-vip 0.8 or newer, with tag or digest")
    parser.add_argument(
        "--address", required=True, metavar="ADDRESS", help="the virtual address, or a DNS name that stands for it"
    )
    parser.add_argument("--port", type=int, default=_DEFAULTS.port, help="of the API servers (default: %(default)s)")
    parser.add_argument(
        "--interface", default="", metavar="NAME", help="network interface (default: that of the default route)"
    )
    parser.add_argument("--services", action="store_true", help="serve Services of type LoadBalancer too")
    parser.add_argument(
        "--no-services-election", action="store_true", help="all Services from the control plane's leader"
    )
    parser.add_argument("--ddns", action="store_true", help="get the address for the DNS name by DHCP")
    for name, what in (
        ("lease_duration", "until another node may take the address over"),
        ("renew_deadline", "after which a leader that cannot renew gives up"),
        ("retry_period", "between two tries"),
    ):
        default = getattr(_DEFAULTS, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=default, metavar="SECONDS", help=f"{what} (default: {default})")
    parser.add_argument(
        "--prometheus", default=_DEFAULTS.prometheus, metavar="[HOST]:PORT", help="metrics (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", choices=("manifest", "files", "script"), default="manifest", help="default: %(default)s"
    )


async def _print(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in KubeVip._fields if hasattr(options, name)}
    settings = KubeVip(**{**given, "services_election": not options.no_services_election})
    try:
        match options.output:
            case "files":
                text = yaml.dump(kubeadm_config(settings), Dumper=_Readable, sort_keys=False)
            case "script":
                text = install_script(settings)
            case _:
                text = manifest(settings)
    except InvalidError as error:
        raise UnusableError(str(error)) from None
    print(text, end="")
    return console.OK
