"""The CAPV integrator: static addresses for VSphereMachines that wait for them, endpoints for VSphereClusters.

Reading order: `api` (the objects of others), `annotations` (what users write), `waiting` (which NICs wait), `pools`
(out of which pools), `decide` (what is to be done now), `machines` and `clusters` (doing it), `service` (wiring).
"""
