"""The signs of one study: rules that read its trials."""

from __future__ import annotations

from sweeper.results.sign import Rule, Sign
from sweeper.results.study_record import StudyRecord

RULES: tuple[Rule[StudyRecord], ...] = ()
"""The rules, the most helpful first."""


def signs_of(seen: StudyRecord) -> list[Sign]:
    """The signs of a study, the most helpful first."""
    return []
