"""Evaluation data of every kind: images are read as what they are, and what cannot be read is named and counted."""

import json
import tarfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from nayer_cli.__main__ import main
from nayer_cli.errors import InputError
from nayer_cli.evaluate import measure
from nayer_cli.images.labelled import UNREADABLE, LabelledImages, open_images
from nayer_cli.images.pictures import MOST_PIXELS, decode, fit
from nayer_cli.images.sources.timm import TimmSource
from nayer_cli.types import ImageShape
from odd_networks import Brightness

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

SIDE = 16
SHAPE = ImageShape(3, SIDE, SIDE)
LEVELS = {"dark": 40, "light": 210}
EVAL = ["eval", "py:odd_networks:brightness", "--input-size", str(SIDE), "--mean", "0.5", "--std", "0.25"]


def picture(level: int, mode: str = "RGB") -> Image.Image:
    """A noisy image around one brightness."""
    noise = np.random.default_rng(level).integers(-30, 30, (SIDE, SIDE, 3))
    return Image.fromarray((level + noise).astype(np.uint8)).convert(mode)


def deep(level: int) -> Image.Image:
    return Image.fromarray(np.asarray(picture(level, "L")).astype(np.uint16) * 257)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(level: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    return encoded(picture(level), "JPEG", quality=100, exif=exif)


def animated(kind: str) -> Callable[[int], bytes]:
    """The first frame counts; the others show the opposite."""
    return lambda level: encoded(picture(level), kind, save_all=True, append_images=[picture(250 - level)])


KINDS: dict[str, Callable[[int], bytes]] = {
    "gray.png": lambda level: encoded(picture(level, "L"), "PNG"),
    "gray-alpha.png": lambda level: encoded(picture(level, "LA"), "PNG"),
    "one-bit.png": lambda level: encoded(picture(level).convert("1", dither=Image.Dither.NONE), "PNG"),
    "sixteen-bit.png": lambda level: encoded(deep(level), "PNG"),
    "sixteen-bit.tif": lambda level: encoded(deep(level), "TIFF"),
    "palette-alpha.png": lambda level: encoded(picture(level).quantize(8), "PNG", transparency=bytes(range(8))),
    "transparent.png": lambda level: encoded(picture(level, "RGBA"), "PNG"),
    "cmyk.jpg": lambda level: encoded(picture(level, "CMYK"), "JPEG", quality=100),
    "cmyk.tif": lambda level: encoded(picture(level, "CMYK"), "TIFF"),
    "progressive.jpg": lambda level: encoded(picture(level), "JPEG", progressive=True),
    "rotated.jpg": rotated,
    "animated.gif": animated("GIF"),
    "animated.webp": animated("WEBP"),
    "pages.tif": animated("TIFF"),
    "png-in-disguise.jpg": lambda level: encoded(picture(level), "PNG"),
}


def claims_many_pixels(level: int) -> bytes:
    content = bytearray(encoded(picture(level), "BMP"))
    content[18:26] = (30_000).to_bytes(4, "little") + (5_000).to_bytes(4, "little")
    return bytes(content)


def bit_flipped(level: int) -> bytes:
    content = bytearray(encoded(picture(level), "PNG"))
    content[len(content) // 2] ^= 1
    return bytes(content)


DAMAGED: dict[str, tuple[Callable[[int], bytes], str]] = {
    "truncated.jpg": (lambda level: encoded(picture(level), "JPEG")[:-60], "truncated"),
    "truncated.png": (lambda level: encoded(picture(level), "PNG")[:-300], ""),
    "bit-flipped.png": (bit_flipped, ""),
    "empty.jpg": (lambda level: b"", "not an image in a format that nayer reads"),
    "page.jpg": (lambda level: b"<!doctype html><title>404</title>", "not an image in a format that nayer reads"),
    "float.tif": (lambda level: encoded(picture(level, "F"), "TIFF"), "no fixed white"),
    "bomb.bmp": (claims_many_pixels, "declares 30000×5000 pixels"),
    "program.png": (lambda level: encoded(picture(level), "EPS"), "not an image in a format that nayer reads"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred plain images of each of two classes."""
    for name, level in LEVELS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(100):
            (tmp_path / "images" / name / f"{i:03}.png").write_bytes(encoded(picture(level), "PNG"))
    return tmp_path / "images"


def evaluated(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> dict[str, Any]:
    assert main([*EVAL, "--data", str(folder), "--device", "cpu", "--json", *options]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)["results"][0]
    return result


def refused(capsys: pytest.CaptureFixture[str], data: Path, *options: str) -> str:
    assert main([*EVAL, "--data", str(data), "--device", "cpu", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_keeps_its_brightness_whatever_its_kind(kind: str, tmp_path: Path) -> None:
    for name, level in LEVELS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / kind).write_bytes(KINDS[kind](level))
    ((images, labels),) = open_images(str(tmp_path), shape=SHAPE).batches(2)
    assert labels.tolist() == [0, 1]
    tolerance = 50 if kind == "one-bit.png" else 4
    for image, level in zip(images, LEVELS.values(), strict=True):
        assert abs(float(image.float().mean()) - np.asarray(picture(level)).mean()) < tolerance


def test_all_kinds_are_scored(folder: Path, capsys) -> None:
    for name, level in LEVELS.items():
        for kind, write in KINDS.items():
            (folder / name / kind).write_bytes(write(level))
    result = evaluated(capsys, folder)
    assert (result["n"], result["top1"], result["skipped"]) == (2 * (100 + len(KINDS)), 1.0, 0)


def test_the_orientation_of_a_camera_is_ignored_as_timm_and_torchvision_do() -> None:
    upright = Image.new("RGB", (SIDE, SIDE))
    upright.paste((255, 255, 255), (0, 0, SIDE, SIDE // 2))
    exif = Image.Exif()
    exif[0x0112] = 3
    file = BytesIO(encoded(upright, "JPEG", quality=100, exif=exif))
    assert fit(decode(file), SHAPE)[0].mean() > 250


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_image_is_left_out_counted_and_named(kind: str, folder: Path, capsys) -> None:
    write, reason = DAMAGED[kind]
    (folder / "dark" / kind).write_bytes(write(LEVELS["dark"]))
    result = evaluated(capsys, folder)
    assert (result["n"], result["skipped"], result["unreadable"]) == (200, 1, [f"dark/{kind}"])
    assert result["top1"] == 1.0
    data = open_images(str(folder), shape=SHAPE)
    data.prepare()
    assert reason in data.unreadable[f"dark/{kind}"]


def test_much_damage_is_an_error_that_names_files_and_reasons(folder: Path, capsys) -> None:
    for kind, (write, _) in DAMAGED.items():
        (folder / "light" / kind).write_bytes(write(LEVELS["light"]))
    err = refused(capsys, folder)
    assert "more than 1% of the 208 images" in err and "light/bit-flipped.png: " in err


@given(
    kind=st.sampled_from(sorted(KINDS)),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4)), min_size=1, max_size=8),
    end=st.integers(0, 2**16),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_is_a_fault_that_is_foreseen(kind: str, changes: list[tuple[int, bytes]], end: int) -> None:
    content = bytearray(KINDS[kind](LEVELS["dark"]))
    for position, new in changes:
        start = position % len(content)
        content[start : start + len(new)] = new
    with suppress(*UNREADABLE), warnings.catch_warnings(action="ignore"):
        assert fit(decode(BytesIO(content[: len(content) - end % 64])), SHAPE).shape == (SIDE, SIDE, 3)


def test_postscript_never_reaches_its_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: started.append(arguments))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encoded(picture(40), "EPS"))
    with pytest.raises(InputError, match=r"a/x.png: it is not an image in a format that nayer reads"):
        open_images(str(tmp_path), shape=SHAPE).prepare()
    assert started == []


def test_a_small_file_that_declares_many_pixels_takes_no_memory(tmp_path: Path) -> None:
    assert MOST_PIXELS < 30_000 * 5_000
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bmp").write_bytes(claims_many_pixels(40))
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(InputError, match="declares 30000×5000 pixels"):
        open_images(str(tmp_path), shape=SHAPE).prepare()


def test_an_empty_class_folder_is_named(folder: Path, capsys) -> None:
    (folder / "medium").mkdir()
    assert "class folder 'medium'" in refused(capsys, folder)


@pytest.mark.parametrize("what", ["empty folder", "folders without images", "empty tar", "empty npz"])
def test_zero_images_give_no_accuracy(what: str, tmp_path: Path, capsys) -> None:
    data = tmp_path / "data"
    if what.startswith(("empty folder", "folders")):
        (data / "dark").mkdir(parents=True)
        (data / "dark" / "notes.txt").write_text("no image")
        if what == "empty folder":
            (data / "dark" / "notes.txt").unlink()
    elif what == "empty tar":
        data = data.with_suffix(".tar")
        tarfile.open(data, "w").close()
    else:
        data = data.with_suffix(".npz")
        np.savez(data, images=np.zeros((0, SIDE, SIDE, 3), np.uint8), labels=np.zeros(0, np.int64))
    assert "image" in refused(capsys, data)


def test_a_limit_of_zero_is_refused(folder: Path, capsys) -> None:
    assert "limit" in refused(capsys, folder, "--limit", "0")


class EmptyStream:
    """A stream that promises images."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


def stream(*items: object) -> LabelledImages:
    source = TimmSource.__new__(TimmSource)
    source.name, source.dataset, source.classes = "wds/x", EmptyStream(*items), None
    return LabelledImages(source, SHAPE, where="wds/x")


def test_a_stream_without_images_gives_no_accuracy() -> None:
    with pytest.raises(InputError, match="wds/x holds no image that can be read"):
        measure(Brightness(), stream(), device=torch.device("cpu"), batch_size=2)


def test_a_stream_that_breaks_is_named() -> None:
    with pytest.raises(InputError, match=r"'wds/x' cannot be read beyond image 1: broken shard"):
        stream((picture(40), 0), RuntimeError("broken shard")).prepare()


def test_another_order_of_classes_is_matched_by_name_or_refused(folder: Path) -> None:
    data = open_images(str(folder), shape=SHAPE, class_names=("Light", "Dark"))
    assert [int(labels[0]) for _, labels in data.batches(100)] == [1, 0]
    for names in (("dark", "medium"), ("0", "1"), ("dark", "light", "medium")):
        with pytest.raises(InputError, match="classes"):
            open_images(str(folder), shape=SHAPE, class_names=names)


def test_as_many_classes_as_the_model_has(folder: Path, capsys) -> None:
    (folder / "medium").mkdir()
    (folder / "medium" / "x.png").write_bytes(encoded(picture(120), "PNG"))
    assert "has 3 classes, but the model has 2" in refused(capsys, folder)
