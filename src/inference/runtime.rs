//! Finds ONNX Runtime's shared library and loads it once per process.
//!
//! OpenVINO needs its own build of ONNX Runtime, which is in a folder below the usual one. A process
//! can load only one build, so the requested provider decides which.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use ort::environment::Environment;

use super::provider::{Machine, Provider, ProviderChoice};
use crate::error::{Error, ErrorKind, Result};

/// The loaded library.
#[derive(Debug)]
pub struct Runtime {
    /// The environment every session belongs to.
    pub environment: Environment,
    /// The file it was loaded from.
    pub library: PathBuf,
}

/// Environment variable with the path of the library.
const VARIABLE: &str = "ORT_DYLIB_PATH";
const FILE: &str =
    if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };
const SYSTEM_FOLDER: &str = "/opt/onnxruntime/lib";

/// Folder of the build with OpenVINO, below the folder of the library.
const OPENVINO_FOLDER: &str = "openvino";

/// Returns the process's ONNX Runtime, loaded on first use: from `ORT_DYLIB_PATH`, else from the folder
/// of the executable, else from `/opt/onnxruntime/lib`. The build with OpenVINO, in the folder
/// `openvino` there, is used if `choice` is OpenVINO, or if it is automatic and there is no usable GPU.
/// Once loaded, the build stays the same. A failure is not cached, so a later call may succeed.
///
/// # Errors
/// [`ErrorKind::Configuration`] if no library is found, or it cannot be loaded.
pub fn runtime(choice: ProviderChoice) -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let _one_at_a_time = LOADING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let explicit = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let executable = std::env::current_exe().ok();
    let usual = find(explicit.as_deref(), executable.as_deref().and_then(Path::parent))?;
    let preferred = build_for(choice, &usual, &Machine::this());
    let runtime = match load(preferred.clone()) {
        Err(e) if choice == ProviderChoice::Auto && preferred != usual => {
            tracing::warn!(error = %e, "the build with OpenVINO cannot be loaded");
            load(usual)?
        }
        other => other?,
    };
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// Returns the library to load, given the existing `usual` one: that, or the build with OpenVINO below
/// it.
fn build_for(choice: ProviderChoice, usual: &Path, machine: &Machine) -> PathBuf {
    let below = usual.parent().unwrap_or(Path::new("")).join(OPENVINO_FOLDER).join(FILE);
    let wanted = match choice {
        ProviderChoice::OpenVino => true,
        ProviderChoice::Auto => !machine.gpu(Provider::Cuda, usual).1.is_empty(),
        _ => false,
    };
    let is_there = || machine.libraries(Provider::OpenVino, &below).is_empty();
    // The usual one may itself be a build with OpenVINO.
    if wanted && !machine.libraries(Provider::OpenVino, usual).is_empty() && is_there() {
        return below;
    }
    usual.to_owned()
}

/// Finds the library. An explicit path must exist; otherwise the default locations are tried.
fn find(explicit: Option<&Path>, beside: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        return if file.is_file() { Ok(file) } else { Err(not_found(&[file], true)) };
    }
    let candidates: Vec<PathBuf> =
        beside.into_iter().chain([Path::new(SYSTEM_FOLDER)]).map(|d| d.join(FILE)).collect();
    candidates.iter().find(|p| p.is_file()).cloned().ok_or_else(|| not_found(&candidates, false))
}

fn not_found(tried: &[PathBuf], explicit: bool) -> Error {
    let list: Vec<String> = tried.iter().map(|p| p.display().to_string()).collect();
    let unset = if explicit { "" } else { " (ORT_DYLIB_PATH is not set)" };
    Error::new(
        ErrorKind::Configuration,
        format!(
            "ONNX Runtime's library was not found{unset}; looked for {}. \
             scripts/get-onnxruntime.sh downloads it; set ORT_DYLIB_PATH to the file it prints",
            list.join(", ")
        ),
    )
    .with("lookedFor", list)
}

fn load(library: PathBuf) -> Result<Runtime> {
    let unusable = |e: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Configuration,
            format!(
                "ONNX Runtime's library {} cannot be used: {e}; \
                 scripts/get-onnxruntime.sh gets the version that fits",
                library.display()
            ),
        )
    };
    let environment = ort::init_from(&library)
        .map_err(|e| unusable(&e))?
        .with_name("ahi-inference")
        .with_telemetry(false)
        .build()
        .map_err(|e| unusable(&e))?;
    tracing::info!(library = %library.display(), build = ort::info(), "ONNX Runtime loaded");
    Ok(Runtime { environment, library })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_path_wins_and_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let e = find(Some(&file), Some(folder.path())).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Configuration);
        assert!(e.message().contains(&file.display().to_string()), "{e}");
        assert!(e.message().contains("get-onnxruntime.sh"), "{e}");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(find(Some(&file), None).unwrap(), file);
        assert_eq!(find(Some(folder.path()), None).unwrap(), file);
        assert_eq!(find(None, Some(folder.path())).unwrap(), file);
    }

    #[test]
    fn the_build_with_openvino_is_taken_where_it_is_wanted_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("lib");
        std::fs::create_dir_all(folder.join("openvino")).unwrap();
        let usual = folder.join(FILE);
        let machine =
            Machine { root: root.path().to_owned(), library_path: None, visible_devices: None };
        let of = |choice| build_for(choice, &usual, &machine);
        for name in [FILE, "libonnxruntime_providers_shared.so"] {
            std::fs::write(folder.join("openvino").join(name), b"").unwrap();
        }
        assert_eq!(of(ProviderChoice::OpenVino), usual, "the provider itself is missing");
        let provider = "libonnxruntime_providers_openvino.so";
        std::fs::write(folder.join("openvino").join(provider), b"").unwrap();
        let below = folder.join("openvino").join(FILE);
        assert_eq!(of(ProviderChoice::OpenVino), below);
        assert_eq!(of(ProviderChoice::Auto), below);
        assert_eq!(of(ProviderChoice::Cpu), usual);
        assert_eq!(of(ProviderChoice::Cuda), usual);
        for name in [provider, "libonnxruntime_providers_shared.so"] {
            std::fs::write(folder.join(name), b"").unwrap();
        }
        assert_eq!(of(ProviderChoice::OpenVino), usual, "it is one itself");
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        std::fs::write(&file, b"not a library").unwrap();
        let e = load(file.clone()).unwrap_err();
        assert!(e.message().contains(&file.display().to_string()), "{e}");
    }
}
