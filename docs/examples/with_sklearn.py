"""metafilm in scikit-learn's tools: python with_sklearn.py

A pipeline takes features under a task's deviations into another classifier; a grid search chooses settings by
cross-validation; `set_output` names the features. The pictures are scikit-learn's own digits, 8 x 8.
"""

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline

import metafilm


def main() -> None:
    X, y = load_digits(n_class=5, return_X_y=True)  # rows [n, 64]: they are taken for square pictures
    X, X_test, y, y_test = train_test_split(X, y, train_size=50, test_size=100, random_state=0, stratify=y)

    few_shot = metafilm.FewShotClassifier("omniglot-conv4").fit(X, y)
    print(f"by prototypes: {few_shot.score(X_test, y_test):.2f}")

    chain = Pipeline([("features", metafilm.FewShotClassifier()), ("classes", LogisticRegression())])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(chain, {"features__steps": [0, 1], "classes__C": [0.1, 1.0]}, cv=folds)
    search.fit(X, y)
    print(f"by a logistic regression on features: {search.score(X_test, y_test):.2f}")
    print(f"chosen: {search.best_params_}")

    frame = few_shot.set_output(transform="pandas").transform(X_test[:3])
    print(frame.iloc[:, :3])


if __name__ == "__main__":
    main()
