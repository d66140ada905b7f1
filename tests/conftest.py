"""Asserts in the modules beside the tests explain themselves as those in tests do.

The modules are found by name: ``pythonpath`` in pyproject.toml.
"""

import pytest

pytest.register_assert_rewrite(
    "command_line",
    "conversions",
    "gguf_files",
    "moments_by_hand",
    "quantized_files",
    "source_kinds",
)
