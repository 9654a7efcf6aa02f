"""A small webhook on the runtime, for tests that need a whole process: it notes its process id on what it reviews."""

import dataclasses
import os
import sys
from typing import ClassVar

import msgspec

from services.runtime import main
from services.runtime.admission import AdmissionAnswer
from services.runtime.settings import WebhookSettings
from services.runtime.webhook import add_webhook

NOTE = "toy-webhook"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToySettings(WebhookSettings):
    program: ClassVar[str] = "toy-webhook"


class _Meta(msgspec.Struct):
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


def annotate(request):
    """Write the process id into an annotation; fail, refuse or warn where a label asks for it."""
    meta = msgspec.json.decode(request.object, type=_Object).metadata
    labels = meta.labels or {}
    if "fail" in labels:
        raise RuntimeError("asked to fail")
    if "deny" in labels:
        return AdmissionAnswer(allowed=False, code=422, message="asked to refuse")
    note = str(os.getpid())
    patch = [{"op": "add", "path": f"/metadata/annotations/{NOTE}", "value": note}]
    if meta.annotations is None:
        patch = [{"op": "add", "path": "/metadata/annotations", "value": {NOTE: note}}]
    return AdmissionAnswer(patch=patch, warnings=[f"{labels['warn']}\n."] if "warn" in labels else [])


async def build(service):
    add_webhook(service, {"/annotate": annotate})


if __name__ == "__main__":
    sys.exit(main.run(ToySettings, build))
