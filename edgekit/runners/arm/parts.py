"""What the ARM tiers are made of: pinned packages of Debian and two wheels.

Sizes and digests are those of the distributions' lists of packages (bookworm, bookworm-backports, trixie) and
of PyPI, held against the downloads.
"""

from __future__ import annotations

from edgekit.runners.debian import debian_part
from edgekit.runners.kit import Part

EMULATOR = debian_part(
    "q/qemu/qemu-user_10.0.2+ds-2+deb13u1~bpo12+1_amd64.deb",
    62_834_188,
    "10a2dec99f2b2d0b1097ff0375aea35b89322d6631fc96700511b02e05bf6fef",
)
"""qemu-user 10.0.2, statically linked: knows all cores and answers /proc/cpuinfo; it takes no plugins."""
RUNTIME = Part(
    "onnxruntime-1.31.1-aarch64.whl",
    (
        "https://files.pythonhosted.org/packages/02/ee/b173a49293b146b54bd057bf8681a015aef764d8f56d999ad8c6e53ab18d/"
        "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl",
    ),
    "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
    21_413_526,
)
"""The aarch64 wheel, for the `libonnxruntime.so` in it."""
ARM64_SYSTEM = tuple(
    debian_part(*package)
    for package in (
        (
            "g/glibc/libc6_2.36-9+deb12u14_arm64.deb",
            2_324_660,
            "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
        ),
        (
            "g/gcc-12/libgcc-s1_12.2.0-14+deb12u1_arm64.deb",
            34_816,
            "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
        ),
        (
            "g/gcc-12/libstdc++6_12.2.0-14+deb12u1_arm64.deb",
            556_608,
            "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
        ),
    )
)
"""The C and C++ libraries of 64-bit ARM."""
ARMV7_SYSTEM = tuple(
    debian_part(*package)
    for package in (
        (
            "o/onnxruntime/libonnxruntime1.21_1.21.0+dfsg-1_armhf.deb",
            3_513_052,
            "944d80021062bb87130ee0b42b54503701199a4a03f3eee83b222b3318be4a0c",
        ),
        (
            "c/cpuinfo/libcpuinfo0_0.0~git20250327.39ea79a-1_armhf.deb",
            26_204,
            "638461b4446cfcf04e492765e66ff5e5045ae1fbba3b7d86734d15b948de548c",
        ),
        (
            "o/onnx/libonnx1t64_1.17.0-3+b1_armhf.deb",
            1_128_456,
            "b9defa4662a908eba24fe9a96c6d4ae6ea93e5c6ed08f4ab4f908f7e0e68ab15",
        ),
        (
            "p/protobuf/libprotobuf32t64_3.21.12-11+deb13u1_armhf.deb",
            870_904,
            "a84fde4c5aa651e50e9f2ac1801502f523f7d881704b7b67a175ede8f4659597",
        ),
        (
            "p/pthreadpool/libpthreadpool0_0.0~git20240616.560c60d-1_armhf.deb",
            22_112,
            "af9c10de4ed05fc75bbe698ff939e22de3921a86c27b0d66971762769aa14ecb",
        ),
        (
            "r/re2/libre2-11_20240702-3+b1_armhf.deb",
            140_324,
            "18c66135082b1fdc3040948786c2ae7f824cb827656ca05bb4049ee82ba51a58",
        ),
        (
            "x/xnnpack/libxnnpack0.20241108_0.0~git20241108.4ea82e5-2_armhf.deb",
            375_784,
            "e60ff37e5ed339c4fb70118a7c64a62cadba6ef852e85e3ef076f03dd87a84f7",
        ),
        (
            "z/zlib/zlib1g_1.3.dfsg+really1.3.1-1+b1_armhf.deb",
            75_196,
            "81c55a59e1570477ecef6a449bf6dce44dad67ba4ce9e04760451d4cfe200534",
        ),
        (
            "a/abseil/libabsl20240722_20240722.0-4_armhf.deb",
            457_808,
            "2e811d146ecb5b936f7ee08401705aaf2a6a8daba226f945dd37513bf35badc7",
        ),
        (
            "g/glibc/libc6_2.41-12+deb13u4_armhf.deb",
            2_260_832,
            "4fc6fed8d77d01c0dacb5fda8b880a8c8a669575936de5761b693077a6f6c2ec",
        ),
        (
            "g/gcc-14/libgcc-s1_14.2.0-19_armhf.deb",
            37_008,
            "25910c3a0bce3985e388de445244578b7922dc670c9bba1c8673779b89447873",
        ),
        (
            "g/gcc-14/libstdc++6_14.2.0-19_armhf.deb",
            606_604,
            "9c82eecc30961a3da3e062c0dba8ce076736059f4b8e7794c803985e75aea48b",
        ),
    )
)
"""ONNX Runtime 1.21 for 32-bit ARM, which has no wheel, and all that it needs."""
COUNTING_EMULATOR = debian_part(
    "q/qemu/qemu-user_7.2+dfsg-7+deb12u18+b3_amd64.deb",
    12_251_508,
    "02a7d6a2675a12dd7fdd474924295552470c0c933e0b543975887f493a84219f",
)
"""qemu-user 7.2, dynamically linked: the last one in Debian that takes plugins."""
COUNTING_SYSTEM = tuple(
    debian_part(*package)
    for package in (
        (
            "g/glibc/libc6_2.36-9+deb12u14_amd64.deb",
            2_759_320,
            "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf",
        ),
        (
            "c/capstone/libcapstone4_4.0.2-5_amd64.deb",
            569_084,
            "41277f0388184f6e3b9fc02eda3184afbc999314b25b77ed75e8049428bdfe5e",
        ),
        (
            "g/gcc-12/libgcc-s1_12.2.0-14+deb12u1_amd64.deb",
            49_856,
            "3016e62cb4b7cd8038822870601f5ed131befe942774d0f745622cc77d8a88f7",
        ),
        (
            "g/glib2.0/libglib2.0-0_2.74.6-2+deb12u9_amd64.deb",
            1_403_216,
            "7ff85197685d89e150e342b29a59aab1beee400050ba7da73de81cd999ffee5a",
        ),
        (
            "g/gnutls28/libgnutls30_3.7.9-2+deb12u7_amd64.deb",
            1_409_084,
            "30abec8c824feb1d2d7e9000a34083cccd19d139625e1b21547e3ac53b922f8e",
        ),
        (
            "n/numactl/libnuma1_2.0.16-1_amd64.deb",
            20_964,
            "639e1ab6bd66ead40db8a22c332d7199679fa22db261cac34444eb8eb4c17dda",
        ),
        (
            "libu/liburing/liburing2_2.3-3_amd64.deb",
            12_572,
            "c23077e3640e6cb4b819c134b3f41d5cf21b3edac099654b1b4142c3069a39a3",
        ),
        (
            "z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb",
            86_684,
            "d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4",
        ),
        (
            "p/p11-kit/libp11-kit0_0.24.1-2_amd64.deb",
            345_080,
            "251330faddbf013f060fcdb41f4b0c037c8a6e89ba7c09b04bfcc4e3f0807b22",
        ),
        (
            "libi/libidn2/libidn2-0_2.3.3-1+b1_amd64.deb",
            123_636,
            "d50716d5824083d667427817d506b45d3f59dc77e1ca52de000f3f62d4918afa",
        ),
        (
            "libu/libunistring/libunistring2_1.0-2_amd64.deb",
            436_708,
            "d466bbfe011d764d793c1d9d777cad9c7cf65b938e11598f27408171ad95a951",
        ),
        (
            "libt/libtasn1-6/libtasn1-6_4.19.0-2+deb12u1_amd64.deb",
            48_596,
            "2c27c613b69be248d09432839ea3d3382f6ee27fabaa65987aa2d884cd00afda",
        ),
        (
            "n/nettle/libnettle8_3.8.1-2_amd64.deb",
            287_764,
            "45922e6e289ffd92f0f92d2bb9159e84236ff202d552a461bf10e5335b3f0261",
        ),
        (
            "n/nettle/libhogweed6_3.8.1-2_amd64.deb",
            327_524,
            "ed8185c28b2cb519744a5a462dcd720d3b332c9b88a1d0002eac06dc8550cb94",
        ),
        (
            "g/gmp/libgmp10_6.2.1+dfsg1-1.1_amd64.deb",
            562_588,
            "187aedef2ed763f425c1e523753b9719677633c7eede660401739e9c893482bd",
        ),
        (
            "p/pcre2/libpcre2-8-0_10.42-1_amd64.deb",
            260_776,
            "030db54f4d76cdfe2bf0e8eb5f9efea0233ab3c7aa942d672c7b63b52dbaf935",
        ),
        (
            "libf/libffi/libffi8_3.4.4-1_amd64.deb",
            22_856,
            "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
        ),
    )
)
"""What it is linked with, so that this machine's libraries do not matter."""
