"""`groundwork podpreset`: what presets do to pods, told without creating one.

Reading order: `command` (the subcommands), `documents`, `workloads` and `live` (what is looked at), `whatif` and
`explain` (what a pod would get and why), `lint`, `convert`, `stale`, `policy` (the other questions), `tables` and
`redact` (what is shown). It needs no running webhook, and with files no cluster.
"""
