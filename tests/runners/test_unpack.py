"""Files come out of Debian packages and wheels without a package manager, and only those that are wanted."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgekit.errors import MachineError
from edgekit.runners.unpack import flat_from_deb, from_wheel


def _deb(path: Path) -> Path:
    """Write a package as deb(5) has it; the odd-sized member before the data moves that to an even offset."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, text in (("./usr/lib/x/libz.so.1.3", b"library"), ("./usr/share/doc/z/copyright", b"text")):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o4755
            archive.addfile(member, io.BytesIO(text))
        for name, target in (("./usr/lib/x/libz.so.1", "libz.so.1.3"), ("./usr/lib/x/liby.so.1", "../y.so")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    members = [(b"debian-binary", b"2.0\n\n"), (b"data.tar.xz", data.getvalue())]
    raw = b"!<arch>\n"
    for name, content in members:
        raw += name.ljust(48) + str(len(content)).encode().ljust(10) + b"`\n" + content
        raw += b"\n" * (len(content) % 2)
    path.write_bytes(raw)
    return path


def test_only_matching_files_and_links_among_them_come_out_flat(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    flat_from_deb(_deb(tmp_path / "z.deb"), folder, "*/lib*.so.*[0-9]")
    assert sorted(path.name for path in folder.iterdir()) == ["libz.so.1", "libz.so.1.3"]
    assert (folder / "libz.so.1").read_bytes() == b"library"
    assert (folder / "libz.so.1.3").stat().st_mode & 0o7777 == 0o755  # no set-user-id bit


def test_a_package_without_what_is_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="holds nothing like"):
        flat_from_deb(_deb(tmp_path / "z.deb"), tmp_path / "lib", "usr/bin/*")


@pytest.mark.parametrize("raw", [b"", b"!<arch>\n", b"not a package"])
def test_what_is_no_package_is_refused_by_name(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "z.deb").write_bytes(raw)
    with pytest.raises(MachineError, match=r"z\.deb cannot be unpacked"):
        flat_from_deb(tmp_path / "z.deb", tmp_path / "lib", "*")


def test_a_wheel_gives_the_wanted_files_with_their_permissions(tmp_path: Path) -> None:
    wheel = tmp_path / "p.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        program = zipfile.ZipInfo("p/bin/tool")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, "#!")
        archive.writestr("p/readme", "text")
    from_wheel(wheel, tmp_path / "out", lambda name: name.startswith("p/bin/"))
    assert [path.name for path in (tmp_path / "out" / "p").iterdir()] == ["bin"]
    assert (tmp_path / "out" / "p" / "bin" / "tool").stat().st_mode & 0o777 == 0o755


def test_what_is_no_wheel_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.whl").write_bytes(b"PK")
    with pytest.raises(MachineError, match=r"p\.whl cannot be unpacked"):
        from_wheel(tmp_path / "p.whl", tmp_path / "out", lambda name: True)
