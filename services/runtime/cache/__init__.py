"""A local copy of a resource that follows the server.

`store` holds it, `reflector` feeds it, `decide` says what the reflector does next.
"""
