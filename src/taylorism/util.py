"""World: any. Arrays that workers share: the public names of what `taylorism._shared` makes."""

from ._shared import SharedNumpyArray, UnsharableError

__all__ = ["SharedNumpyArray", "UnsharableError"]
