"""pyVmomi's namespaces, taken as untyped.

pyVmomi ships annotations that cover data and leave constructors out, and that call optional what always is there. Half
of that would have to be silenced at each use, so it is done once, here.
"""

from __future__ import annotations

from typing import Any, Final

from pyVmomi import pbm as _pbm
from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl
from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapter
from pyVmomi.VmomiSupport import GuessWsdlType

vim: Final[Any] = _vim
vmodl: Final[Any] = _vmodl
pbm: Final[Any] = _pbm
type_of: Final[Any] = GuessWsdlType
StubBase: Any = SoapStubAdapter
ResponseDeserializer: Any = SoapResponseDeserializer

__all__ = ["ResponseDeserializer", "StubBase", "pbm", "type_of", "vim", "vmodl"]
