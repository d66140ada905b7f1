"""The base class of all nodes of the pack."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..quant.text import printable
from .prompts.validation import wrong_input
from .reports.errors import refused, report_error


class FoundryNode(io.ComfyNode):
    """A node that shows its errors in itself, with what would help.

    Values of the wrong type are refused before the node is asked. Names from files may hold
    control characters; errors and refusals have them as escapes, because ComfyUI logs them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guard the functions of the node that ComfyUI calls."""
        super().__init_subclass__(**kwargs)
        guards = (
            ("execute", _reporting),
            ("validate_inputs", _refusing),
            ("fingerprint_inputs", _printable),
        )
        for name, guard in guards:
            own = cls.__dict__.get(name)
            # ComfyUI makes locked copies of a class, with all that it has
            if isinstance(own, classmethod) and not hasattr(own.__func__, "__wrapped__"):
                guarded = functools.wraps(own.__func__)(guard(own.__func__))
                # ComfyUI asks which inputs a function takes
                guarded.__dict__["__signature__"] = inspect.signature(own.__func__)
                setattr(cls, name, classmethod(guarded))


def _reporting(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``execute`` so that its errors are sent to the page."""

    def execute(cls: type[FoundryNode], *args: Any, **inputs: Any) -> Any:
        try:
            return own(cls, *args, **inputs)
        except Exception as error:  # an interruption is no Exception
            _make_printable(error)
            report_error(error)
            raise

    return execute


def _refusing(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``validate_inputs`` so that it always answers."""

    def validate_inputs(cls: type[FoundryNode], *args: Any, **inputs: Any) -> bool | str:
        problem = wrong_input()
        if problem is not None:
            return refused(printable(problem))
        try:
            valid = own(cls, *args, **inputs)
        except Exception as error:
            return refused(printable(f"the inputs cannot be checked: {error}"))
        return printable(valid) if isinstance(valid, str) else valid

    return validate_inputs


def _printable(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fingerprint_inputs`` with printable errors."""

    def fingerprint_inputs(cls: type[FoundryNode], *args: Any, **inputs: Any) -> Any:
        try:
            return own(cls, *args, **inputs)
        except Exception as error:
            _make_printable(error)
            raise

    return fingerprint_inputs


def _make_printable(error: BaseException | None) -> None:
    """Write control characters in the messages of an error and of its causes as escapes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(printable(a) if isinstance(a, str) else a for a in error.args)
        error = error.__cause__ or error.__context__
