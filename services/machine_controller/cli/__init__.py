"""`groundwork machine`: what helps people who run clusters on vSphere, with or without this service.

Reading order: `command` (the subcommands), `kubevip`, `zones` (flags and output), `zonesite` (what vCenter has)
and `zonesread`, `zonesplan` (objects made of it), `zonesapply`, `zonesconnect` (credentials).
"""
