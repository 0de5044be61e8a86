"""The pool as it runs a certificate: whom it trains, with which seeds, and what kills cost."""

from __future__ import annotations

from pathlib import Path

from sweeper.search.plan import CANDIDATE, DEFAULTS, REPEAT
from tests import planned
from tests.foreign_app import App

NOISY = """
print("seed", cfg.seed)
return cfg.x + 0.1 * (cfg.seed % 7)
"""


def test_certificate_trains_each_candidate_as_often_as_planned(tmp_path: Path) -> None:
    """A folder with a plan makes the search's command train its candidates, whatever its own budget."""
    app = App(tmp_path, NOISY)
    app.configure("x: 0.0", "x: 0.25\nseed: 3")
    planned.put(app, planned.of_trials({"x": 0.5}, {"x": 0.75}))
    done = app.run(*planned.ARGUMENTS, "hydra.sweeper.n_trials=2", "hydra.sweeper.timeout_s=0")
    assert done.returncode == 0, done.stderr
    trials = planned.trials(app)
    counts = planned.assert_trained(trials, 9)
    assert counts == {"trial 0": 3, "trial 1": 3, DEFAULTS: 3}
    xs = {"trial 0": 0.5, "trial 1": 0.75, DEFAULTS: 0.25}
    seeds: dict[int, set[int]] = {}
    for trial in trials:
        (line,) = Path(trial.user_attrs["folder"], "sweeper_output.log").read_text().splitlines()
        seed = int(line.removeprefix("seed "))
        assert trial.values[0] == xs[trial.user_attrs[CANDIDATE]] + 0.1 * (seed % 7)
        seeds.setdefault(trial.user_attrs[REPEAT], set()).add(seed)
    assert {len(same) for same in seeds.values()} == {1}
    assert len(set.union(*seeds.values())) == 3
    assert f"Study {planned.NAME}: a certificate of s: 9 trainings of 3 candidates, in" in done.stdout
    assert "trial 1, 3 of 3" in done.stdout
    assert "Best" not in done.stdout
