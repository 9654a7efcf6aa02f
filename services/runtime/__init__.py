"""A controller runtime for Kubernetes in asyncio: no business words in here.

Reading order: `kube` (objects, errors, one HTTP call), `cache` (a local copy that follows the server), `queue` and
`controller` (one key at a time), `leader` (one writer), `manager` (start and stop in the right order).
"""
