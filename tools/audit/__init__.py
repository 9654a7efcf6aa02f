"""What the locked packages allow and what is known against them: licences and vulnerabilities.

`lock` reads the lock file, `licences` decides about licences, `advisories` about vulnerabilities, `page` keeps
docs/reference/licences.md; none of them asks a network but `advisories.ask`, and that only when told to.
"""
