//! The part of the response about each segment: its meaning, its location in each output, and its
//! measurements.

use serde_json::{Map, Value, json};

use crate::dicom::segment::{Code, SegmentDescription};
use crate::volume::Geometry;
use crate::writers::Bounds;
use crate::writers::dicom::display_color;
use crate::writers::statistics::{PERCENTILES, Statistics, ValueStatistics};

/// The names of the image's ends along X, Y and Z in responses.
const ENDS: [[&str; 2]; 3] =
    [["firstColumn", "lastColumn"], ["firstRow", "lastRow"], ["firstSlice", "lastSlice"]];

/// Describes one segment of a response. `number` counts from 1, as for the colours in all outputs;
/// `places` gives its location in the outputs.
pub(super) fn to_json(
    number: usize,
    segment: &SegmentDescription,
    statistics: &Statistics,
    geometry: &Geometry,
    places: Map<String, Value>,
) -> Value {
    let code = |c: &Code| json!({"value": c.value, "scheme": c.scheme, "meaning": c.meaning});
    let millilitres = statistics.voxels as f64 * geometry.voxel_volume() / 1000.0;
    let mut told = json!({
        "number": number,
        "label": segment.label,
        "category": code(&segment.category),
        "type": code(&segment.property_type),
        "color": color(segment, number),
        "voxels": statistics.voxels,
        "millilitres": (millilitres * 1000.0).round() / 1000.0,
        "in": places,
    });
    let mut say = |name: &str, value: Value| {
        if let Some(told) = told.as_object_mut() {
            told.insert(name.to_owned(), value);
        }
    };
    // A segment without voxels has no further measurements.
    if let Some(bounds) = &statistics.bounds {
        say("boundingBox", bounding_box(bounds, geometry));
        say("centroidLPS", json!(statistics.centroid));
        let share = statistics.largest_component as f64 / statistics.voxels as f64;
        say("components", json!({"count": statistics.components, "largestShare": share}));
        say("touches", touches(&statistics.touches));
    }
    if let Some(values) = &statistics.values {
        say("statistics", spread(values));
    }
    told
}

/// Returns the colour of a segment in outputs, in CSS notation.
fn color(segment: &SegmentDescription, number: usize) -> String {
    let [red, green, blue] = display_color(segment, number.saturating_sub(1));
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn bounding_box(bounds: &Bounds, geometry: &Geometry) -> Value {
    let spacing = geometry.affine.spacing();
    let sides: [f64; 3] = std::array::from_fn(|axis| bounds[axis].len() as f64 * spacing[axis]);
    json!({
        "start": bounds.each_ref().map(|range| range.start),
        "end": bounds.each_ref().map(|range| range.end),
        "millimetres": sides,
    })
}

fn touches(touches: &[[bool; 2]; 3]) -> Value {
    let ends = ENDS.iter().flatten().zip(touches.iter().flatten());
    ends.filter(|(_, touched)| **touched).map(|(name, _)| json!(name)).collect()
}

fn spread(values: &ValueStatistics) -> Value {
    let percentiles = PERCENTILES.iter().zip(values.percentiles).filter(|(p, _)| **p != 50);
    let percentiles: Map<String, Value> =
        percentiles.map(|(p, value)| (p.to_string(), json!(value))).collect();
    let mut told = json!({
        "mean": values.mean,
        "standardDeviation": values.standard_deviation,
        "minimum": values.minimum,
        "maximum": values.maximum,
        "median": values.median(),
        "percentiles": percentiles,
    });
    if values.excluded > 0 {
        told["excludedVoxels"] = json!(values.excluded);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn a_segment_tells_what_was_measured_and_an_empty_one_nothing() {
        let tissue = Code::sct("85756007", "Tissue");
        let segment = SegmentDescription {
            value: 4,
            label: "Tissue".to_owned(),
            category: tissue.clone(),
            property_type: tissue,
            type_modifier: None,
            anatomic_region: None,
            color: None,
        };
        let affine = Affine::from_columns([[0.5, 0., 0.], [0., 0.5, 0.], [0., 0., 2.]], [0.; 3]);
        let geometry = Geometry { dims: [9, 9, 4], affine };
        let measured = Statistics {
            voxels: 8,
            bounds: Some([0..4, 2..3, 1..4]),
            centroid: Some([1.0, -2.0, 3.5]),
            components: 3,
            largest_component: 6,
            touches: [[true, false], [false; 2], [false, true]],
            values: Some(ValueStatistics {
                mean: 1.5,
                standard_deviation: 0.5,
                minimum: 1.0,
                maximum: 2.0,
                percentiles: [1.0, 1.25, 1.5, 1.75, 2.0],
                excluded: 1,
            }),
        };
        let told = to_json(2, &segment, &measured, &geometry, Map::new());
        let expected = json!({
            "number": 2,
            "label": "Tissue",
            "category": {"value": "85756007", "scheme": "SCT", "meaning": "Tissue"},
            "type": {"value": "85756007", "scheme": "SCT", "meaning": "Tissue"},
            "color": "#46b450",
            "voxels": 8,
            "millilitres": 0.004,
            "in": {},
            "boundingBox": {"start": [0, 2, 1], "end": [4, 3, 4], "millimetres": [2.0, 0.5, 6.0]},
            "centroidLPS": [1.0, -2.0, 3.5],
            "components": {"count": 3, "largestShare": 0.75},
            "touches": ["firstColumn", "lastSlice"],
            "statistics": {
                "mean": 1.5, "standardDeviation": 0.5, "minimum": 1.0, "maximum": 2.0, "median": 1.5,
                "percentiles": {"5": 1.0, "25": 1.25, "75": 1.75, "95": 2.0}, "excludedVoxels": 1,
            },
        });
        assert_eq!(told, expected);
        let nothing = Statistics {
            voxels: 0,
            bounds: None,
            centroid: None,
            components: 0,
            largest_component: 0,
            touches: [[false; 2]; 3],
            values: None,
        };
        let told = to_json(1, &segment, &nothing, &geometry, Map::new());
        let names: Vec<&String> = told.as_object().unwrap().keys().collect();
        let expected =
            ["number", "label", "category", "type", "color", "voxels", "millilitres", "in"];
        assert_eq!(names, expected);
    }
}
