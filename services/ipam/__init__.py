"""The IP address allocator: metal3's IPPool, IPClaim and IPAddress, and the Cluster API IPAM contract.

Reading order: `api` (what users write), `intervals` and `space` (what a pool can give), `ledger` (what is taken),
`decide` (what a claim gets), `claims` and `pools` (carrying it out), `service` (wiring).
"""
