"""What each trial's model says of the validation pictures, to compare trials picture by picture; and of how
many trials a study keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweeper import filesystem, ranking
from sweeper.fault import Fault, disk
from sweeper.outcome import Outcome
from sweeper.record.run_files import RunFiles
from sweeper.record.study_files import StudyFiles
from sweeper.results.answer import Labels, Logits

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LOGITS_BYTES = 64 * 10**6
"""What the logits of a study's trials may take together."""
_ROOM_AHEAD = 2 * 10**6
"""Of these, what is left free where many small files have no room, so that not each trial counts them all.
Until that is taken, the next trials keep theirs, whatever they reach."""
LOWEST = -65504.0
"""The lowest number that float16 has; logits further below the others are as good as this."""
HOPELESS = 2
"""Arrays of so many times the room are not even compressed: that saves a quarter at best."""


@dataclass(frozen=True)
class ValLogits:
    """The logits on the validation pictures in their order, float16 (n, n_classes), as ``rounded``.

    ``labels`` are int64 (n,), or uint8 (n, n_labels) of 0 and 1 if pictures may have several.
    ``pictures`` is a digest of which pictures these are, in which order, and of what they show: only trials
    with the same one can be compared. The size at which a network sees them does not matter.
    """

    logits: NDArray[np.float16]
    labels: Labels
    pictures: str

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def write(self, files: RunFiles) -> None:
        """Write ``val_logits.npz``; nothing where it alone would take more than a study may."""
        if self.logits.nbytes > HOPELESS * LOGITS_BYTES:
            return
        content = BytesIO()
        np.savez_compressed(
            content, logits=self.logits, labels=self.labels, pictures=np.array(self.pictures, dtype=np.str_)
        )
        if content.getbuffer().nbytes <= LOGITS_BYTES:
            with filesystem.whole(files.val_logits) as path:
                path.write_bytes(content.getbuffer())

    @classmethod
    def read(cls, files: RunFiles) -> ValLogits | None:
        """Those of a run of ours; None where it has kept none.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.is_ours or not files.val_logits.exists():
            return None
        with filesystem.arrays(files.val_logits, "holds no logits") as found:
            read = cls(found["logits"], found["labels"], str(found["pictures"]))
            read._check()
        return read

    def _check(self) -> None:
        """Raises ValueError unless all parts fit together."""
        n, n_classes = self.logits.shape
        labels = self.labels
        fits = (
            self.logits.dtype == np.float16
            and n_classes > 0
            and labels.dtype.kind in "iu"
            and labels.shape == ((n, n_classes) if self.multi_label else (n,))
            and labels.min(initial=0) >= 0
            and labels.max(initial=0) < (2 if self.multi_label else n_classes)
        )
        if not fits:
            raise ValueError("its parts do not fit together")


def rounded(logits: Logits, multi_label: bool) -> NDArray[np.float16]:
    """Logits in float16 that give the same answers: the same classes share the maximum, or of several labels
    the same ones are at least 0.

    Of one label the row's maximum is taken off, which no softmax sees, and which leaves most digits where
    they matter. All is rounded down, so that nothing below 0 becomes 0. What is no number stays none; where
    there is one, comparing logits has no meaning.
    """
    exact = logits.astype(np.float64)
    if not multi_label:
        highest = np.where(np.isnan(exact), -np.inf, exact).max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            exact = np.where(exact == highest, 0.0, exact - highest)
        exact[np.isnan(logits)] = np.nan
    bounded = np.clip(exact, LOWEST, -LOWEST)
    near = bounded.astype(np.float16)
    is_above = near > bounded
    near[is_above] = np.nextafter(near[is_above], np.float16(-np.inf))
    return near


# ------------------------------------------------------------------------------------------ whose are kept


def keep_best(files: StudyFiles, found: Outcome, ended: int | None = None) -> None:
    """Keep the logits of the best trials, as many as have room together. Call under the study's lock.

    The last count tells how many trials more have room, if theirs take no more than a quarter above the
    largest of them. Until then only the file of the trial that ended is looked at.

    Args:
        ended: the trial that has just ended; None counts those of all.
    """
    trials = found.trials
    if ended is None:
        is_due = files.logits_count.exists()  # else none has been kept so far
    else:
        n_bytes = _bytes(files, trials[ended]) if ended < len(trials) else 0
        is_due = n_bytes > 0 and not _has_room(files, found.counts.get("COMPLETE", 0), n_bytes)
    if is_due:
        with disk(files.folder):
            _count(files, ranking.ranked(trials, found.directions))


def _has_room(files: StudyFiles, n_done: int, n_bytes: int) -> bool:
    """Whether the logits of all trials surely fit, the last of which took so many bytes."""
    try:
        last = filesystem.read_json(files.logits_count)
        before, n_before, most = (int(last[name]) for name in ("bytes", "n_done", "most"))
    except (Fault, KeyError, TypeError, ValueError):  # not there, or damaged
        return False
    return n_bytes <= most and before + (n_done - n_before) * most <= LOGITS_BYTES


def _count(files: StudyFiles, ranked: Sequence[FrozenTrial]) -> None:
    sizes = [_bytes(files, trial) for trial in ranked]
    most, room = max(sizes, default=0) * 5 // 4, LOGITS_BYTES
    if sum(sizes) > room and most <= _ROOM_AHEAD // 8:
        room -= _ROOM_AHEAD
    total = 0
    for trial, n_bytes in zip(ranked, sizes, strict=True):
        if total + n_bytes <= room or n_bytes == 0:
            total += n_bytes
            continue
        files.trial(trial).run.val_logits.unlink(missing_ok=True)
        if n_bytes <= LOGITS_BYTES:  # else it never had room
            room = 0  # for those that are worse, too: those that are kept are the best
    filesystem.write_json(files.logits_count, {"bytes": total, "n_done": len(ranked), "most": most})


def _bytes(files: StudyFiles, trial: FrozenTrial) -> int:
    """What the logits of a trial take, if it is completed and a run of ours; others keep none."""
    run = files.trial(trial).run
    n_bytes = filesystem.size(run.val_logits) if trial.state.name == "COMPLETE" else 0
    return n_bytes if n_bytes and run.is_ours else 0
