//! `execution` of `serving.json`.

use std::num::NonZero;

use serde::Deserialize;

/// `execution` of `serving.json`: how a model's network runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Execution {
    /// File in `models/` that takes the place of `model.onnx` on a GPU, such as one in half precision
    /// whose input and output are f32 (`model/convert_fp16.py`).
    pub gpu_model: Option<String>,
    /// File in `models/` that takes the place of `model.onnx` on a CPU, such as one whose weights are kept
    /// in half precision (`model/convert_fp16.py --weights`).
    pub cpu_model: Option<String>,
    /// In which precision a CPU computes; f32 where absent.
    pub cpu_precision: Option<CpuPrecision>,
    /// Products of f32 in TensorFloat-32: 10 bits of mantissa, faster on Ampere and later.
    #[serde(default)]
    pub tf32: bool,
    /// How cuDNN chooses the algorithm of a convolution.
    #[serde(default)]
    pub convolution_search: ConvolutionSearch,
    /// Whether TensorRT may use half precision.
    #[serde(default, rename = "tensorrtFp16")]
    pub tensorrt_fp16: bool,
    /// Sessions of the network on each GPU, one where absent: with two, the copies of one go on while
    /// the other computes, for the memory of both.
    pub sessions_per_gpu: Option<NonZero<usize>>,
}

/// In which precision a CPU computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuPrecision {
    /// In single precision.
    #[default]
    F32,
    /// Products in bfloat16 (8 bits of mantissa), by OpenVINO on a CPU with instructions for it.
    Bf16,
}

impl CpuPrecision {
    /// Its name in settings and answers.
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
    /// By cuDNN's rules of thumb, at once.
    #[default]
    Heuristic,
    /// By trying all of them at the first run: slow to start, and memory for the largest.
    Exhaustive,
    /// Always the same.
    Default,
}
