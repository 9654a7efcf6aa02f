"""A guest that reads guestinfo keys with the real cloud-init."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml

from services.machine_controller.guestinfo import extraconfig
from services.machine_controller.guestinfo.metadata import metadata
from services.machine_controller.guestinfo.network import GatewayStyle, network_config
from services.machine_controller.guestinfo.userdata import UserData
from tools import cloudinit

SCRIPT = Path(__file__).with_name("cloudinit_guest.py")
USER_DATA = b"#cloud-config\nruncmd: ['true']\n"


def macs(count):
    """MAC addresses as vCenter has them, in the order of NICs."""
    return [f"00:50:56:AA:BB:{place + 1:02X}" for place in range(count)]


def keys_of(network, *, name="m1", user_data=USER_DATA, vendor_data=b"", style=GatewayStyle.ROUTES, bound=()):
    """All guestinfo keys of a VM with this network."""
    config = network_config(network, macs(len(network.devices)), bound, style=style)
    first = extraconfig.at_clone(UserData.read(user_data), vendor_data)
    return {**first, **extraconfig.at_power_on(metadata(name, config, instance_id=f"{name}-uid"), first)}


def booted(release, keys, root, *, boot=False):
    """What cloud-init of a Debian release makes of the keys; see `cloudinit_guest`."""
    return all_booted(release, {"": keys}, root, boot=boot)[""]


def all_booted(release, guests, root, *, boot=False):
    """The same for many guests {name: keys}, in one process: it takes a second to start."""
    given = []
    for number, keys in enumerate(guests.values()):
        folder = root / str(number)
        folder.mkdir(parents=True)
        given.append({"keys": keys, "root": str(folder), "boot": boot})
    try:
        answers = cloudinit.ensure(release).run(SCRIPT, input=json.dumps(given))
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr[-4000:]) from error
    return dict(zip(guests, json.loads(answers), strict=True))


def netplan(answer):
    """The ethernets of netplan's file."""
    files = answer["rendered"]["netplan"]
    (text,) = [content for name, content in files.items() if name.startswith("etc/netplan/")]
    return yaml.safe_load(text)["network"]["ethernets"]


def interfaces(answer):
    """Stanzas of ifupdown's file: {(interface, family): lines}."""
    files = answer["rendered"]["eni"]
    (text,) = [content for name, content in files.items() if name.startswith("etc/network")]
    found, lines = {}, []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["iface"]:
            lines = found.setdefault((words[1], words[2]), [])
        elif words and line.startswith(" "):
            lines.append(" ".join(words))
    return found


def networkd(answer, name):
    """Sections of networkd's file for an interface: [(section, {key: value})]."""
    text = answer["rendered"]["networkd"][f"etc/systemd/network/10-cloud-init-{name}.network"]
    found = []
    for line in text.splitlines():
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line:
            key, _, value = line.partition("=")
            found[-1][1][key] = value
    return found


def routes_of(sections):
    """networkd's routes as (destination, gateway, metric); a missing destination is everything of the family."""
    default = {False: "0.0.0.0/0", True: "::/0"}
    return {
        (section.get("Destination", default[":" in section["Gateway"]]), section["Gateway"], section.get("Metric"))
        for name, section in sections
        if name == "Route"
    }
