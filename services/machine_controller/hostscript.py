"""A shell script that gives a host its proxy settings and trusted certificates, and the same for Ignition.

Responsible for: what is written where, on Debian, Ubuntu, RHEL and its kin, SUSE, Photon and Flatcar; restarting what
has to read it. The container runtimes and kubelet get systemd drop-ins, login shells /etc/environment, apt and dnf
their own settings.
Invariants: POSIX sh. Run again it changes nothing and restarts nothing. It exports nothing: kubeadm copies proxy
variables of its own environment into the manifests of the control plane. One step that fails keeps no other from being
done, and the exit code tells. A file that others own keeps all but the lines between our markers.
Must not know: where settings come from.
Sources: systemd.exec(5) on quoting, apt.conf(5), dnf.conf(5), update-ca-certificates(8), update-ca-trust(8).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from services.machine_controller.guestinfo.ignition import DropIn, File, Unit
from services.proxyenv import lists

if TYPE_CHECKING:
    from services.machine_controller.hostproxy import HostProxy

SERVICES = ("containerd", "crio", "docker", "kubelet")
RUNTIMES = ("containerd", "crio", "docker")
DROP_IN = "50-groundwork-proxy.conf"
APT = "/etc/apt/apt.conf.d/95groundwork-proxy"
SCRIPT_PATH = "/opt/groundwork/host-setup.sh"
UNIT_NAME = "groundwork-host-setup.service"
BEGIN = "# BEGIN groundwork proxy"
END = "# END groundwork proxy"
_HEREDOC = "GROUNDWORK_END"

_FUNCTIONS = f"""\
failed=0
restart=

say() {{
  echo "groundwork: $*" >&2
}}

# same ONE OTHER: whether two files say the same. No cmp: small images do not have it.
same() {{
  [ -f "$2" ] && [ "$(cat "$1")" = "$(cat "$2")" ]
}}

# put FILE MODE: let FILE say what stdin says. Succeeds when that changed it.
put() {{
  mkdir -p "$(dirname "$1")" && rm -f "$1.new" && (umask 077 && cat >"$1.new") && chmod "$2" "$1.new" || {{
    say "cannot write $1"
    failed=1
    return 1
  }}
  if same "$1.new" "$1"; then
    rm -f "$1.new"
    return 1
  fi
  mv -f "$1.new" "$1"
}}

# block FILE [LINE]: put stdin between our markers into FILE, behind the line that is LINE or at the end.
block() {{
  cat >"$1.block" || {{
    say "cannot write $1"
    failed=1
    return 1
  }}
  if [ -f "$1" ]; then cp -p "$1" "$1.new"; else : >"$1.new" && chmod 0644 "$1.new"; fi || {{
    say "cannot write $1"
    failed=1
    return 1
  }}
  if grep -qxF '{BEGIN}' "$1.new" && grep -qxF '{END}' "$1.new"; then
    sed -i '/^{BEGIN}$/,/^{END}$/d' "$1.new"
  fi
  if [ -n "${{2:-}}" ]; then
    grep -qxF "$2" "$1.new" || echo "$2" >>"$1.new"
    where=$(grep -nxF "$2" "$1.new" | head -n 1 | cut -d : -f 1)
    sed -i "${{where}}r $1.block" "$1.new"
  else
    [ -z "$(tail -c 1 "$1.new")" ] || echo >>"$1.new"
    cat "$1.block" >>"$1.new"
  fi
  rm -f "$1.block"
  if same "$1.new" "$1"; then rm -f "$1.new"; else mv -f "$1.new" "$1"; fi
}}
"""

_RESTART = """\
if [ -n "$restart" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload || failed=1
  for service in $restart; do
    # Without waiting: during boot the service may have to wait for this very script.
    systemctl --no-block try-restart "$service.service" || failed=1
  done
fi
"""

_TRUST = """\
system=$(. /etc/os-release 2>/dev/null && echo "${ID:-}")
if [ -d /etc/pki/ca-trust/source/anchors ]; then
  anchors=/etc/pki/ca-trust/source/anchors suffix=pem
  trust() { update-ca-trust extract; }
elif [ -d /etc/pki/trust/anchors ]; then
  anchors=/etc/pki/trust/anchors suffix=pem
  trust() { update-ca-certificates; }
elif [ "$system" = flatcar ]; then
  anchors=/etc/ssl/certs suffix=pem
  trust() { update-ca-certificates; }
elif [ "$system" = photon ]; then
  anchors=/etc/ssl/certs suffix=pem
  trust() { rehash_ca_certificates.sh; }
else
  anchors=/usr/local/share/ca-certificates suffix=crt
  trust() { update-ca-certificates; }
fi
trusted=
"""


def host_script(proxy: HostProxy) -> str:
    """Return the script; empty when there is nothing to set up."""
    if proxy.empty:
        return ""
    parts = [
        "#!/bin/sh",
        "# Proxy settings and trusted certificates of this host. Runs at each boot; what is in place stays as it is.",
        "set -u",
        "",
        _FUNCTIONS,
    ]
    if proxy.certificates:
        parts += _trust(proxy)
    if proxy.variables():
        parts += _services(proxy)
        parts += _login(proxy)
        parts += _packages(proxy)
    parts += [_RESTART, "exit $failed", ""]
    return "\n".join(parts)


def drop_in(proxy: HostProxy) -> str:
    """Text of the systemd drop-in with the variables."""
    lines = [f'Environment="{name}={systemd_escaped(value)}"' for name, value in proxy.variables().items()]
    return "\n".join(["[Service]", *lines, ""])


def systemd_escaped(value: str) -> str:
    """A value inside double quotes of a unit file: specifiers and C escapes are taken literally."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def apt_settings(proxy: HostProxy) -> str:
    """Text for apt.conf.d: apt knows no list, so each host name that needs no proxy gets a line."""
    lines = [
        f'Acquire::{scheme}::Proxy "{url}";' for scheme, url in (("http", proxy.http), ("https", proxy.https)) if url
    ]
    hosts = [] if proxy.no_proxy == (lists.EVERYTHING,) else [item for item in proxy.no_proxy if _is_host(item)]
    lines += [f'Acquire::{scheme}::Proxy::{name} "DIRECT";' for name in hosts for scheme in ("http", "https")]
    return "\n".join([*lines, ""])


def ignition_parts(proxy: HostProxy) -> tuple[list[File], list[Unit]]:
    """Return what an Ignition config needs: drop-ins as such, and the script with a unit that runs it at each boot."""
    script = host_script(proxy)
    if not script:
        return [], []
    before = " ".join(f"{service}.service" for service in (*SERVICES, "kubeadm"))
    unit = f"""\
[Unit]
Description=Proxy settings and trusted certificates of this host
Before={before}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT_PATH}

[Install]
WantedBy=multi-user.target
"""
    units = [Unit(UNIT_NAME, unit, enabled=True)]
    if proxy.variables():
        units += [Unit(f"{name}.service", drop_ins=(DropIn(DROP_IN, drop_in(proxy)),)) for name in SERVICES]
    return [File(SCRIPT_PATH, script, 0o700)], units


def _services(proxy: HostProxy) -> list[str]:
    mode = "0600" if proxy.secret else "0644"
    return [
        f"for service in {' '.join(SERVICES)}; do",
        f"  if put \"/etc/systemd/system/$service.service.d/{DROP_IN}\" {mode} <<'{_HEREDOC}'",
        f"{_heredoc(drop_in(proxy))}  then",
        '    case " $restart " in *" $service "*) ;; *) restart="$restart $service" ;; esac',
        "  fi",
        "done",
        "",
    ]


def _login(proxy: HostProxy) -> list[str]:
    # Not quoted: pam_env takes what stands there, and none of the characters means anything to a shell.
    lines = [f"{name}={value}" for name, value in proxy.variables(login=True).items()]
    return [f"block /etc/environment <<'{_HEREDOC}'", _heredoc(_marked(lines)), ""]


def _packages(proxy: HostProxy) -> list[str]:
    mode = "0600" if proxy.secret else "0644"
    url = proxy.https or proxy.http
    return [
        "if [ -d /etc/apt/apt.conf.d ]; then",
        f"  put {APT} {mode} <<'{_HEREDOC}'",
        f"{_heredoc(apt_settings(proxy))}fi",
        "",
        "for settings in /etc/dnf/dnf.conf /etc/yum.conf /etc/tdnf/tdnf.conf; do",
        '  if [ -f "$settings" ] && [ ! -L "$settings" ]; then',
        f"    block \"$settings\" '[main]' <<'{_HEREDOC}'",
        f"{_heredoc(_marked([f'proxy={url}']))}  fi",
        "done",
        "",
    ]


def _trust(proxy: HostProxy) -> list[str]:
    parts = [_TRUST]
    for number, certificate in enumerate(proxy.certificates, 1):
        parts += [
            f"if put \"$anchors/groundwork-{number}.$suffix\" 0644 <<'{_HEREDOC}'",
            f"{_heredoc(certificate)}then",
            "  trusted=changed",
            "fi",
        ]
    kept = " | ".join(f'"$anchors/groundwork-{n}.$suffix"' for n in range(1, len(proxy.certificates) + 1))
    return [
        *parts,
        'for file in "$anchors"/groundwork-*."$suffix"; do',
        '  case "$file" in',
        f"    {kept}) ;;",
        '    *) [ ! -f "$file" ] || { rm -f "$file"; trusted=changed; } ;;',
        "  esac",
        "done",
        'if [ -n "$trusted" ]; then',
        "  trust >/dev/null || { say 'cannot update the trusted certificates'; failed=1; }",
        f'  restart="{" ".join(RUNTIMES)}"',
        "fi",
        "",
    ]


def _marked(lines: list[str]) -> str:
    return "\n".join([BEGIN, *lines, END, ""])


def _heredoc(text: str) -> str:
    """Text and the line that ends it. The delimiter is quoted, so the shell takes every character as it is."""
    assert _HEREDOC not in text.splitlines(), "a line that would end the text"
    return f"{text}{_HEREDOC}\n"


def _is_host(item: str) -> bool:
    """Whether apt can match an entry: a host name or an address, no range, no suffix, no pattern."""
    try:
        ipaddress.IPv4Address(item)
    except ValueError:
        return not (set(item) & set("*/:[]")) and not item.startswith(".")
    return True
