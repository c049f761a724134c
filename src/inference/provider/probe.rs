//! Checks a machine for what a GPU needs. All paths are below a root and come with an environment, so
//! that tests can provide their own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::Provider;
use super::libraries::Search;

/// The oldest driver that supports CUDA 13.
const OLDEST_DRIVER: u32 = 580;

/// The machine to examine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Root of the file system.
    pub root: PathBuf,
    /// `LD_LIBRARY_PATH`.
    pub library_path: Option<OsString>,
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible_devices: Option<String>,
}

impl Machine {
    /// Returns the machine this process runs on.
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
            library_path: std::env::var_os("LD_LIBRARY_PATH"),
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        }
    }

    /// Returns the GPUs that `provider` of the ONNX Runtime in the file `library` may use, and
    /// everything that prevents their use.
    pub(in crate::inference) fn gpu(
        &self,
        provider: Provider,
        library: &Path,
    ) -> (Vec<i32>, Vec<String>) {
        let devices = self.devices();
        let mut missing = Vec::new();
        match &devices {
            Devices::None => missing.push(
                "there is no NVIDIA device (/dev/nvidia0); a container needs `--gpus all`"
                    .to_owned(),
            ),
            Devices::Hidden => missing.push("CUDA_VISIBLE_DEVICES hides every device".to_owned()),
            Devices::Visible(_) => {}
        }
        missing.extend(self.driver());
        missing.extend(self.libraries(provider, library));
        let devices = if let Devices::Visible(n) = devices { (0..n).collect() } else { Vec::new() };
        (devices, missing)
    }

    fn devices(&self) -> Devices {
        let numbered = |name: &str| {
            let number = name.strip_prefix("nvidia");
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let found = fs::read_dir(self.root.join("dev")).into_iter().flatten().flatten();
        let mut count =
            found.filter(|entry| entry.file_name().to_str().is_some_and(numbered)).count();
        // Under the Windows Subsystem for Linux, the device has another name.
        if count == 0 && self.root.join("dev/dxg").exists() {
            count = 1;
        }
        if count == 0 {
            return Devices::None;
        }
        let Some(visible) = &self.visible_devices else { return Devices::Visible(count as i32) };
        // CUDA uses the devices listed before the first one that does not exist.
        let names = visible.split(',').map(str::trim);
        let there = |name: &&str| match name.parse::<i64>() {
            Ok(number) => (0..count as i64).contains(&number),
            Err(_) => name.starts_with("GPU-") || name.starts_with("MIG-"),
        };
        match names.take_while(there).count() {
            0 => Devices::Hidden,
            visible => Devices::Visible(visible as i32),
        }
    }

    /// Returns what is wrong with the driver.
    fn driver(&self) -> Option<String> {
        let text = fs::read_to_string(self.root.join("proc/driver/nvidia/version")).ok()?;
        let version = driver_version(&text)?;
        let major: u32 = version.split('.').next()?.parse().ok()?;
        (major < OLDEST_DRIVER).then(|| {
            format!("the driver {version} is too old: CUDA 13 needs {OLDEST_DRIVER} or newer")
        })
    }

    /// Returns the missing libraries.
    pub(in crate::inference) fn libraries(
        &self,
        provider: Provider,
        library: &Path,
    ) -> Vec<String> {
        let folder = library.parent().unwrap_or(Path::new(""));
        let files: Vec<PathBuf> =
            provider.libraries().iter().map(|name| folder.join(name)).collect();
        if let Some(file) = files.iter().find(|file| !file.is_file()) {
            return vec![format!(
                "{} is not beside {}, which is another build of ONNX Runtime; \
                 {} gets the one that is needed",
                file.file_name().unwrap_or_default().display(),
                library.display(),
                provider.build()
            )];
        }
        let search = Search::new(&self.root, self.library_path.as_deref());
        let mut missing: BTreeSet<String> =
            files.iter().flat_map(|file| search.missing(file)).collect();
        let by_name = provider.by_name().iter().filter(|name| !search.has(name));
        missing.extend(by_name.map(|&name| name.to_owned()));
        if missing.is_empty() {
            return Vec::new();
        }
        let missing = Vec::from_iter(missing).join(", ");
        vec![format!(
            "the libraries {missing} are missing: {}; LD_LIBRARY_PATH tells where they are",
            provider.vendor()
        )]
    }
}

enum Devices {
    None,
    Hidden,
    Visible(i32),
}

/// Extracts the version from the driver's version file.
fn driver_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace()
        .find(|word| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::{Chosen, ProviderChoice};
    use super::*;
    use crate::bundle::CpuPrecision;
    use crate::error::{ErrorKind, Result};

    fn choose(choice: ProviderChoice, machine: &Machine, library: &Path) -> Result<Chosen> {
        super::super::choose(choice, CpuPrecision::F32, machine, library)
    }

    const VERSION: &str =
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release";

    /// Creates a root with the files, and the path of its ONNX Runtime.
    fn machine(files: &[(&str, &str)]) -> (TempDir, Machine, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let library = root.path().join("ort/libonnxruntime.so");
        let machine =
            Machine { root: root.path().to_owned(), library_path: None, visible_devices: None };
        (root, machine, library)
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let (_root, machine, library) = machine(&[]);
        let error = choose(ProviderChoice::Cuda, &machine, &library).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        for part in ["CUDAExecutionProvider", "/dev/nvidia0", "libonnxruntime_providers_shared.so"]
        {
            assert!(error.message().contains(part), "{error}");
        }
        let error = choose(ProviderChoice::TensorRt, &machine, &library).unwrap_err();
        assert!(error.message().contains("TensorrtExecutionProvider"), "{error}");
        let chosen = choose(ProviderChoice::Auto, &machine, &library).unwrap();
        assert_eq!(chosen.provider, Provider::Cpu);
        assert!(chosen.reason.unwrap().contains("/dev/nvidia0"));
        let chosen = choose(ProviderChoice::Cpu, &machine, &library).unwrap();
        assert_eq!(chosen, Chosen::cpu(None));
    }

    #[test]
    fn libraries_that_are_missing_are_named() {
        let files = ["shared", "cuda"].map(|p| format!("ort/libonnxruntime_providers_{p}.so"));
        let (root, machine, library) =
            machine(&[("dev/nvidia0", ""), (&files[0], ""), (&files[1], "")]);
        let error = choose(ProviderChoice::Cuda, &machine, &library).unwrap_err();
        assert!(error.message().contains("libraries libcuda.so.1, libcudnn.so.9"), "{error}");
        let error = choose(ProviderChoice::TensorRt, &machine, &library).unwrap_err();
        assert!(error.message().contains("libonnxruntime_providers_tensorrt.so"), "{error}");
        fs::create_dir(root.path().join("lib64")).unwrap();
        for name in Provider::Cuda.by_name() {
            fs::write(root.path().join("lib64").join(name), "").unwrap();
        }
        for choice in [ProviderChoice::Cuda, ProviderChoice::Auto] {
            let chosen = choose(choice, &machine, &library).unwrap();
            let expected = Chosen { provider: Provider::Cuda, devices: vec![0], reason: None };
            assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn without_a_gpu_openvino_is_taken_where_it_is_there() {
        let files = ["shared", "openvino"].map(|p| format!("ort/libonnxruntime_providers_{p}.so"));
        let (root, machine, library) = machine(&[(&files[0], ""), (&files[1], "")]);
        for choice in [ProviderChoice::Auto, ProviderChoice::OpenVino] {
            assert_eq!(choose(choice, &machine, &library).unwrap().provider, Provider::OpenVino);
        }
        let chosen = choose(ProviderChoice::Auto, &machine, &library).unwrap();
        assert!(chosen.reason.unwrap().contains("/dev/nvidia0"));
        fs::remove_file(root.path().join(&files[1])).unwrap();
        let chosen = choose(ProviderChoice::Auto, &machine, &library).unwrap();
        let reason = chosen.reason.unwrap();
        assert!(reason.contains("no OpenVINO: libonnxruntime_providers_openvino.so"), "{reason}");
        let error = choose(ProviderChoice::OpenVino, &machine, &library).unwrap_err();
        assert!(error.message().contains("OpenVINOExecutionProvider"), "{error}");
    }

    #[test]
    fn an_old_driver_is_refused() {
        let old = VERSION.replace("580.95.05", "535.183.01");
        let (_root, machine, library) =
            machine(&[("dev/nvidia0", ""), ("proc/driver/nvidia/version", &old)]);
        let error = choose(ProviderChoice::Cuda, &machine, &library).unwrap_err();
        assert!(error.message().contains("535.183.01"), "{error}");
        assert!(!error.message().contains("/dev/nvidia0"), "{error}");
        assert_eq!(driver_version(VERSION), Some("580.95.05"));
    }

    #[test]
    fn devices_are_counted_and_may_be_hidden() {
        let files = ["dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"];
        let (_root, machine, _) = machine(&files.map(|name| (name, "")));
        let count = |visible: Option<&str>| {
            let visible_devices = visible.map(str::to_owned);
            match (Machine { visible_devices, ..machine.clone() }).devices() {
                Devices::None => -1,
                Devices::Hidden => 0,
                Devices::Visible(count) => count,
            }
        };
        assert_eq!(count(None), 2);
        assert_eq!(count(Some("1")), 1);
        assert_eq!(count(Some("1,0")), 2);
        assert_eq!(count(Some("0,5,1")), 1);
        assert_eq!(count(Some("")), 0);
        assert_eq!(count(Some("-1")), 0);
        assert_eq!(count(Some("GPU-8932f937")), 1);
    }
}
