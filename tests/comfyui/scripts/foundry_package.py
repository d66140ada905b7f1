"""Imports this repository as ``nvfp4_foundry`` in a Python that does not have it installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def import_foundry() -> None:
    """Make ``nvfp4_foundry`` importable without putting the repository on ``sys.path``.

    Its ``nodes/`` would shadow ComfyUI's own ``nodes.py`` there.
    """
    spec = importlib.util.spec_from_file_location(
        "nvfp4_foundry", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["nvfp4_foundry"] = package
    spec.loader.exec_module(package)


def take_tiny_models_for_whole() -> None:
    """Compare no model with the published ones: a tiny one has fewer parts than any of these."""
    from nvfp4_foundry.quant.planning import completeness

    completeness._missing_of_known = lambda *_: iter(())
