"""Images become the pixel values that the image processors of transformers give."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data import Sample
from edgekit.errors import DataError, ModelError
from edgekit.tasks.image import ImagePreprocessor

VIT = {
    "do_resize": True,
    "size": {"height": 16, "width": 24},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
}
CLIP = VIT | {
    "size": {"shortest_edge": 18},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 17},
}


def picture(path: Path, width: int, height: int, mode: str = "RGB", seed: int = 0) -> Path:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


def theirs(name: str, config: dict, path: Path) -> np.ndarray:
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, name)(**config)
    return processor(Image.open(path), return_tensors="np")["pixel_values"]


@pytest.mark.parametrize(
    "size", [(40, 30), (30, 41), (5, 7)], ids=["wide", "tall", "smaller than the target"]
)
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ViTImageProcessorPil", VIT),
        ("ViTImageProcessorPil", VIT | {"resample": 3, "do_normalize": False}),
        ("ViTImageProcessorPil", VIT | {"resample": 0, "do_rescale": False}),
        ("ViTImageProcessorPil", CLIP),
        ("ViTImageProcessorPil", CLIP | {"do_resize": False}),
        ("CLIPImageProcessorPil", CLIP),
        ("ConvNextImageProcessorPil", VIT | {"size": {"shortest_edge": 20}, "crop_pct": 0.875}),
        ("MobileViTImageProcessorPil", CLIP | {"do_normalize": False, "do_flip_channel_order": True}),
        ("EfficientNetImageProcessorPil", VIT | {"include_top": True}),
        ("EfficientNetImageProcessorPil", VIT | {"include_top": True, "do_normalize": False}),
        ("ConvNextImageProcessorPil", VIT | {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
    ],
)
def test_pixel_values_are_those_of_the_pillow_backend_of_transformers(tmp_path, name, config, size):
    path = picture(tmp_path / "a.png", *size)
    ours = ImagePreprocessor.from_config(config).batch([Sample(path)])["pixel_values"]
    assert ours.dtype == np.float32
    # the same float32 operations in the same order: what is left is one rounding of a sum of that size
    np.testing.assert_allclose(ours, theirs(name, config, path), rtol=1e-6, atol=1e-6)


def test_the_file_that_transformers_saves_is_understood(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    made = ImagePreprocessor.from_config(config)
    assert made.size == (8, 8)
    path = picture(tmp_path / "a.png", 20, 10)
    expected = theirs("ViTImageProcessorPil", {"size": {"height": 8, "width": 8}}, path)
    np.testing.assert_allclose(made.batch([Sample(path)])["pixel_values"], expected, rtol=1e-6, atol=1e-6)


def test_transparency_is_laid_over_white_and_gray_becomes_rgb(tmp_path):
    plain = ImagePreprocessor.from_config({"do_rescale": False})
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (2, 2), 7).save(tmp_path / "gray.png")
    batch = plain.batch([Sample(tmp_path / "clear.png"), Sample(tmp_path / "gray.png")])["pixel_values"]
    assert (batch[0] == 255).all()
    assert (batch[1] == 7).all()
    assert batch.shape == (2, 3, 2, 2)


def test_a_model_of_one_channel_gets_gray(tmp_path):
    config = {"size": 8, "do_normalize": True, "image_mean": 0.5, "image_std": 0.5}
    made = ImagePreprocessor.from_config(config, channels=1)
    batch = made.batch([Sample(picture(tmp_path / "a.png", 9, 9))])["pixel_values"]
    assert batch.shape == (1, 1, 8, 8)
    assert np.abs(batch).max() <= 1


def test_a_photo_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    batch = ImagePreprocessor.from_config({}).batch([Sample(tmp_path / "a.jpg")])["pixel_values"]
    assert batch.shape == (1, 3, 6, 4)


def test_arrays_that_are_pixel_values_already_are_taken_as_they_are():
    made = ImagePreprocessor.from_config(VIT)
    values = np.random.default_rng(0).normal(size=(3, 16, 24))
    for name in ("pixel_values", "x"):
        np.testing.assert_array_equal(
            made.batch([Sample({name: values})])["pixel_values"][0], values.astype(np.float32)
        )
    for wrong in (values[:1], values[:, :8], values[0], values[0, 0]):
        with pytest.raises(DataError, match=r"the model takes \(3, 16, 24\)"):
            made.batch([Sample({"pixel_values": wrong})])
    with pytest.raises(DataError, match="the data is uint8"):
        made.batch([Sample({"pixel_values": values.astype(np.uint8)})])
    with pytest.raises(DataError, match="no array 'pixel_values', only a, b"):
        made.batch([Sample({"a": values, "b": values})])


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot decode the image .*broken\.png"):
        ImagePreprocessor.from_config(VIT).batch([Sample(tmp_path / "broken.png")])


def test_a_truncated_image_is_named(tmp_path):
    content = picture(tmp_path / "a.png", 50, 50).read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot decode the image .*b\.png"):
        ImagePreprocessor.from_config(VIT).batch([Sample(tmp_path / "b.png")])


def test_an_image_of_16_bits_is_refused_as_pillow_would_clip_it(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        ImagePreprocessor.from_config(VIT).batch([Sample(tmp_path / "a.png")])


def test_images_that_stay_of_different_sizes_are_refused(tmp_path):
    made = ImagePreprocessor.from_config({"size": {"shortest_edge": 8}})
    batch = [Sample(picture(tmp_path / "a.png", 9, 9)), Sample(picture(tmp_path / "b.png", 9, 18))]
    with pytest.raises(DataError, match="different sizes"):
        made.batch(batch)


def test_text_is_refused():
    with pytest.raises(DataError, match="the data is text, the model wants images"):
        ImagePreprocessor.from_config(VIT).batch([Sample("hello")])


@pytest.mark.parametrize(
    ("config", "channels", "message"),
    [
        ({"do_pad": True}, 3, "asks for 'do_pad'"),
        ({"rescale_offset": True}, 3, "asks for 'rescale_offset'"),
        ({"size": {"longest_edge": 9}}, 3, "size = {'longest_edge': 9}"),
        ({"do_center_crop": True}, 3, "crop_size = None"),
        ({"do_normalize": True}, 3, "image_mean = None for 3 channels"),
        ({"do_normalize": True, "image_mean": [0.5], "image_std": [1]}, 3, "for 3 channels"),
        ({}, 4, "the model takes 4 channels"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(config, channels, message):
    with pytest.raises(ModelError, match=message):
        ImagePreprocessor.from_config(config, channels=channels)


def test_folder_names_become_class_indices(tmp_path):
    made = ImagePreprocessor.from_config(VIT, label2id={"cat": 0, "dog": 1})
    assert made.labels([Sample(tmp_path, "dog"), Sample(tmp_path, "cat")], {}).tolist() == [1, 0]
    assert made.labels([Sample(tmp_path, "dog"), Sample(tmp_path)], {}) is None
    with pytest.raises(DataError, match="Did you mean 'dog'"):
        made.labels([Sample(tmp_path, "dogs")], {})


def test_the_description_lists_the_steps_in_order():
    said = json.loads(json.dumps(ImagePreprocessor.from_config(CLIP).to_json()))
    steps = [step["step"] for step in said["steps"]]
    assert steps == ["decode", "resize", "center_crop", "multiply", "normalize"]
    assert said["inputs"]["pixel_values"]["shape"] == ["batch", 3, 16, 17]
