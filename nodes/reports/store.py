"""Reports kept on disk, so that a page that is loaded again can show them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import folder_paths

from ...quant.files.write import make_folder, write_text

#: The number of reports that are kept. The oldest ones are removed.
MOST_REPORTS = 300
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class KeptReport:
    """Where a report is kept: its id, and the time in UTC (ISO 8601) when it was made."""

    id: str
    at: str


def keep_report(text: str) -> KeptReport:
    """Keep a layer view as JSON and return its id, which depends on the content alone."""
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    kept = KeptReport(hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), at)
    path = _path(kept.id)
    write_text(path, f'{{"at":"{at}","view":{text}}}')
    _remove_oldest(path.parent)
    return kept


def read_report(report_id: str) -> str | None:
    """Return a kept report as JSON with ``at`` and ``view``, or None if there is none."""
    if not _ID.fullmatch(report_id):
        return None
    try:
        return _path(report_id).read_text(encoding="utf-8")
    except OSError:
        return None


def _path(report_id: str) -> Path:
    folder = Path(folder_paths.get_output_directory(), "nvfp4_foundry", "reports")
    return make_folder(folder) / f"{report_id}.json"


def _remove_oldest(folder: Path) -> None:
    def changed(entry: os.DirEntry[str]) -> float:
        with contextlib.suppress(OSError):  # another ComfyUI may have removed it
            return entry.stat().st_mtime
        return 0.0

    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if entry.name.endswith(".json")]
    if len(kept) > MOST_REPORTS:
        for entry in sorted(kept, key=changed)[: len(kept) - MOST_REPORTS]:
            Path(entry.path).unlink(missing_ok=True)
