import tarfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from nayer_cli.errors import InputError
from nayer_cli.images.sources import tar


def picture(value):
    file = BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def write(path, names, mode="w", extra=()):
    with tarfile.open(path, mode) as archive:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = picture(i)
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return str(path)


def read(source):
    loaded = [sample.load() for sample in source.samples(range(len(source)))]
    return [(int(np.asarray(image)[0, 0]), label) for image, label in loaded]


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.xz", "w:xz")]
)
def test_images_come_in_archive_order(tmp_path, name, mode):
    spec = write(tmp_path / name, ["b/1.png", "a/2.png", "b/3.png"], mode)
    assert tar.recognizes(spec)
    source = tar.open_source(spec, "validation")
    assert source.classes == ["a", "b"]
    assert read(source) == read(source) == [(0, 1), (1, 0), (2, 1)]


def test_nothing_is_written_whatever_the_members_are_called(tmp_path):
    (tmp_path / "in").mkdir()
    spec = write(tmp_path / "in" / "x.tar", ["../../evil/1.png", "/tmp/evil/2.png", "a/3.png"])
    before = sorted(tmp_path.rglob("*"))
    assert len(read(tar.open_source(spec, "validation"))) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_devices_and_links_are_ignored(tmp_path):
    extra = [tarfile.TarInfo(f"a/{kind}.png") for kind in ("device", "fifo", "link")]
    extra[0].type, extra[1].type, extra[2].type = tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE
    extra[2].linkname = "/etc/passwd"
    assert len(tar.open_source(write(tmp_path / "x.tar", ["a/1.png"], extra=extra), "validation")) == 1


def test_an_empty_class_folder_is_named(tmp_path):
    empty = tarfile.TarInfo("./b/")
    empty.type = tarfile.DIRTYPE
    with pytest.raises(InputError, match="class folder 'b'"):
        tar.open_source(write(tmp_path / "x.tar", ["./a/1.png"], extra=[empty]), "validation")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_archive_is_an_error(tmp_path, mode):
    path = tmp_path / "x.tar"
    write(path, [f"a/{i}.png" for i in range(30)], mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 300])
    with pytest.raises(InputError, match=r"cannot read archive .*x.tar: \w"):
        tar.open_source(str(path), "validation")


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "x.tar").write_text("nothing")
    with pytest.raises(InputError, match="cannot read archive") as caught:
        tar.open_source(str(tmp_path / "x.tar"), "validation")
    assert "\n" not in str(caught.value)
