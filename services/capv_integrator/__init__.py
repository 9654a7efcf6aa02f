"""Addresses, DNS servers and virtual IPs for CAPV's machines and clusters that wait for them."""
