"""The allocator as a process."""

from __future__ import annotations

from tests.support.service import ServiceProcess


class Allocator(ServiceProcess):
    """`python -m services.ipam` against one cluster; `flags` are added to its command line."""

    module = "services.ipam"
