"""Names of claims.

Responsible for: a name that follows from what a claim is for, so that a claim which exists already is found instead of
made twice, whatever was lost on the way.
Invariants: the same owner, place and pool give the same name, before and after a move to another management cluster
(uids do not count). Different ones give different names, in whatever namespaces: providers that know a claim by its
name alone (a DNS record, a pool's own list) cannot take one for another. A name is a DNS label where its owner's is.
Must not know: which kind of claim carries the name.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.capv_integrator.api import PoolRef

NAME_LIMIT = 63
_HASH_BYTES = 10  # 80 bits: nobody has enough machines for a collision
ENDPOINT = "endpoint"


def claim_name(owner_kind: str, namespace: str, owner: str, place: str, pool: PoolRef) -> str:
    """`<owner>-<place>-<16 characters of a hash>`; `place` is the index of the device, or `ENDPOINT`.

    The owner's name is cut where the whole would have more than 63 characters.
    """
    # Each part is preceded by its length, so that no two rows of parts give the same text.
    parts = (owner_kind, namespace, owner, place, *pool)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]
    suffix = f"-{place}-{base64.b32encode(digest).decode().lower()}"
    return owner[: NAME_LIMIT - len(suffix)].rstrip("-.") + suffix
