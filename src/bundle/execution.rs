//! `execution` of `serving.json`.

use std::num::NonZero;

use serde::Deserialize;

/// `execution` of `serving.json`: how a model's network runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Execution {
    /// File in `models/` that replaces `model.onnx` on a GPU, such as a half-precision model with f32
    /// input and output (`model/convert_fp16.py`).
    pub gpu_model: Option<String>,
    /// File in `models/` that replaces `model.onnx` on a CPU, such as a model with half-precision
    /// weights (`model/convert_fp16.py --weights`).
    pub cpu_model: Option<String>,
    /// Precision of computation on a CPU; f32 if absent.
    pub cpu_precision: Option<CpuPrecision>,
    /// Whether f32 products use TensorFloat-32: 10 bits of mantissa, faster on Ampere and later.
    #[serde(default)]
    pub tf32: bool,
    /// How cuDNN chooses the algorithm of a convolution.
    #[serde(default)]
    pub convolution_search: ConvolutionSearch,
    /// Whether TensorRT may use half precision.
    #[serde(default, rename = "tensorrtFp16")]
    pub tensorrt_fp16: bool,
    /// Sessions of the network on each GPU, one if absent. With two, one copies while the other
    /// computes, at the cost of both their memory.
    pub sessions_per_gpu: Option<NonZero<usize>>,
}

/// Precision of computation on a CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuPrecision {
    /// Single precision.
    #[default]
    F32,
    /// Products in bfloat16 (8 bits of mantissa), with OpenVINO on a CPU with instructions for it.
    Bf16,
}

impl CpuPrecision {
    /// Returns its name in settings and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// How cuDNN chooses the algorithm of a convolution (`cudnn_conv_algo_search`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvolutionSearch {
    /// By cuDNN's heuristics, without measuring.
    #[default]
    Heuristic,
    /// By trying all algorithms in the first run: slow to start, and needs memory for the largest.
    Exhaustive,
    /// Always the default algorithm.
    Default,
}
