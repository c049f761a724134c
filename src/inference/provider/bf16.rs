//! Whether a CPU multiplies in bfloat16 faster than in single precision.

use std::path::Path;

use crate::cpu;

/// Flags of AVX-512 and AMX as `/proc/cpuinfo` spells them.
const FLAGS: [&str; 2] = ["avx512_bf16", "amx_bf16"];

/// Returns what this CPU lacks; `None` if it supports bfloat16.
pub(super) fn missing(root: &Path) -> Option<String> {
    let flags = cpu::field(root, "flags").unwrap_or_default();
    if flags.split_whitespace().any(|flag| FLAGS.contains(&flag)) {
        return None;
    }
    let model = cpu::field(root, "model name").unwrap_or_else(|| "unknown".to_owned());
    Some(format!(
        "the CPU ({model}) has no instructions for bfloat16 ({}), with which alone it is faster",
        FLAGS.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_kind_of_instructions_will_do() {
        let of = |text: &str| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("proc")).unwrap();
            std::fs::write(root.path().join("proc/cpuinfo"), text).unwrap();
            missing(root.path())
        };
        assert_eq!(of("model name\t: A\nflags\t\t: fpu avx2 avx512_bf16 sse\n"), None);
        assert_eq!(of("flags : amx_bf16\n"), None);
        let why = of("processor : 0\nmodel name\t: Old One\nflags : avx2 avx512f\n").unwrap();
        assert!(why.contains("Old One") && why.contains("avx512_bf16"), "{why}");
        assert!(of("").is_some());
    }
}
