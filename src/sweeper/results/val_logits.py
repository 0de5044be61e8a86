"""What each trial's model says of the validation pictures, to compare trials picture by picture."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from sweeper import record
from sweeper.record import LOGITS_BYTES, RunFiles
from sweeper.results.answer import Labels, Logits

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
            with record.whole(files.val_logits) as path:
                path.write_bytes(content.getbuffer())

    @classmethod
    def read(cls, files: RunFiles) -> ValLogits | None:
        """Those of a run of ours; None where it has kept none.

        Raises:
            Fault: if the file is damaged.
        """
        if not files.is_ours or not files.val_logits.exists():
            return None
        with record.arrays(files.val_logits, "holds no logits") as found:
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
