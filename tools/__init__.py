"""Developer tools: pinned control-plane binaries and the local cluster that the demo, the tests and the benches share.

Nothing here ships in the distribution: `services` never imports `tools`.
"""
