//! Describes what created an object: the program and its model.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::elements::Put;
use crate::dicom::Dataset;
use crate::dicom::segment::{Algorithm, Code};

/// Manufacturer of the object (Enhanced General Equipment Module, PS3.3 C.7.5.2).
pub(in crate::writers) const MANUFACTURER: &str = "ahi-inference";
/// No device with a serial number is involved, but the attribute must not be empty.
const DEVICE_SERIAL_NUMBER: &str = "0";

/// Writes the General and Enhanced General Equipment modules (PS3.3 C.7.5.1, C.7.5.2) and the
/// Contributing Equipment Sequence of the SOP Common Module (C.12.1): the software that wrote the
/// object and the model it ran. Archives that replace the former keep the latter.
pub(in crate::writers) fn put_equipment(algorithm: &Algorithm, to: &mut Dataset) {
    put_names(algorithm, to);
    to.put_text(tags::DEVICE_SERIAL_NUMBER, VR::LO, DEVICE_SERIAL_NUMBER);
    let mut contributing = Dataset::new_empty();
    contributing.put_code(
        tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
        &Code::dcm("109102", "Processing Equipment"),
    );
    put_names(algorithm, &mut contributing);
    contributing.put_text(
        tags::CONTRIBUTION_DESCRIPTION,
        VR::ST,
        "Automatic segmentation of the referenced images",
    );
    to.put_items(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, vec![contributing]);
}

fn put_names(algorithm: &Algorithm, to: &mut Dataset) {
    to.put_text(tags::MANUFACTURER, VR::LO, MANUFACTURER);
    to.put_text(tags::MANUFACTURER_MODEL_NAME, VR::LO, &algorithm.name);
    let versions = [env!("CARGO_PKG_VERSION").to_owned(), algorithm.version.clone()];
    to.put_texts(tags::SOFTWARE_VERSIONS, VR::LO, &versions);
}

/// Creates an item of the Algorithm Identification Macro (PS3.3 10.16, Table 10-19).
pub(in crate::writers) fn algorithm_item(algorithm: &Algorithm) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, &algorithm.family);
    item.put_text(tags::ALGORITHM_NAME, VR::LO, &algorithm.name);
    item.put_text(tags::ALGORITHM_VERSION, VR::LO, &algorithm.version);
    if let Some(parameters) = &algorithm.parameters {
        item.put_text(tags::ALGORITHM_PARAMETERS, VR::LT, parameters);
    }
    item
}
