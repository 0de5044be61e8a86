"""The API as its users write it; mypy reads this, and nobody runs it."""

from __future__ import annotations

from pathlib import Path

import sweeper


def trains() -> float:
    """A run, by overrides and by keywords."""
    run: sweeper.Run = sweeper.train(["optimizer=adam"], study="one", seed=3, **{"training.epochs": 5})
    again = sweeper.train(study="two", optimizer="adam")
    losses: list[float] = [row["val_loss"] for row in run.history]
    folder: Path = again.folder
    print(folder, losses, run.result["val_accuracy"], [sign.advice for sign in run.signs])
    return min(losses)


def searches() -> list[float]:
    """A study, its best run and its trials."""
    study = sweeper.sweep(["optimizer=adam,sgd", "optimizer.lr=interval(1e-4, 1e-2)"], study="mine")
    best = study.best
    number: int | None = best.number
    path: Path = study.report()
    page: Path = study.report(Path("report.html"))
    print(study.name, study.folder, number, best.params["optimizer"], path, page)
    print([run.values for run in study.solutions], study.dataframe(), study.run(0).history)
    print([trial.state.name for trial in study.trials])
    print([f"{sign.sign}: {sign.evidence} {sign.advice} {sign.command or ''}" for sign in study.signs])
    return [value for trial in study.trials if (value := trial.value) is not None]


def believes(study: sweeper.Study) -> float | None:
    """How sure the best trial is."""
    belief: sweeper.Belief | None = study.belief
    if belief is None:
        return None
    print(belief.metric, belief.value, belief.low, belief.high)
    print(belief.not_worse, belief.cheapest, belief.tied)
    return belief.luck


def certifies(study: sweeper.Study) -> float | None:
    """What the best trials are worth, in numbers."""
    certificate: sweeper.Certificate = study.certify(top=5, seeds=5, baseline=True, choose=True)
    best: str | None = certificate.best
    defaults = certificate["defaults"].expected[0]
    compared = certificate.compare("trial 7", "defaults")
    print(certificate.finished, best, certificate.not_worse, certificate.choice, defaults.told())
    print([(one.name, one.verdict, one.seconds, one.n) for one in certificate.candidates])
    print(study.certify(folds=4).n_trainings, defaults.low, defaults.high, defaults.luck)
    return None if compared is None or not compared.told_apart else compared.value


def opens() -> list[sweeper.Study]:
    """The newest study, and others by name and folder."""
    return [sweeper.open_study(), sweeper.open_study("mine"), sweeper.open_study(Path("outputs/mine"))]


def predicts(study: sweeper.Study) -> dict[str, float]:
    """The best model, of a study and by its folder."""
    model: sweeper.Classifier = study.best.model
    loaded = sweeper.load("outputs/mine/best", trust=True, device="auto").to("cpu")
    predictions: sweeper.Predictions = model.predict(["cat.jpg", Path("dog.jpg")], batch_size=8)
    first: sweeper.Prediction = predictions[0]
    names: tuple[str, ...] = loaded.classes
    print(names, first.name, first.classes, first.probability, first.top(3), predictions.unreadable)
    return {each.name: each.probability for each in loaded.predict("pets")}


def handles_errors() -> str:
    """What is wrong, in parts."""
    try:
        sweeper.sweep("optimizer=adam,sgd", study=None)
    except sweeper.BadInput as error:
        return f"{error.key} {error.value} {error.reason} {error.remedy}"
    except sweeper.Fault as fault:
        return fault.remedy
    except sweeper.Failed as failed:
        folder: Path | None = failed.folder
        return f"{failed.reason} {folder}"
    return sweeper.__version__


@sweeper.hooks(preload=["torch"])
def task(x: float) -> float:
    """What an app of one's own has of it."""
    sweeper.trial().report(x, 1)
    sweeper.trial().set_user_attr("x", x)
    return x


value: float = task(1.0)
modules: list[str] = [sweeper.search.__name__]
