//! Compares fetching and decoding an image set with fetching the same frames alone. Both use this program's
//! client and alternate in one process.
//!
//! `cargo bench --bench fetch` creates a phantom and serves it from the emulator. With
//! `-- ENDPOINT DATASTORE IMAGE_SET [RUNS [FRAMES_IN_FLIGHT]]` it fetches that image set instead, as
//! `scripts/compare.sh` does. Prints one line of JSON: medians in seconds, their ratio, and the time per frame of
//! each decoding step.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use ahi_inference::aws::Rate;
use ahi_inference::dicom::{FrameKey, Series};
use ahi_inference::memory::keep;
use ahi_inference::phantom::PhantomArgs;
use ahi_inference::pipeline::Holding;
use ahi_inference::pipeline::frames::{self, FrameStats};
use ahi_inference::policy::{Policy, Wanted};
use ahi_inference::progress::Silent;
use ahi_inference::source::ahi::{AhiClient, AhiSettings, AhiSource, ImageSetId};
use ahi_inference::source::{ImageSource, aws};
use ahi_inference::volume::{Plan, plan};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use futures::TryStreamExt;
use serde_json::json;

const RUNS: usize = 7;

fn main() {
    // `cargo bench` adds a flag of its own.
    let given: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime");
    match &given[..] {
        [] => {
            let own = Own::new();
            runtime.block_on(measure(&own.endpoint, &own.datastore, &own.image_set, &[]));
        }
        [endpoint, datastore, image_set, numbers @ ..] => {
            let numbers = numbers.iter().map(|n| n.parse().expect("a number"));
            let numbers: Vec<usize> = numbers.collect();
            runtime.block_on(measure(endpoint, datastore, image_set, &numbers));
        }
        _ => {
            panic!("arguments are ENDPOINT DATASTORE IMAGE_SET [RUNS [FRAMES_IN_FLIGHT]], or none")
        }
    }
}

/// A phantom served by an emulator, which stops on drop.
struct Own {
    emulator: Child,
    endpoint: String,
    datastore: String,
    image_set: String,
    _folder: tempfile::TempDir,
}

impl Own {
    fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_ahi-inference");
        let folder = tempfile::tempdir().expect("a folder");
        let (out, store) = (folder.path().join("phantom"), folder.path().join("store"));
        PhantomArgs {
            out: out.clone(),
            seed: 7,
            size: 512,
            slices: 160,
            spacing: 0.7,
            slice_spacing: 1.5,
        }
        .write()
        .expect("the phantom");
        let made = Command::new(program)
            .arg("import")
            .arg(out.join("dicom"))
            .arg("--folder")
            .arg(&store)
            .stderr(Stdio::null())
            .output()
            .expect("the import");
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("its report");
        let text = |value: &serde_json::Value| value.as_str().expect("an identifier").to_owned();
        let mut emulator = Command::new(program)
            .args(["emulate", "--port", "0", "--s3-port", "0", "--folder"])
            .arg(&store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator");
        let lines = BufReader::new(emulator.stdout.take().expect("its output")).lines();
        let endpoint = lines
            .map_while(|line| line.ok())
            .find_map(|line| Some(line.split_once("listening on ")?.1.trim().to_owned()))
            .expect("the emulator's address");
        Self {
            emulator,
            endpoint: endpoint.split_whitespace().next().expect("an address").to_owned(),
            datastore: text(&made["datastoreId"]),
            image_set: text(&made["imageSets"][0]["imageSetId"]),
            _folder: folder,
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // The emulator may have exited already.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

async fn measure(endpoint: &str, datastore: &str, image_set: &str, numbers: &[usize]) {
    let runs = numbers.first().copied().unwrap_or(RUNS).max(1);
    let max_in_flight = numbers.get(1).copied().unwrap_or(AhiSettings::default().max_in_flight);
    let settings = aws::AwsSettings {
        region: Some("us-east-1".to_owned()),
        ahi_endpoint: Some(endpoint.to_owned()),
        ..aws::AwsSettings::default()
    };
    let config = aws::sdk_config(&settings).await.expect("the settings");
    // The emulator accepts any credentials, and the caller may have none.
    let credentials = Credentials::from_keys("emulator", "emulator", None);
    let config = config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    // The service's rate limit must not affect the measurement.
    let unbounded = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let client = AhiClient::new(
        aws::ahi_client(&config, &settings),
        AhiSettings { frame_rate: unbounded, max_in_flight, ..AhiSettings::default() },
    );
    let id = ImageSetId::new(datastore, image_set).expect("identifiers");
    let (mut alone, mut all, mut stats) = (Vec::new(), Vec::new(), FrameStats::default());
    let (mut headers, mut slices) = (Vec::new(), 0);
    for run in 0..=runs {
        let started = Instant::now();
        let source = AhiSource::new(client.clone(), id.clone(), None).expect("a source");
        let series = Arc::new(source.series().await.expect("the series"));
        let volumes = plan(&series, &Policy::default(), Wanted::Any);
        let plan = Arc::new(volumes.expect("a volume").remove(0));
        let metadata = started.elapsed().as_secs_f64();
        slices = plan.slices.len();
        let bytes = bytes_alone(&source, &series, &plan).await;
        let (seconds, took) = fetch_and_decode(&source, &series, &plan).await;
        // The first run opens connections and fills caches, so it is not counted.
        if run > 0 {
            headers.push(metadata);
            alone.push(bytes);
            all.push(seconds);
            stats += took;
        }
    }
    let (alone, all) = (median(alone), median(all));
    let each = |seconds: f64| seconds / stats.frames as f64;
    let work: serde_json::Map<String, serde_json::Value> = stats
        .work
        .steps()
        .map(|(step, time)| (step.to_owned(), each(time.as_secs_f64()).into()))
        .into_iter()
        .collect();
    let report = json!({
        "frames": slices,
        "encodedBytes": stats.encoded_bytes / runs as u64,
        "metadata": median(headers),
        "bytesAlone": alone,
        "fetchAndDecode": all,
        "ratio": all / alone,
        "perFrame": work,
    });
    println!("{report}");
}

async fn bytes_alone(source: &AhiSource, series: &Series, plan: &Plan) -> f64 {
    let keys: Vec<FrameKey> = plan.slices.iter().map(|slice| slice.key).collect();
    let started = Instant::now();
    let mut frames = source.frames(series, keys);
    while frames.try_next().await.expect("a frame").is_some() {}
    started.elapsed().as_secs_f64()
}

async fn fetch_and_decode(
    source: &AhiSource,
    series: &Arc<Series>,
    plan: &Arc<Plan>,
) -> (f64, FrameStats) {
    let started = Instant::now();
    let (volume, stats) = frames::load(source, series, plan, &Silent, &Holding::nothing(), false)
        .await
        .expect("the frames");
    let voxels = volume.into_physical().expect("the volume");
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(voxels.len(), plan.geometry.voxels());
    // As the pipeline does once an image is preprocessed: the next volume gets memory that is already mapped.
    keep(voxels.into_raw_vec_and_offset().0);
    (seconds, stats)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
