"""scikit-learn's handwritten digits: 1797 images of 8x8 pixels, inside the package, no download."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test images, float32 [n, 8, 8] in 0..1, and their labels, int64 [n]."""
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=600, stratify=labels, random_state=0)
    return x, x_test, y, y_test
