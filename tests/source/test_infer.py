"""Which task a checkpoint is for."""

import pytest

from edgekit.errors import RecipeError
from edgekit.source.infer import infer_task


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("DeiTForImageClassification", "image-classification"),
        ("DeiTForImageClassificationWithTeacher", "image-classification"),
        ("MobileViTForImageClassification", "image-classification"),
    ],
)
def test_the_class_says_the_task_also_where_optimum_does_not_know_it(name, task) -> None:
    assert infer_task({"architectures": [name]}) == task


def test_a_classifier_of_several_labels_per_sample_is_a_task_of_its_own() -> None:
    config = {
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "multi_label_classification",
    }
    assert infer_task(config) == "multi-label-text-classification"
    assert infer_task(config | {"problem_type": None}) == "text-classification"
    assert infer_task(config | {"architectures": ["BertModel"]}) == "feature-extraction"


@pytest.mark.parametrize("name", ["T5EncoderModel", "BertForMaskedLM"])
def test_a_class_of_no_task_here_is_refused_with_the_way_out(name) -> None:
    with pytest.raises(RecipeError, match=name) as caught:
        infer_task({"architectures": [name]})
    assert "--task generic" in caught.value.hint
