"""The base class of all nodes of the pack."""

from __future__ import annotations

import functools
from typing import Any

from comfy_api.latest import io

from .reports.errors import report_error


class FoundryNode(io.ComfyNode):
    """A node that shows its errors in itself, with what would help."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Report the errors of ``execute``."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("execute")
        if not isinstance(own, classmethod) or hasattr(own.__func__, "__wrapped__"):
            return  # ComfyUI makes locked copies of a class, with all that it has

        @functools.wraps(own.__func__)
        def execute(subclass: type[FoundryNode], *args: Any, **inputs: Any) -> io.NodeOutput:
            try:
                return own.__func__(subclass, *args, **inputs)
            except Exception as error:  # an interruption is no Exception
                report_error(error)
                raise

        cls.execute = classmethod(execute)
