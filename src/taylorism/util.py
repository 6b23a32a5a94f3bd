"""World: any. Arrays that workers share: the public name of what `taylorism._shared` makes."""

from ._shared import SharedNumpyArray

__all__ = ["SharedNumpyArray"]
