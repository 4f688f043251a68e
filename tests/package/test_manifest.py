"""A package is a closed set of files."""

import json

import pytest

from edgekit.errors import PackageError
from edgekit.package.manifest import file_digests, open_package


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "cpu-x86"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "sub" / "vocabulary.txt").write_text("a\nb\n")
    manifest = {
        "schema_version": 1,
        "model": {},
        "target": "cpu-x86",
        "profile": {},
        "graphs": {"model": "model.onnx"},
        "signature": {"inputs": [], "outputs": []},
        "float": {"file_bytes": 4, "compressed_bytes": 2},
        "files": file_digests(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_intact_package_opens(package):
    opened = open_package(package)
    assert opened.model == package / "model.onnx"
    assert opened.float_size.file_bytes == 4


def test_a_changed_byte_is_named(package):
    (package / "sub" / "vocabulary.txt").write_text("a\nc\n")
    with pytest.raises(PackageError, match=r"vocabulary\.txt is not the file that was packaged"):
        open_package(package)


def test_a_missing_file_is_named(package):
    (package / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"lacks model\.onnx"):
        open_package(package)


def test_a_file_that_does_not_belong_is_named(package):
    (package / "notes.txt").write_text("hi")
    with pytest.raises(PackageError, match=r"notes\.txt does not belong"):
        open_package(package)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_a_manifest_that_is_none_is_refused(package, content):
    (package / "manifest.json").write_text(content)
    with pytest.raises(PackageError, match=r"manifest\.json"):
        open_package(package)


def test_a_folder_without_a_manifest_is_no_package(tmp_path):
    with pytest.raises(PackageError, match="is not a package"):
        open_package(tmp_path)


def test_a_profile_of_another_version_is_refused_with_its_file(package):
    with pytest.raises(PackageError, match="cannot read its profile"):
        _ = open_package(package).profile
