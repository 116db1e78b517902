"""The classifier is an estimator as scikit-learn's own checks and tools want it."""

import pickle
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from metafilm import FewShotClassifier


def expected_failures(estimator: Any) -> dict[str, str]:
    """Every check that is not passed, and why."""
    return {
        "check_methods_subset_invariance": "asked to 1e-7: float32 convolutions of a batch and of its parts "
        "add up in another order, and differ in the seventh digit",
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rows of .* are no square pictures:UserWarning")
@pytest.mark.filterwarnings("ignore:SCIPY_ARRAY_API is not set")
@parametrize_with_checks(
    [FewShotClassifier(steps=0, invert="no")], expected_failed_checks=expected_failures, xfail_strict=False
)
def test_as_scikit_learn_checks_it(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Eight drawings of each of the digits 0 to 3: rows of 64 numbers from 0 to 16, as they come."""
    X, y = load_digits(n_class=4, return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(y == label)[:8] for label in range(4)])
    return X[chosen], y[chosen]


def test_cross_validation_and_grid_search(digits) -> None:
    scores = cross_val_score(FewShotClassifier(), *digits, cv=2)
    assert scores.min() > 0.8
    search = GridSearchCV(FewShotClassifier(), {"steps": [0, 1]}, cv=2).fit(*digits)
    assert search.best_estimator_.score(*digits) > 0.9
    assert {tuple(found) for found in search.cv_results_["params"]} == {("steps",)}


def test_features_for_another_classifier_in_a_pipeline(digits) -> None:
    X, y = digits
    chain = make_pipeline(FewShotClassifier(), LogisticRegression()).fit(X[::2], y[::2])
    assert chain.score(X[1::2], y[1::2]) > 0.8
    first = chain[0]
    np.testing.assert_array_equal(
        first.transform(X), first.task_.embed(first.learner_.preprocess(X, recipe=first.recipe_)[0]).numpy()
    )
    last = make_pipeline(FunctionTransformer(lambda rows: rows / 16), FewShotClassifier()).fit(X, y)
    assert last.score(X, y) > 0.9


def test_set_output_names_the_features(digits) -> None:
    X, y = digits
    table = FewShotClassifier().set_output(transform="pandas").fit(X, y).transform(X)
    assert table.shape == (32, 64) and table.columns[1] == "fewshotclassifier1"


def test_names_of_columns_are_remembered(digits) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = digits
    table = pandas.DataFrame(X, columns=[f"pixel{i}" for i in range(64)])
    few = FewShotClassifier().fit(table, y)
    assert few.n_features_in_ == 64 and few.feature_names_in_[3] == "pixel3"
    with pytest.raises(ValueError, match="feature names"):
        few.predict(table[table.columns[::-1]])


def test_processes_of_joblib(digits) -> None:
    X, y = digits
    few = FewShotClassifier().fit(X, y)
    wanted = few.predict_proba(X)
    with joblib.parallel_config("threading", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(few.predict_proba)(X[part::2]) for part in range(2))
    for part in range(2):
        np.testing.assert_allclose(found[part], wanted[part::2], atol=1e-5)


def test_a_clone_has_the_parameters_and_nothing_learned(digits) -> None:
    few = FewShotClassifier(steps=1, invert="no").fit(*digits)
    fresh = clone(few)
    assert fresh.get_params() == few.get_params() and not hasattr(fresh, "task_")
    assert fresh.set_params(steps=0).steps == 0 and few.steps == 1


def test_a_learner_of_ones_own(digits, make_learner) -> None:
    learner = make_learner(dtype=torch.float32)
    few = FewShotClassifier(learner).fit(*digits)
    assert few.learner_ is learner
    copied = clone(few).fit(*digits)
    assert copied.learner_ is not learner
    np.testing.assert_array_equal(copied.predict_proba(digits[0]), few.predict_proba(digits[0]))


def test_a_pickle_keeps_what_metadata_is_asked_for() -> None:
    with config_context(enable_metadata_routing=True):
        few = FewShotClassifier().set_score_request(sample_weight=True)
        again = pickle.loads(pickle.dumps(few))
        assert again.get_metadata_routing().score.requests == {"sample_weight": True}
