"""The signs of one run: rules that read its curves."""

from __future__ import annotations

from sweeper.results.run_record import RunRecord
from sweeper.results.sign import Rule, Sign

RULES: tuple[Rule[RunRecord], ...] = ()
"""The rules, the most helpful first."""


def signs_of(seen: RunRecord) -> list[Sign]:
    """The signs of a run, the most helpful first."""
    found = ((rule, rule.read(seen)) for rule in RULES)
    return [
        Sign(
            rule.sign,
            finding.evidence,
            finding.advice,
            " ".join([seen.again, *finding.changes]) if finding.changes else None,
        )
        for rule, finding in found
        if finding is not None
    ]
