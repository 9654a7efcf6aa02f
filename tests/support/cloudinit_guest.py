"""What a guest's cloud-init makes of guestinfo keys; run by tools.cloudinit with its packages, not imported by tests.

    cloudinit_guest.py < [{"keys": {"guestinfo.metadata": ..., ...}, "root": DIR, "boot": false}, ...]

Prints for each what its own DataSourceVMware and network renderers found, and with `boot` what its handlers and modules
then did. It writes below `root`; scripts of the input write where they say.
"""

import inspect
import json
import logging
import os
import sys
from pathlib import Path

from cloudinit import stages, util
from cloudinit.config import cc_runcmd, cc_scripts_user, cc_scripts_vendor, cc_write_files
from cloudinit.distros import debian, photon, rhel
from cloudinit.net import eni, netplan, network_state, networkd, sysconfig

RENDERERS = {
    "netplan": (netplan, debian),
    "eni": (eni, debian),
    "networkd": (networkd, photon),
    "sysconfig": (sysconfig, rhel),
}
IN_BOOT_ORDER = (cc_write_files, cc_runcmd, cc_scripts_vendor, cc_scripts_user)


def prepare(keys, root):
    """The environment transport of DataSourceVMware, and a configuration that keeps all state below `root`."""
    for name in [name for name in os.environ if name.startswith("VMX_")]:
        del os.environ[name]
    os.environ["VMX_GUESTINFO"] = "1"
    for key, value in keys.items():
        os.environ["VMX_" + key.upper().replace(".", "_")] = value
    folders = {name: str(root / name) for name in ("cloud_dir", "run_dir", "templates_dir")}
    configuration = root / "cloud.cfg"
    system = {"distro": "debian", "paths": folders}
    settings = {"datasource_list": ["VMware"], "system_info": system, "users": [], "def_log_file": str(root / "log")}
    configuration.write_text(json.dumps(settings))
    os.environ["CLOUD_CFG"] = str(configuration)


def started():
    """Stage init, up to the data source."""
    init = stages.Init()
    init.read_cfg()
    init.initialize()
    init.fetch(existing="trust")
    init.instancify()
    return init


def settings_of(distro, name):
    """A renderer's settings, but below the target like all others, and without telling this machine's netplan."""
    chosen = distro.Distro.renderer_configs.get(name) or {}
    relative = {key: value.lstrip("/") for key, value in chosen.items() if key.endswith("_path")}
    return {**chosen, **relative, "postcmds": False}


def rendered(config, root):
    """Files of each renderer below its own folder: what it would write into /etc."""
    found = {}
    for name, (module, distro) in RENDERERS.items():
        target = root / name
        target.mkdir()
        renderer = module.Renderer(settings_of(distro, name))
        try:
            try:
                state = network_state.parse_net_config_data(config, renderer=renderer)
            except TypeError:  # older ones tell the state nothing of the renderer
                state = network_state.parse_net_config_data(config)
            renderer.render_network_state(state, target=str(target))
        except Exception as error:  # noqa: BLE001 - how a renderer fails is an answer
            found[name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        files = [path for path in sorted(target.rglob("*")) if path.is_file()]
        found[name] = {str(path.relative_to(target)): path.read_text() for path in files}
    return found


def rest_of_boot(init):
    """The rest of a first boot as far as user and vendor data go; returns the merged cloud-config."""
    init.update()
    init.consume_data()
    config = util.load_yaml(Path(init.paths.get_ipath("cloud_config")).read_text()) or {}
    cloud = init.cloudify()
    for module in IN_BOOT_ORDER:
        name = module.__name__.rpartition(".cc_")[2]
        # Older modules are given a logger.
        log = [logging.getLogger(name)] if "log" in inspect.signature(module.handle).parameters else []
        module.handle(name, config, cloud, *log, [])
    return config


def answer(keys, root, boot):
    prepare(keys, root)
    init = started()
    source = init.datasource
    hostname = source.get_hostname()
    return {
        "source": type(source).__name__,
        "metadata": source.metadata,
        "hostname": getattr(hostname, "hostname", hostname),
        "instance_id": source.get_instance_id(),
        "network": source.network_config,
        "userdata": util.decode_binary(source.userdata_raw or b""),
        "rendered": rendered(source.network_config, root),
        "cloud_config": rest_of_boot(init) if boot else None,
    }


answers = [answer(item["keys"], Path(item["root"]), item["boot"]) for item in json.load(sys.stdin)]
json.dump(answers, sys.stdout, default=str)
