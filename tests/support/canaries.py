"""Canaries: words that nobody else has, put where secrets are, and looked for in everything that a service says.

Responsible for: making them, and finding them in text whatever it was turned into on the way: as it is, in base64 at
any place of a longer text, in hexadecimal, percent-encoded, or back to front.
Invariant: a canary is letters and digits alone, so that quoting does not hide it.
"""

from __future__ import annotations

import base64
import uuid

LEAST = 12
"""Characters of a text that is planted as it is; a shorter one would be found by chance."""


class Canaries:
    def __init__(self):
        self._forms = {}

    def new(self, what):
        """A new word; `what` is said of it where it is found."""
        return self.plant(what, f"canary{uuid.uuid4().hex}")

    def plant(self, what, text):
        """Look for a text that exists, such as a token."""
        assert len(text) >= LEAST
        self._forms[what] = {text, text[::-1], text.encode().hex(), *_base64(text.encode())}
        return text

    def found(self, *texts):
        """What is in the texts, each with some of its surroundings."""
        return {
            what: text[max(0, text.find(form) - 100) : text.find(form) + 100]
            for what, forms in self._forms.items()
            for form in forms
            for text in texts
            if form in text
        }


def _base64(content):
    """The part of the base64 of anything that holds `content` that depends on nothing else, at its three places."""
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + content).decode()
        first = -(-before * 8 // 6)
        last = (before + len(content)) * 8 // 6
        forms |= {encoded[first:last], encoded[first:last].replace("+", "-").replace("/", "_")}
    return forms


async def said(kube, namespaces, resources):
    """Everything that services wrote into the API server: Events, statuses and annotations, as text."""
    listed = [
        obj
        for namespace in namespaces
        for resource in resources
        for obj in await kube.list(resource, namespace if resource.namespaced else "")
    ]
    # What a user wrote into a spec is not said by a service.
    return [str({key: value for key, value in obj.items() if key != "spec"}) for obj in listed]
