"""A real Kubernetes node on this machine, for `make e2e`: in namespaces of its own, and gone without a trace."""

from tools.node.node import Node, NodeError

__all__ = ["Node", "NodeError"]
