"""Check data that this package wrote itself: its types are those of a pydantic model."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

_Model = TypeVar("_Model", bound="StoredData")
_SHOWN = 3


class StoredData(BaseModel):
    """Base of the models. Numbers are not read from text; what newer versions added is ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def checked(model: type[_Model], data: Any) -> _Model:
    """Return data as a model.

    Raises:
        ValueError: the message names the first fields that are missing or of the wrong type.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg'].lower()}"
            for e in error.errors(include_url=False, include_input=False)[:_SHOWN]
        ]
        raise ValueError("; ".join(problems)) from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None
