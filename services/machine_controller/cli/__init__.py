"""`groundwork machine`: what helps people who run clusters on vSphere, with or without this service.

Reading order: `command` (the subcommands), `kubevip`.
"""
