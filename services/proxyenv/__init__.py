"""What proxy variables mean: lists of NO_PROXY, how they are merged and completed, and how clients read them.

Pure: no I/O. Shared by the services that set such variables for pods, for the host OS and for the container runtime.
"""
