"""Images → `pixel_values`, with Pillow and numpy alone.

The steps and their order are those of the image processors of transformers on their Pillow backend; most
image classifiers differ only in the values. Source: transformers 5.23, image_processing_backends.py
(`PilBackend`) and models/convnext/image_processing_pil_convnext.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.data import Sample
from edgekit.errors import DataError, ModelError
from edgekit.record import Skip
from edgekit.tasks.base import Inputs, Modality
from edgekit.tasks.samples import class_indices, require_kind

if TYPE_CHECKING:
    from PIL.Image import Image

_KNOWN_STEPS = {
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
    "do_flip_channel_order",
}
_OTHER_STEPS = ("rescale_offset",)  # of EfficientNet; without the "do_"
_CONVNEXT_WARPS_FROM = 384  # from this size on ConvNeXT resizes without a crop


@dataclass(frozen=True)
class Resize:
    """To an exact height and width, or the shorter side to a length with the shape kept.

    Attributes:
        height: Pixels; None where `shortest_edge` is given.
        width: Pixels; None where `shortest_edge` is given.
        shortest_edge: Pixels of the shorter side.
        resample: Pillow's number of the filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box,
            5 hamming.
    """

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    resample: int = 2

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the new (height, width) of an image."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        short = self.shortest_edge or min(height, width)
        long = int(short * max(height, width) / min(height, width))
        return (long, short) if width <= height else (short, long)


@dataclass(frozen=True)
class ImagePreprocessor:
    """Decodes, resizes, crops, scales and normalizes images.

    Attributes:
        input_name: The graph's input.
        channels: 3 for RGB, 1 for grayscale.
        resize: First step; None keeps the size.
        crop: Height and width cut from the middle, black where the image is smaller; None cuts nothing.
        rescale_factor: What pixels 0..255 are multiplied with; None leaves them.
        mean: Subtracted per channel after rescaling; None subtracts and divides nothing.
        std: Divided by per channel.
        label2id: Class name -> index.
        bgr: The channels come out as blue, green, red (MobileViT).
    """

    input_name: str
    channels: int
    resize: Resize | None
    crop: tuple[int, int] | None
    rescale_factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    label2id: Mapping[str, int] = field(default_factory=dict)
    modality: Modality = "image"
    bgr: bool = False

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        channels: int = 3,
        input_name: str = "pixel_values",
        label2id: Mapping[str, int] | None = None,
    ) -> ImagePreprocessor:
        """Read the values of a `preprocessor_config.json`.

        Args:
            config: Its keys.
            channels: `num_channels` of the model's configuration.
            input_name: The graph's input.
            label2id: Class name -> index.

        Raises:
            ModelError: The configuration asks for a step that is not known here, or lacks a value.
        """
        for key, value in config.items():
            if value and ((key.startswith("do_") and key not in _KNOWN_STEPS) or key in _OTHER_STEPS):
                raise ModelError(
                    f"preprocessor_config.json asks for '{key}', which edgekit does not do",
                    "Preprocess the images yourself and give them as an .npz of pixel_values.",
                )
        if channels not in (1, 3):
            raise ModelError(
                f"the model takes {channels} channels; images have 3 or 1", "Give an .npz instead."
            )
        crop = _height_width("crop_size", config.get("crop_size")) if config.get("do_center_crop") else None
        resize = _resize(config) if config.get("do_resize", "size" in config) else None
        if resize is not None and resize.shortest_edge is not None and config.get("crop_pct") is not None:
            resize, crop = _convnext(resize, float(config["crop_pct"]), crop)
        mean, std = _normalization(config, channels)
        return cls(
            input_name=input_name,
            channels=channels,
            resize=resize,
            crop=crop,
            rescale_factor=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else None,
            mean=mean,
            std=std,
            label2id=dict(label2id or {}),
            bgr=channels == 3 and bool(config.get("do_flip_channel_order", False)),
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of every image that comes out; None where they follow the image."""
        if self.crop is not None or self.resize is None:
            return self.crop
        exact = self.resize
        return None if exact.height is None or exact.width is None else (exact.height, exact.width)

    def sift(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skip, ...]]:
        """Return all samples, their kind and labels checked; images are decoded later, one at a time.

        Raises:
            DataError: A sample is no image, or a label is not one that the model knows.
        """
        require_kind(samples, "image", "arrays")
        for sample in samples:
            self.labels([sample], {})
        return tuple(samples), ()

    def batch(self, samples: Sequence[Sample], *, length: int | None = None) -> Inputs:
        """Images, or arrays that are pixel values already → float32 [batch, channels, height, width].

        `length` has no meaning here.

        Raises:
            DataError: A sample is no image, cannot be decoded, or the sizes within the batch differ.
        """
        require_kind(samples, "image", "arrays")
        arrays = [
            self._pixels(s.value) if isinstance(s.value, Path) else self._given(s.value) for s in samples
        ]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise DataError(
                f"the images of a batch have different sizes: {', '.join(map(str, shapes))}",
                "The model's preprocessing does not make them one size; give images of one size.",
            )
        return {self.input_name: np.stack(arrays)}

    def labels(self, samples: Sequence[Sample], inputs: Inputs) -> np.ndarray | None:
        """Return class indices [batch], or None where a sample has no label.

        Raises:
            DataError: A label is not one that the model knows.
        """
        if any(sample.label is None for sample in samples):
            return None
        return class_indices([sample.label for sample in samples], self.label2id)

    def to_json(self) -> dict[str, Any]:
        """Return the steps in order, as an app has to do them."""
        steps: list[dict[str, Any]] = [
            {"step": "decode", "mode": "RGB" if self.channels == 3 else "L", "orientation": "as EXIF says"}
        ]
        if self.channels == 3:
            steps[0]["transparency"] = "over white"
        if self.resize is not None:
            exact = {"height": self.resize.height, "width": self.resize.width}
            size = (
                exact if self.resize.shortest_edge is None else {"shortest_edge": self.resize.shortest_edge}
            )
            steps.append({"step": "resize", **size, "resample": self.resize.resample})
        if self.crop is not None:
            steps.append({"step": "center_crop", "height": self.crop[0], "width": self.crop[1]})
        if self.rescale_factor is not None:
            steps.append({"step": "multiply", "by": self.rescale_factor})
        if self.bgr:
            steps.append({"step": "reorder_channels", "order": "BGR"})
        if self.mean is not None and self.std is not None:
            steps.append({"step": "normalize", "mean": list(self.mean), "std": list(self.std)})
        height, width = self.size or ("height", "width")
        shape = ["batch", self.channels, height, width]
        return {
            "kind": "image",
            "inputs": {self.input_name: {"dtype": "float32", "shape": shape}},
            "steps": steps,
            "labels": sorted(self.label2id, key=self.label2id.__getitem__),
        }

    def _pixels(self, path: Path) -> np.ndarray:
        """File → float32 [channels, height, width]."""
        image = _decode(path, self.channels)
        if self.resize is not None:
            height, width = self.resize.target(image.height, image.width)
            image = image.resize((width, height), resample=self.resize.resample)
        pixels = np.asarray(image)
        pixels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
        if self.crop is not None:
            pixels = _center_crop(pixels, *self.crop)
        if self.rescale_factor is not None:
            pixels = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if self.bgr:
            pixels = pixels[::-1].copy()
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
            pixels = (pixels - mean) / std
        return pixels

    def _given(self, value: Mapping[str, np.ndarray]) -> np.ndarray:
        array = value.get(self.input_name) if len(value) > 1 else next(iter(value.values()))
        if array is None:
            raise DataError(f"the data has no array '{self.input_name}', only {', '.join(sorted(value))}")
        fits = array.ndim == 3 and len(array) == self.channels and self.size in (None, array.shape[1:])
        if not fits:
            wanted = (self.channels, *(self.size or ("height", "width")))
            raise DataError(
                f"a sample has shape {array.shape}, the model takes ({', '.join(map(str, wanted))})"
            )
        if array.dtype.kind != "f":
            raise DataError(
                f"the data is {array.dtype.name}, the model takes float32 pixel values",
                "Give what comes out of the model's own preprocessing, or a folder of images.",
            )
        return array.astype(np.float32)


def _decode(path: Path, channels: int) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(path) as file:
            if file.mode.startswith("I") or file.mode == "F":
                raise DataError(
                    f"{path} has more than 8 bits per channel", "Save it with 8 bits per channel."
                )
            image = ImageOps.exif_transpose(file)
            if channels == 1:
                return image.convert("L")
            if "A" in image.getbands() or image.info.get("transparency") is not None:
                image = image.convert("RGBA")
                image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, (255, 255, 255, 255)), image)
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise DataError(f"cannot decode the image {path}: {error}", "Remove or replace it.") from None


def _center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[channels, h, w] → [channels, height, width]; where the image is smaller, zeros surround it."""
    missing = [max(want - have, 0) for want, have in zip((height, width), pixels.shape[1:], strict=True)]
    # of an odd remainder the larger half goes before, as in transformers
    pixels = np.pad(pixels, [(0, 0), *((m - m // 2, m // 2) for m in missing)])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def _resize(config: Mapping[str, Any]) -> Resize:
    size = config.get("size")
    resample = config.get("resample")
    resample = 2 if resample is None else int(resample)
    if isinstance(size, Mapping) and size.get("shortest_edge") and not size.get("longest_edge"):
        return Resize(shortest_edge=int(size["shortest_edge"]), resample=resample)
    # Old files hold one number: the shorter side where a crop follows, else a square.
    if isinstance(size, int) and (config.get("do_center_crop") or config.get("crop_pct") is not None):
        return Resize(shortest_edge=size, resample=resample)
    height, width = _height_width("size", size)
    return Resize(height, width, resample=resample)


def _convnext(
    resize: Resize, keep: float, crop: tuple[int, int] | None
) -> tuple[Resize, tuple[int, int] | None]:
    edge = resize.shortest_edge or 0
    if edge >= _CONVNEXT_WARPS_FROM:
        return Resize(edge, edge, resample=resize.resample), crop
    return Resize(shortest_edge=int(edge / keep), resample=resize.resample), crop or (edge, edge)


def _height_width(key: str, size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise ModelError(
        f"preprocessor_config.json has {key} = {size!r}, which edgekit does not know",
        "Known: a number, height and width, or (for size) shortest_edge.",
    )


def _normalization(
    config: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation per channel, None and None where nothing is normalized.

    EfficientNet's `include_top` divides by the deviation once more.
    """
    normalize, again = config.get("do_normalize", "image_mean" in config), config.get("include_top", False)
    if not normalize and not again:
        return None, None
    mean = _per_channel(config, "image_mean", channels) if normalize else (0.0,) * channels
    std = _per_channel(config, "image_std", channels)
    return mean, tuple(value * value for value in std) if normalize and again else std


def _per_channel(config: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    values = config.get(key)
    values = [values] * channels if isinstance(values, int | float) else values
    if not isinstance(values, Sequence) or len(values) != channels:
        raise ModelError(f"preprocessor_config.json has {key} = {values!r} for {channels} channels")
    return tuple(float(value) for value in values)
