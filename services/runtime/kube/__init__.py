"""Talking to the Kubernetes API.

Reading order: `objects`, `resource`, `errors` and `conditions` (values), `config` and `transport` (one call),
`discovery` (what is served) and `events` (what users are told).
"""
