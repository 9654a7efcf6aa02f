"""Groundwork: small controllers for Cluster API on vSphere; see ARCHITECTURE.md for the reading order."""
