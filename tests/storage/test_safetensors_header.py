from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import hostile
from nayer_cli.storage.safetensors_header import BITS, check_header

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn]
TENSORS = st.builds(
    lambda shape, kind: torch.zeros(shape).to(kind),
    array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    st.sampled_from(TYPES),
)


@given(tensors=st.dictionaries(st.text(min_size=1), TENSORS, max_size=4))
def test_what_the_library_writes_is_sound(
    tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "sound"
    path.write_bytes(save({name: tensor for name, tensor in tensors.items() if name != "__metadata__"}))
    check_header(path)


@pytest.mark.parametrize("kind", BITS)
def test_the_size_of_each_type_is_the_librarys(kind: str, tmp_path: Path) -> None:
    size = BITS[kind]  # eight elements
    (tmp_path / "x").write_bytes(hostile.safetensors({"a": hostile.entry([8], 0, size, kind)}, bytes(size)))
    check_header(tmp_path / "x")
    assert load_file(tmp_path / "x")["a"].nbytes == size


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8), hostile.safetensors({}, b"1")])
def test_a_file_that_its_header_does_not_describe(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SafetensorError):
        check_header(tmp_path / "x")
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "x")


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 12), st.sampled_from(["U8", "F32"]), st.integers(0, 4)), max_size=3
    ),
    st.integers(0, 16),
)
def test_what_is_sound_can_be_loaded(spans: list[tuple[int, int, str, int]], size: int) -> None:
    header = {str(i): hostile.entry([count], begin, end, kind) for i, (begin, end, kind, count) in enumerate(spans)}
    with TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(hostile.safetensors(header, bytes(size)))
        try:
            check_header(path)
        except SafetensorError:
            return
        assert load_file(path).keys() == header.keys()
