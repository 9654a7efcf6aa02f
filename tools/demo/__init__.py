"""`python -m tools.demo`: the system running on a real API server, shown step by step; a module for each service."""
