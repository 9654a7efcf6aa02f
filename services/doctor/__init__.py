"""`groundwork doctor`: is it installed right, and what is to be done where it is not.

Reading order: `finding` (what is said), `seen` (everything that was read, as one value), `gather` (reading it: `reader`
with limits for every read), the checks, which are pure (`installation`, `admission`, `addresses`, `surroundings`), what
they go by (`definitions`, `rights`), `show` (how it looks), `command` (flags and exit codes).

It may import what belongs to services, and no service may import it.
"""
