"""The Chromium that tests drive."""

from __future__ import annotations

import os
import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """Return the path of Chromium: ``PLAYWRIGHT_CHROMIUM``, else the one on PATH, else None."""
    found = (shutil.which(name) for name in _NAMES)
    return os.environ.get("PLAYWRIGHT_CHROMIUM") or next(filter(None, found), None)


def why_no_browser() -> str | None:
    """Return why tests cannot drive a browser, or None if they can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install -e '.[test-browser]'"
    return None if find_chromium() else "no Chromium found, set PLAYWRIGHT_CHROMIUM to its program"
