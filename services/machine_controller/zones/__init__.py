"""Failure domains: VSphereDeploymentZones looked at in vCenter, and published on the VSphereClusters that select them.

Reading order: `decide` (what the checks say), `observe` (asks vCenter), `tagging` and `autoconfigure` (tags that
failure domains need), `identity` (whose credentials), `reconciler` (one zone), `publish` and `publisher` (one
VSphereCluster), `service` (wiring).
"""
