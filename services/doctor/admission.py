"""Checks of the webhook: does the API server reach it, trust it, and ask it.

Invariant: pure; nothing is said of what was not read.
Must not know: how it was read, how findings look.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from services.doctor.finding import Finding, Level
from services.doctor.seen import Served, Unread
from services.runtime import pki
from services.runtime.pki import Certificate, PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from services.doctor.seen import Hook, Seen

NEAR = timedelta(days=14)
"""Certificates are renewed when a third of their life is left, long before this."""
_IGNORED = "pods are created without what presets give"
_REFUSED = "no pod can be created"


def webhook(seen: Seen) -> Iterator[Finding]:
    """Every webhook configuration has somebody to ask and a CA to trust."""
    if isinstance(seen.hooks, Unread):
        return
    running = not isinstance(seen.services, Unread) and any(each.component == "podpreset" for each in seen.services)
    if not seen.hooks and running:
        what = "no webhook configuration asks the service: presets do nothing"
        action = "helm upgrade with podpreset.enabled, or apply deploy/webhook/podpreset.yaml"
        yield Finding(Level.ERROR, "webhook", "MutatingWebhookConfiguration", what, action)
    for hook in seen.hooks:
        found = [*_bundle(hook, seen.now), *_endpoint(hook)]
        yield from found
        if not found:
            behind = f"Service {'/'.join(hook.service)}" if hook.service else "a URL"
            yield Finding(Level.OK, "webhook", str(hook), f"it leads to {behind} and has a CA (policy {hook.policy})")


def _outcome(hook: Hook) -> str:
    return _REFUSED if hook.policy == "Fail" else _IGNORED


def _bundle(hook: Hook, now: datetime) -> Iterator[Finding]:
    action = "see that the service may write it, or cert-manager's cainjector runs: docs/tasks/webhook-certificates.md"
    try:
        authorities = pki.read_all(hook.bundle)
    except PkiError as error:
        what = f"its caBundle cannot be read ({error}): {_outcome(hook)}"
        yield Finding(Level.ERROR, "webhook", str(hook), what, action)
        return
    valid = [each for each in authorities if each.not_after > now]
    if not authorities:
        yield Finding(Level.ERROR, "webhook", str(hook), f"its caBundle is empty: {_outcome(hook)}", action)
    elif not valid:
        what = f"every CA in its caBundle has expired: {_outcome(hook)}"
        yield Finding(Level.ERROR, "webhook", str(hook), what, action)
    elif max(each.not_after for each in valid) - now < NEAR:
        last = max(each.not_after for each in valid)
        yield Finding(Level.WARNING, "webhook", str(hook), f"the CA in its caBundle ends {last:%Y-%m-%d %H:%M}", action)


def _endpoint(hook: Hook) -> Iterator[Finding]:
    if hook.endpoint is None or isinstance(hook.endpoint, Unread) or hook.service is None:
        return
    namespace, name = hook.service
    if not hook.endpoint.exists:
        what = f"Service {namespace}/{name} does not exist: {_outcome(hook)}"
        yield Finding(Level.ERROR, "webhook", str(hook), what, "helm upgrade, or correct clientConfig.service")
    elif hook.endpoint.ready == 0:
        what = f"Service {namespace}/{name} has no endpoint that is ready: {_outcome(hook)}"
        action = f"kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={name}"
        yield Finding(Level.ERROR, "webhook", str(hook), what, action)


def certificates(seen: Seen) -> Iterator[Finding]:
    """Every certificate that is served is valid for long enough, for the right name, and from a CA that is trusted."""
    hooks = () if isinstance(seen.hooks, Unread) else seen.hooks
    for served in seen.served:
        if isinstance(served, Unread):
            continue
        found = list(_certificate(served, hooks, seen.now))
        yield from (Finding(level, "certificates", served.secret, what, action) for level, what, action in found)


def _certificate(served: Served, hooks: Sequence[Hook], now: datetime) -> Iterator[tuple[Level, str, str]]:
    action = "see the log of the service, or of cert-manager: docs/tasks/webhook-certificates.md"
    if served.certificate is None:
        yield Level.ERROR, f"there is no tls.crt in it for {served.component}", action
        return
    try:
        certificate = pki.read(served.certificate)
    except PkiError as error:
        yield Level.ERROR, f"its tls.crt is {error}", action
        return
    until = f"{certificate.not_after:%Y-%m-%d %H:%M}"
    sound = True
    if certificate.not_after <= now:
        sound = False
        yield Level.ERROR, f"its certificate has expired, {until}", action
    elif certificate.not_after - now < NEAR:
        sound = False
        yield Level.WARNING, f"its certificate ends {until} and should have been renewed", action
    asked = {f"{hook.service[1]}.{hook.service[0]}.svc" for hook in hooks if hook.service}
    if missing := sorted(asked - certificate.names):
        sound = False
        yield Level.ERROR, f"its certificate is not for {', '.join(missing)}, by which it is asked", action
    distrusting = [hook.configuration for hook in hooks if hook.bundle and not _trusted(certificate, hook)]
    if distrusting:
        sound = False
        what = f"its certificate is from no CA in the caBundle of {', '.join(dict.fromkeys(distrusting))}"
        yield Level.ERROR, what, action
    if sound:
        yield Level.OK, f"its certificate is good until {until}", ""


def _trusted(certificate: Certificate, hook: Hook) -> bool:
    try:
        authorities = pki.read_all(hook.bundle)
    except PkiError:
        return True  # said of the webhook
    return any(certificate.fingerprint == each.fingerprint or certificate.issued_by(each) for each in authorities)


def admission(seen: Seen) -> Iterator[Finding]:
    """A pod that is created as a dry run gets what presets say."""
    trial = seen.trial
    if isinstance(trial, Unread) or isinstance(seen.hooks, Unread):
        return
    names = [hook.name for hook in seen.hooks]
    subject = f"Namespace {trial.namespace}"
    logs = "see the errors of webhook and certificates above; else: kubectl get --raw /metrics | grep admission_webhook"
    if trial.refused and any(name in trial.refused for name in names):
        what = f"no pod can be created, the webhook does not answer: {trial.refused}"
        yield Finding(Level.ERROR, "admission", subject, what, logs)
    elif trial.refused:
        what = f"whether the webhook is asked is not known: something else refuses a pod there ({trial.refused})"
        yield Finding(Level.INFO, "admission", subject, what)
    elif trial.marked:
        yield Finding(Level.OK, "admission", subject, f"a pod is given what {trial.preset} says")
    elif trial.preset:
        what = f"a pod is created without what {trial.preset} gives: the webhook is not asked, or does not answer"
        yield Finding(Level.ERROR, "admission", subject, what, logs)
    elif trial.failed_open:
        what = "a pod is created without asking the webhook, which does not answer"
        yield Finding(Level.ERROR, "admission", subject, what, logs)
    elif trial.failed_open is None:
        what = "whether the webhook is asked is not known: no preset is for a plain pod, and /metrics cannot be read"
        yield Finding(Level.INFO, "admission", subject, what)
    else:
        yield Finding(Level.OK, "admission", subject, "a pod is let in, and the webhook is not passed over")
