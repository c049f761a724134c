//! The report on one result, apart from its outputs.

use serde_json::{Map, Value, json};

use super::compute::Computed;
use super::frames::FrameStats;
use super::timings::Timings;
use crate::dicom::Series;
use crate::registry::Model;
use crate::volume::{Plan, VolumeId};

/// The content of a report.
pub(super) struct Report<'a> {
    /// The model that ran.
    pub model: &'a Model,
    /// The images, in the model's order, at least one.
    pub images: &'a [(&'a Series, &'a Plan)],
    /// The result.
    pub computed: &'a Computed,
    /// The description of each segment.
    pub segments: Value,
    /// Statistics of fetching and decoding.
    pub frames: &'a FrameStats,
    /// The time of each stage.
    pub timings: &'a Timings,
    /// All warnings.
    pub warnings: Vec<String>,
}

impl Report<'_> {
    /// Returns the report as JSON.
    pub fn into_json(self) -> Map<String, Value> {
        let mut report = Map::new();
        let mut say = |name: &str, value: Value| report.insert(name.to_owned(), value);
        if let Some((series, plan)) = self.images.first() {
            say("studyInstanceUID", json!(series.study_instance_uid));
            say("seriesInstanceUID", json!(series.series_instance_uid));
            if self.images.len() > 1 {
                let uids = self.images.iter().map(|(series, _)| json!(series.series_instance_uid));
                say("images", Value::Object(self.model.images.iter().cloned().zip(uids).collect()));
            }
            if let Some(VolumeId { number, of, name }) = &plan.volume {
                say("volume", json!({"number": number, "of": of, "name": name}));
            }
            say("geometry", geometry(plan, self.computed.network_dims));
            if let Some(units) = &plan.units {
                say("units", json!(units));
            }
        }
        say("segments", self.segments);
        report.extend(self.model.network.describe());
        let mut say = |name: &str, value: Value| report.insert(name.to_owned(), value);
        let frames = self.frames;
        say("frames", json!({"count": frames.frames, "encodedBytes": frames.encoded_bytes}));
        say("windows", json!(self.computed.windows.windows));
        say("timings", self.timings.to_json());
        say("warnings", Value::from(self.warnings));
        report
    }
}

fn geometry(plan: &Plan, network_dims: [usize; 3]) -> Value {
    let geometry = &plan.geometry;
    json!({
        "dimensions": geometry.dims,
        "spacing": geometry.affine.spacing(),
        "affineRAS": geometry.affine.0,
        "networkDimensions": network_dims,
    })
}
