//! Assembles a bundle's configuration.

use std::path::Path;

use serde_json::{Map, Value};

use super::chain::{self, Entry};
use super::component::Component;
use super::cycles::refuse_cycles;
use super::documents::{Documents, MAIN_FILE};
use super::id::NodeId;
use super::json;
use super::metadata::{self, Extent, Metadata, NetworkFormat, TensorFormat};
use super::problem::Problem;
use super::resolver::Resolver;
use super::roots;
use super::yaml;
use crate::error::{Error, ErrorKind, Result};

/// The metadata file, relative to the bundle.
const METADATA_FILE: &str = "configs/metadata.json";

/// The parts of `configs/inference.json` and `configs/metadata.json` needed for serving.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleConfig {
    /// The bundle's name; its folder's name if it has none.
    pub name: String,
    /// The bundle's version; empty if it has none.
    pub version: String,
    /// What the bundle does, in a few words; empty if it does not say.
    pub task: String,
    /// The bundle's description; empty if it has none.
    pub description: String,
    /// The transforms before the network, in order. Nested `Compose` are flattened, and disabled
    /// transforms are left out.
    pub preprocessing: Vec<Component>,
    /// The id of the whole preprocessing, which `Invertd` refers to (`{"$ref": …}`).
    pub preprocessing_id: String,
    /// How the network is applied to an image.
    pub inferer: Component,
    /// The transforms after the network, in order, like `preprocessing`.
    pub postprocessing: Vec<Component>,
    /// The keys of the loaded images (`LoadImaged`), without duplicates.
    pub image_keys: Vec<String>,
    /// The network's inputs and outputs.
    pub network: NetworkFormat,
    /// Oddities that do not prevent serving.
    pub warnings: Vec<String>,
}

impl BundleConfig {
    /// Reads the configuration of the bundle in `dir`. The network file may be missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidModel`] with the file and the JSON path at fault (details `file` and
    /// `path`). If there are several problems, it reports the first. [`ErrorKind::ModelNotFound`] if
    /// `dir` is not a folder.
    pub fn read(dir: &Path) -> Result<Self> {
        Reading::of(dir)?.into_config()
    }

    /// Parses the texts of the two configuration files, which may not refer to any others.
    ///
    /// # Errors
    ///
    /// Propagates the errors of [`read`](Self::read).
    #[doc(hidden)]
    pub fn parse(inference: &[u8], metadata: &[u8]) -> Result<Self> {
        let mut reading = Reading::default();
        let content = reading.take_metadata(json::bounded(metadata, METADATA_FILE));
        let main = json::bounded(inference, MAIN_FILE).and_then(object);
        reading.take_main(main, content, Path::new("/dev/null"));
        reading.into_config()
    }
}

/// Everything read from a configuration, including problems.
#[derive(Default)]
pub(super) struct Reading {
    /// Path of the main configuration file.
    pub main_file: String,
    pub metadata: Metadata,
    pub name: String,
    pub preprocessing: Vec<Entry>,
    pub preprocessing_id: String,
    pub inferer: Vec<Entry>,
    pub postprocessing: Vec<Entry>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

impl Reading {
    /// Reads the bundle in `dir`, continuing past any problem inside it.
    pub fn of(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::new(
                ErrorKind::ModelNotFound,
                format!("there is no bundle folder {}", dir.display()),
            ));
        }
        let mut reading = Self::default();
        let content = reading.read_metadata(dir);
        let folder = dir.canonicalize().ok();
        let folder = folder.as_deref().and_then(Path::file_name);
        reading.name = reading.metadata.name.clone().unwrap_or_else(|| {
            folder.map_or_else(|| "bundle".to_owned(), |name| name.to_string_lossy().into_owned())
        });
        let name = configuration(dir).unwrap_or_else(|| MAIN_FILE.to_owned());
        reading.take_main(read_main(dir, &name), content, &dir.join("configs"));
        reading.rename_main(&name);
        Ok(reading)
    }

    /// Attributes the problems of the main configuration to the file `name`.
    fn rename_main(&mut self, name: &str) {
        let chains = [&mut self.preprocessing, &mut self.inferer, &mut self.postprocessing];
        let in_chains = chains.into_iter().flatten().flat_map(Entry::problems_mut);
        let all = self.problems.iter_mut().chain(in_chains);
        all.filter(|problem| problem.file == MAIN_FILE).for_each(|p| p.file = name.to_owned());
        self.main_file = name.to_owned();
    }

    /// Resolves the main configuration, whose macros may refer to files in `configs`.
    fn take_main(
        &mut self,
        main: Result<Map<String, Value>, Problem>,
        metadata: Value,
        configs: &Path,
    ) {
        match main {
            Ok(mut main) => {
                // MONAI adds the metadata to the configuration as an item.
                main.entry("_meta_").or_insert(metadata);
                self.resolve(&Documents::new(Value::Object(main), configs));
            }
            Err(problem) => self.problems.push(problem),
        }
        self.problems.extend(no_segmentation(&self.metadata.network));
    }

    fn read_metadata(&mut self, dir: &Path) -> Value {
        let path = dir.join(METADATA_FILE);
        if !path.exists() {
            self.warnings.push(format!("{METADATA_FILE} is missing: classes have no names"));
            return Value::Object(Map::new());
        }
        self.take_metadata(json::read(&path, METADATA_FILE))
    }

    fn take_metadata(&mut self, content: Result<Value, Problem>) -> Value {
        match content {
            Ok(content) => {
                self.metadata = metadata::read(&content, &mut self.warnings);
                content
            }
            Err(problem) => {
                self.problems.push(problem);
                Value::Object(Map::new())
            }
        }
    }

    fn resolve(&mut self, documents: &Documents) {
        let mut resolver = Resolver::new(documents);
        let roots = roots::find(&mut resolver);
        self.problems.extend(roots.problems);
        self.warnings.extend(roots.warnings);
        match &roots.preprocessing {
            Some(root) => {
                self.preprocessing_id = root.to_string();
                self.preprocessing = self.part(&mut resolver, root);
            }
            None => self.missing("preprocessing"),
        }
        match &roots.inferer {
            Some(root) => self.inferer = self.part(&mut resolver, root),
            None if documents.has(&NodeId::main("evaluator")) => {
                self.warnings.push("no inferer is given: SimpleInferer, as MONAI does".to_owned());
                self.inferer = vec![Entry::Ready(Component {
                    target: "SimpleInferer".to_owned(),
                    args: Map::new(),
                    path: "evaluator#inferer".to_owned(),
                })];
            }
            None => self.missing("inferer"),
        }
        match &roots.postprocessing {
            Some(root) => self.postprocessing = self.part(&mut resolver, root),
            None => self.warnings.push("no postprocessing is given".to_owned()),
        }
        let ready = self.inferer.iter().filter(|entry| matches!(entry, Entry::Ready(_))).count();
        let failed = self.inferer.iter().any(|entry| matches!(entry, Entry::Failed { .. }));
        if let (Some(root), false) = (&roots.inferer, failed || ready == 1) {
            let problem = Documents::problem(root, format!("gives {ready} inferers, not one"));
            self.problems.push(problem);
        }
    }

    fn missing(&mut self, part: &str) {
        let problem = Problem::in_file(
            MAIN_FILE,
            format!("there is no `{part}`, neither by this name nor through `evaluator`"),
        );
        self.problems.push(problem);
    }

    fn part(&mut self, resolver: &mut Resolver<'_>, root: &NodeId) -> Vec<Entry> {
        if let Err(problem) = refuse_cycles(resolver, root) {
            self.problems.push(problem);
            return Vec::new();
        }
        chain::chain(resolver, root)
    }

    /// Returns all problems, including those of components.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let chains = [&self.preprocessing, &self.inferer, &self.postprocessing];
        let in_chains = chains.into_iter().flatten().flat_map(Entry::problems);
        self.problems.iter().chain(in_chains).collect()
    }

    /// Returns the keys of the loaded images, without duplicates.
    pub fn image_keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for entry in &self.preprocessing {
            let Entry::Ready(component) = entry else { continue };
            if component.target != "LoadImaged" {
                continue;
            }
            let names = match component.args.get("keys") {
                Some(Value::Array(names)) => names.iter().collect(),
                Some(name) => vec![name],
                None => Vec::new(),
            };
            for name in names.into_iter().filter_map(Value::as_str) {
                if !keys.iter().any(|key| key == name) {
                    keys.push(name.to_owned());
                }
            }
        }
        if keys.is_empty() {
            keys = self.metadata.network.inputs.iter().map(|input| input.name.clone()).collect();
            self.warnings
                .push("no LoadImaged: the network's inputs are taken for images".to_owned());
        }
        keys
    }

    fn into_config(mut self) -> Result<BundleConfig> {
        let problems = self.all_problems();
        if let Some((first, rest)) = problems.split_first() {
            let error = Error::from((*first).clone());
            return Err(if rest.is_empty() {
                error
            } else {
                let more = format!("{} problems, the first", problems.len());
                error.context(more)
            });
        }
        let image_keys = self.image_keys();
        let inferer = ready(self.inferer).into_iter().next();
        Ok(BundleConfig {
            name: self.name,
            version: self.metadata.version.unwrap_or_default(),
            task: self.metadata.task.unwrap_or_default(),
            description: self.metadata.description.unwrap_or_default(),
            preprocessing: ready(self.preprocessing),
            preprocessing_id: self.preprocessing_id,
            inferer: inferer.ok_or_else(|| Error::internal("bundle without inferer accepted"))?,
            postprocessing: ready(self.postprocessing),
            image_keys,
            network: self.metadata.network,
            warnings: self.warnings,
        })
    }
}

fn ready(entries: Vec<Entry>) -> Vec<Component> {
    let component = |entry| match entry {
        Entry::Ready(component) => Some(component),
        _ => None,
    };
    entries.into_iter().filter_map(component).collect()
}

/// Explains why the metadata's outputs are not labels of the input's voxels.
fn no_segmentation(network: &NetworkFormat) -> Vec<Problem> {
    let problem = |output: &TensorFormat, key: &str, message: String| Problem {
        file: METADATA_FILE.to_owned(),
        path: format!("network_data_format#outputs#{}#{key}", output.name),
        message,
    };
    let shape = |tensor: &TensorFormat| {
        let extents: Vec<String> = tensor.spatial_shape.iter().map(Extent::to_string).collect();
        format!("[{}]", extents.join(", "))
    };
    let mut problems = Vec::new();
    for output in &network.outputs {
        if let Some(kind) = output.kind.as_deref().filter(|kind| *kind != "image") {
            let message = format!("the output is of type `{kind}`: only segmentations are served");
            problems.push(problem(output, "type", message));
            continue;
        }
        let Some(input) = network.inputs.first() else { continue };
        let given = !input.spatial_shape.is_empty() && !output.spatial_shape.is_empty();
        if given && input.spatial_shape != output.spatial_shape {
            let message = format!(
                "the output's shape {} is not that of the input {}: only segmentations are served",
                shape(output),
                shape(input)
            );
            problems.push(problem(output, "spatial_shape", message));
        }
    }
    problems
}

/// Returns the name of the main configuration file, if there is one; JSON takes precedence.
pub(super) fn configuration(dir: &Path) -> Option<String> {
    let yaml = yaml::SUFFIXES.map(|suffix| format!("configs/inference.{suffix}"));
    [MAIN_FILE.to_owned()].into_iter().chain(yaml).find(|name| dir.join(name).is_file())
}

/// Reads the main configuration, which must be an object.
fn read_main(dir: &Path, name: &str) -> Result<Map<String, Value>, Problem> {
    let path = dir.join(name);
    if !path.exists() {
        return Err(Problem::in_file(name, "is missing: a bundle is expected in this folder"));
    }
    json::read(&path, name).and_then(object)
}

fn object(main: Value) -> Result<Map<String, Value>, Problem> {
    match main {
        Value::Object(main) => Ok(main),
        _ => Err(Problem::in_file(MAIN_FILE, "is not an object")),
    }
}
