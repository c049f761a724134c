#!/usr/bin/env bash
# The whole request on an NVIDIA GPU: parity with the CPU, every stage, how busy the GPU is, and PyTorch compared.
#
#   scripts/bench-gpu.sh [--provider cuda|tensorrt|cpu] [--quick]
#
# Needs an NVIDIA driver of version 580 or newer and installs the rest: ONNX Runtime's GPU build and, in
# target/compare-venv, PyTorch, whose CUDA 13 and cuDNN 9 both sides use. `--provider cpu` runs the same steps
# without a GPU, to try the script. AHI_INFERENCE_BIN names a program that is already built.

# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

python=$(scripts/setup-compare.sh)
if [ -z "${AHI_INFERENCE_BIN:-}" ]; then
    cargo build --release --locked --quiet
fi
case " $* " in
    *" --provider cpu "*) ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh) ;;
    *)
        ORT_DYLIB_PATH=$(scripts/get-onnxruntime.sh --gpu)
        # The library folders that come with PyTorch.
        libraries=$("$python" -c 'import glob, sysconfig; print(":".join(sorted(
            glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib") +
            glob.glob(sysconfig.get_paths()["purelib"] + "/tensorrt_libs"))))')
        export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        ;;
esac
export ORT_DYLIB_PATH
exec "$python" scripts/bench_gpu.py "$@"
