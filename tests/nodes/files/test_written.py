"""Files that are gone are written again."""

from __future__ import annotations

from pathlib import Path

from nvfp4_foundry.nodes.files.written import WrittenFiles


def test_only_a_lost_file_changes_the_number(tmp_path: Path) -> None:
    written, path = WrittenFiles(), tmp_path / "a"
    assert written.times_lost(("node", "a")) == 0
    path.write_text("content")
    written.add(("node", "a"), path)
    assert written.times_lost(("node", "a")) == 0  # as before it was written
    path.unlink()
    assert written.times_lost(("node", "a")) == 1
    assert written.times_lost(("node", "a")) == 1
    path.write_text("content")
    written.add(("node", "a"), path)
    assert written.times_lost(("node", "a")) == 1
    path.write_text("other content")
    assert written.times_lost(("node", "a")) == 2
    assert written.times_lost(("node", "b")) == 0
