# The messages are made at run time from the descriptors, so a type checker sees them as Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
