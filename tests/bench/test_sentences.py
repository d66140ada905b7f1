"""The texts of the sentence encoder are prose, and no text is in both groups."""

from __future__ import annotations

import pytest
import sentences
from sentences import draw_sentences, prose_of

SOURCE = '''
"""Short.

This paragraph goes over
two lines, and has a second sentence. It is kept.
"""

def fit():
    """Compute x = y @ z for all of the rows and all of the columns.

    Parameters ---------- rows must be given, and columns may be left out.
    """
'''


def test_only_prose_is_taken() -> None:
    expected = "This paragraph goes over two lines, and has a second sentence. It is kept."
    assert list(prose_of(SOURCE)) == [expected]


def test_the_groups_are_fixed_and_share_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(sentences, "PACKAGES", ("skimage",))
    calibrating, judging = draw_sentences(100, 40)
    assert (len(calibrating), len(judging)) == (100, 40)
    assert not set(calibrating) & set(judging)
    assert draw_sentences(100, 40) == (calibrating, judging)
    with pytest.raises(ValueError, match="texts"):
        draw_sentences(10**6, 1)
