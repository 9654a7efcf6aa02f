"""However often a preset is edited and pods come and go, as much is remembered as before."""

from __future__ import annotations

import gc

import msgspec
from msgspec.structs import replace

from services.podpreset.api import CLUSTER_POD_PRESETS
from services.podpreset.presets import Caches
from services.podpreset.reviewer import Reviewer
from services.podpreset.status import CarriedPresets
from services.runtime.admission import AdmissionRequest, Resource
from services.runtime.kube.objects import KubeObject, ObjectMeta, raw

LIVE = 20
"""Pods that there are at any time."""


class Hook:
    """A webhook's caches, its answers, and the pods that came of them."""

    def __init__(self):
        self.caches = Caches(lambda _: None)
        self.carried = CarriedPresets(lambda *_: None)
        self.carried.store.replace([], "1")
        self.review = Reviewer(self.caches, None)
        self.version = 10
        self.edits = self.made = 0
        self.pods = []

    def meta(self, name, **more):
        self.version += 1
        return ObjectMeta(name=name, uid=name, resourceVersion=str(self.version), **more)

    def edit(self):
        self.edits += 1
        spec = {"env": [{"name": "HTTP_PROXY", "value": f"http://proxy-{self.edits}:3128"}]}
        resource = CLUSTER_POD_PRESETS
        obj = KubeObject(
            apiVersion=resource.api_version,
            kind=resource.kind,
            metadata=self.meta("proxy", generation=self.edits),
            spec=raw(spec),
        )
        self.caches.presets[resource.kind].apply("ADDED" if self.edits == 1 else "MODIFIED", obj)

    def pod(self):
        self.made += 1
        name = f"p{self.made}"
        body = raw({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "x"}]}})
        request = AdmissionRequest(
            uid=name,
            resource=Resource("", "v1", "pods"),
            name=name,
            namespace="team",
            operation="CREATE",
            object=body,
        )
        marks = {}
        for change in self.review(request).patch:
            if change["path"] == "/metadata/annotations":
                marks = msgspec.json.decode(msgspec.json.encode(change["value"]))
        pod = KubeObject(apiVersion="v1", kind="Pod", metadata=self.meta(name, namespace="team", annotations=marks))
        self.carried.store.apply("ADDED", pod)
        self.pods.append(pod)
        if len(self.pods) > LIVE:
            gone = self.pods.pop(0)
            meta = self.meta(gone.metadata.name, namespace="team", annotations=gone.metadata.annotations)
            self.carried.store.apply("DELETED", replace(gone, metadata=meta))

    def go_on(self, edits):
        for _ in range(edits):
            self.edit()
            for _ in range(8):
                self.pod()
        gc.collect()
        return len(gc.get_objects())


def test_edits_and_pods_leave_nothing_behind():
    hook = Hook()
    before = hook.go_on(50)
    assert len(hook.carried.store) == LIVE
    assert all(pod.metadata.annotations for pod in hook.pods), "the preset is for all of them"
    assert hook.go_on(500) - before < 100
