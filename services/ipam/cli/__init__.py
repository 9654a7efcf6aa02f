"""`groundwork ipam`: looking at the allocator's objects from outside, and moving them between clusters.

Reading order: `command` (the subcommands), `snapshot` and `reading` (every object at about one moment), `overview` and
`tables` (what is shown), `facts` and `verify` (the ledger check), `portable`, `importplan` and `importer` (export and
import). It needs no running allocator.
"""
