//! Creates the content of a Measurement Report (PS3.16 TID 1500), template by template, with rows in
//! the template's order.

use dicom_dictionary_std::tags;

use super::content::{Relation, code, container, having, image, number, root, text, uid};
use super::quantity::{self, Quantity};
use super::{Segmentation, SrRequest};
use crate::dicom::segment::{Algorithm, Code, SegmentDescription};
use crate::dicom::{Attributes, Dataset, Instance};
use crate::error::{Error, Result};
use crate::writers::dicom::{Identity, MANUFACTURER, Put, reference};
use crate::writers::statistics::{Statistics, ValueStatistics};

/// The unit of PS3.16 CID 7462 that equals a millilitre.
const MILLILITRE: [&str; 3] = ["cm3", "UCUM", "cubic centimeter"];

/// Creates the whole report. `instances` are the source's; `quantity` is what their values measure.
pub(super) fn content(
    request: &SrRequest,
    instances: &[&Instance],
    quantity: Option<&Quantity>,
) -> Result<Dataset> {
    let first = instances.first().ok_or_else(|| Error::internal("no source instance"))?;
    let source: &Dataset = &first.dataset;
    let series = source.required_text(tags::SERIES_INSTANCE_UID)?;
    let mut content = vec![language()];
    content.extend(device(request.algorithm));
    let procedure = Code::dcm("121058", "Procedure reported");
    content.push(code(Relation::HasConceptMod, &procedure, &quantity::procedure(source)));
    content.push(library(source, instances));
    let groups = request.segments.iter().zip(request.statistics).enumerate();
    let groups = groups.map(|(index, (segment, statistics))| {
        let group = Group { request, series: &series, index, segment, statistics, quantity };
        group.content()
    });
    let measurements = Code::dcm("126010", "Imaging Measurements");
    content.push(container(&measurements, None, groups.collect()));
    let title = Code::dcm("126000", "Imaging Measurement Report");
    Ok(root(&title, Some("1500"), content))
}

/// Creates Language of Content Item and Descendants (TID 1204).
fn language() -> Dataset {
    let name = Code::dcm("121049", "Language of Content Item and Descendants");
    let english = Code::new("en-US", "RFC5646", "English (United States)");
    code(Relation::HasConceptMod, &name, &english)
}

/// Creates Observer Context (TID 1002) of a device (TID 1004): this version of the program with this
/// version of a model. Its UID is the same in every report.
fn device(algorithm: &Algorithm) -> Vec<Dataset> {
    let version = env!("CARGO_PKG_VERSION");
    let parts = ["device", MANUFACTURER, version, &algorithm.name, &algorithm.version];
    let own = Identity::derived(parts).uid("device");
    let is = Relation::HasObsContext;
    vec![
        code(is, &Code::dcm("121005", "Observer Type"), &Code::dcm("121007", "Device")),
        uid(is, &Code::dcm("121012", "Device Observer UID"), &own),
        text(is, &Code::dcm("121013", "Device Observer Name"), MANUFACTURER),
        text(is, &Code::dcm("121014", "Device Observer Manufacturer"), MANUFACTURER),
        text(is, &Code::dcm("121015", "Device Observer Model Name"), &algorithm.name),
    ]
}

/// Creates the Image Library (TID 1600): the measured images.
fn library(source: &Dataset, instances: &[&Instance]) -> Dataset {
    let is = Relation::HasAcqContext;
    let mut group = Vec::with_capacity(instances.len() + 2);
    if let Some(modality) = quantity::modality(source) {
        group.push(code(is, &Code::dcm("121139", "Modality"), &modality));
    }
    if let Some(frame) = source.text(tags::FRAME_OF_REFERENCE_UID) {
        group.push(uid(is, &Code::dcm("112227", "Frame of Reference UID"), &frame));
    }
    let name = Code::sct("260753009", "Source");
    let images = instances.iter().map(|one| image(Relation::Contains, &name, reference(one)));
    group.extend(images);
    let group = container(&Code::dcm("126200", "Image Library Group"), None, group);
    container(&Code::dcm("111028", "Image Library"), None, vec![group])
}

/// The source of a measurement group.
struct Group<'a> {
    request: &'a SrRequest<'a>,
    /// Series Instance UID of the source.
    series: &'a str,
    /// Position of the segment.
    index: usize,
    segment: &'a SegmentDescription,
    statistics: &'a Statistics,
    quantity: Option<&'a Quantity>,
}

impl Group<'_> {
    /// Creates Volumetric ROI Measurements (TID 1411), including ROI Measurements (TID 1419).
    fn content(&self) -> Dataset {
        let segment = self.segment;
        let tracking = self.request.identity.tracking(self.index);
        let is = Relation::HasObsContext;
        let mut content = vec![
            text(is, &Code::dcm("112039", "Tracking Identifier"), &segment.label),
            uid(is, &Code::dcm("112040", "Tracking Unique Identifier"), &tracking),
        ];
        let has = Relation::Contains;
        let category = Code::sct("276214006", "Finding category");
        content.push(code(has, &category, &segment.category));
        content.push(code(has, &Code::dcm("121071", "Finding"), &segment.property_type));
        let referenced = reference_to(self.request.segmentation, self.index);
        content.push(image(has, &Code::dcm("121191", "Referenced Segment"), referenced));
        let source = Code::dcm("121232", "Source series for segmentation");
        content.push(uid(has, &source, self.series));
        content.extend(site(segment));
        content.extend(algorithm(self.request.algorithm));
        content.push(self.volume());
        if let (Some(quantity), Some(values)) = (self.quantity, &self.statistics.values) {
            content.extend(spread(quantity, values));
        }
        container(&Code::dcm("125007", "Measurement Group"), Some("1411"), content)
    }

    fn volume(&self) -> Dataset {
        let millilitres = self.statistics.voxels as f64 * self.request.voxel_volume / 1000.0;
        let [value, scheme, meaning] = MILLILITRE;
        let units = Code::new(value, scheme, meaning);
        number(&Code::sct("118565006", "Volume"), millilitres, &units)
    }
}

/// References the segment at position `index` of a segmentation, in the object that has frames of it;
/// if none has, in the first object, which describes it.
fn reference_to(segmentation: &Segmentation, index: usize) -> Dataset {
    let objects = &segmentation.objects;
    let object = objects.iter().find(|object| object.segments.contains(&index)).or(objects.first());
    let mut item = Dataset::new_empty();
    let uid = object.map_or("", |object| &object.sop_instance_uid);
    item.put_text(tags::REFERENCED_SOP_CLASS_UID, dicom_core::VR::UI, segmentation.sop_class_uid);
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, dicom_core::VR::UI, uid);
    let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
    item.put_u16(tags::REFERENCED_SEGMENT_NUMBER, &[number]);
    item
}

/// Lateralities (PS3.16 CID 244).
const LATERALITIES: [&str; 4] = ["7771000", "24028007", "51440002", "66459002"];

/// Creates the Finding Site with its laterality: the region named by the package, or the segment itself
/// if it is a body part; `None` for anything that may occur anywhere.
fn site(segment: &SegmentDescription) -> Option<Dataset> {
    const ANATOMY: &str = "91723000";
    let anatomy = segment.category.scheme == "SCT" && segment.category.value == ANATOMY;
    let region = segment.anatomic_region.as_ref();
    let region = region.or(anatomy.then_some(&segment.property_type))?;
    let of = Relation::HasConceptMod;
    let site = code(of, &Code::sct("363698007", "Finding Site"), region);
    let sides = segment.type_modifier.iter();
    let sides = sides.filter(|m| m.scheme == "SCT" && LATERALITIES.contains(&m.value.as_str()));
    let laterality = Code::sct("272741003", "Laterality");
    Some(having(site, sides.map(|side| code(of, &laterality, side)).collect()))
}

/// Creates Algorithm Identification (TID 4019).
fn algorithm(algorithm: &Algorithm) -> Vec<Dataset> {
    let of = Relation::HasConceptMod;
    let mut items = vec![
        text(of, &Code::dcm("111001", "Algorithm Name"), &algorithm.name),
        text(of, &Code::dcm("111003", "Algorithm Version"), &algorithm.version),
    ];
    let parameters = algorithm.parameters.iter().flat_map(|list| list.split(','));
    let name = Code::dcm("111002", "Algorithm Parameters");
    items.extend(parameters.map(|parameter| text(of, &name, parameter)));
    items.push(code(of, &Code::dcm("111000", "Algorithm Family"), &algorithm.family));
    items
}

/// Creates items for the spread of the values (Derivation: PS3.16 CID 7464).
fn spread(quantity: &Quantity, values: &ValueStatistics) -> Vec<Dataset> {
    let of = |value: f64, derivation: Code| {
        let measured = number(&quantity.name, value, &quantity.units);
        let name = Code::dcm("121401", "Derivation");
        having(measured, vec![code(Relation::HasConceptMod, &name, &derivation)])
    };
    vec![
        of(values.mean, Code::sct("373098007", "Mean")),
        of(values.standard_deviation, Code::sct("386136009", "Standard Deviation")),
        of(values.minimum, Code::sct("255605001", "Minimum")),
        of(values.maximum, Code::sct("56851009", "Maximum")),
        of(values.median(), Code::sct("373099004", "Median")),
    ]
}
