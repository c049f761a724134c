#!/usr/bin/env bash
# Gets the shared library of ONNX Runtime out of the Python wheel that its project publishes.
#
#   scripts/get-onnxruntime.sh [--gpu] [DIR]
#
# DIR is target/onnxruntime/lib, or with --gpu target/onnxruntime/lib-gpu, unless given. Prints the
# path for ORT_DYLIB_PATH. Wheel and libraries are checked against the SHA-256 below; what is
# there and right is left alone. --gpu adds the CUDA and TensorRT providers (x86-64 only), which
# need CUDA 13 and cuDNN 9, and TensorRT 10 for the latter, from the machine or image they run on.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VERSION=1.31.1

package=onnxruntime
dir=
for argument in "$@"; do
    case $argument in
        --gpu) package=onnxruntime-gpu ;;
        -*) die "unknown option $argument; usage: $0 [--gpu] [DIR]" ;;
        *)
            [ -z "$dir" ] || die "more than one folder given; usage: $0 [--gpu] [DIR]"
            dir=$argument
            ;;
    esac
done

# The wheel for this machine, and every library taken from it.
machine=$(uname -m)
case $package-$machine in
    onnxruntime-x86_64)
        wheel=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
        libraries="
fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3  libonnxruntime.so.$VERSION
086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d  libonnxruntime_providers_shared.so"
        ;;
    onnxruntime-aarch64)
        wheel=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
        libraries="
8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467  libonnxruntime.so.$VERSION
3b6be288fbfb7dff8770d08a23defdde18e8f7e0f5a2b344a0e5e238c999ea88  libonnxruntime_providers_shared.so"
        ;;
    onnxruntime-gpu-x86_64)
        wheel=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
        libraries="
5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303  libonnxruntime.so.$VERSION
8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52  libonnxruntime_providers_cuda.so
086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d  libonnxruntime_providers_shared.so
1882ee49fdb0e6fc2d272b00cfaf9a3310bf8580a34385c0eec4d82014ea172e  libonnxruntime_providers_tensorrt.so"
        ;;
    *) die "no $package $VERSION for $machine" ;;
esac

if [ -z "$dir" ]; then
    dir=$ROOT/target/onnxruntime/lib
    [ $package = onnxruntime ] || dir=$dir-gpu
fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
library=$dir/libonnxruntime.so

# Whether folder $1 holds every library as published.
complete() { (cd "$1" && sha256sum --check --status --strict 2>/dev/null <<<"${libraries#$'\n'}"); }

if ! complete "$dir"; then
    say "getting $package $VERSION for $machine"
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    # Beside the target, so that each library can be moved into place in one step.
    new=$(mktemp -d "$dir/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    echo "$package==$VERSION --hash=sha256:$wheel" >"$new/requirements.txt"
    # The Python version only chooses among wheels that hold the same library.
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 \
        --platform "manylinux_2_28_$machine" --dest "$new" -r "$new/requirements.txt" >&2
    python3 - "$new"/*.whl "$new" <<'PYTHON'
import pathlib, sys, zipfile
wheel, folder = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
for name in wheel.namelist():
    if name.startswith("onnxruntime/capi/libonnxruntime"):
        (folder / pathlib.PurePosixPath(name).name).write_bytes(wheel.read(name))
PYTHON
    complete "$new" || die "the libraries in the wheel are not those expected"
    chmod 0644 "$new"/lib*
    mv -f "$new"/lib* "$dir"
fi
ln -sfn "libonnxruntime.so.$VERSION" "$dir/libonnxruntime.so.1"
ln -sfn "libonnxruntime.so.$VERSION" "$library"
echo "$library"
