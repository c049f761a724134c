//! The attributes of a segmentation, module by module, all but its pixel data.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::charset::set_character_set;
use super::content::Content;
use super::elements::{Put, code_item, reference};
use super::source::{copy_context, copy_lossy_compression};
use super::{Algorithm, SegmentDescription, color, functional_groups};
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, Result};

/// Who made the object (Enhanced General Equipment Module, PS3.3 C.7.5.2).
const MANUFACTURER: &str = "ahi-inference";
/// No device with a serial number is involved; the attribute must not be empty.
const DEVICE_SERIAL_NUMBER: &str = "0";
/// The series is numbered this far after the one it was made from, so that viewers list both
/// together and scanners, which count from 1, do not use the number.
const SERIES_NUMBER_OFFSET: i64 = 1000;

impl<L> Content<'_, '_, L> {
    /// The whole data set but for the pixel data.
    pub fn dataset(&self, warnings: &mut Vec<String>) -> Result<Dataset> {
        let first = self.instances.first().ok_or_else(|| Error::internal("no source instance"))?;
        let source: &Dataset = &first.dataset;
        let mut to = Dataset::new_empty();
        copy_context(source, &mut to)?;
        copy_lossy_compression(self.instances, &mut to);
        self.put_frame_of_reference(source, &mut to, warnings);
        self.put_series(source, &mut to)?;
        put_equipment(self.request.algorithm, &mut to);
        put_times(source, &mut to)?;
        self.put_image(&mut to);
        self.put_segments(&mut to);
        functional_groups::put(self, &mut to);
        set_character_set(source, &mut to);
        Ok(to)
    }

    /// Frame of Reference Module (PS3.3 C.7.4.1).
    fn put_frame_of_reference(
        &self,
        source: &Dataset,
        to: &mut Dataset,
        warnings: &mut Vec<String>,
    ) {
        let frame_of_reference = source.text(tags::FRAME_OF_REFERENCE_UID).unwrap_or_else(|| {
            warnings.push(
                "the source has no FrameOfReferenceUID; the segmentation has one of its own, and \
                 viewers relate it to the images by their references alone"
                    .to_owned(),
            );
            self.identity.frame_of_reference_uid.clone()
        });
        to.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &frame_of_reference);
    }

    /// General Series, Segmentation Series (PS3.3 C.7.3.1, C.8.20.1) and Common Instance Reference
    /// (C.12.2) modules.
    fn put_series(&self, source: &Dataset, to: &mut Dataset) -> Result<()> {
        let number = source.integer(tags::SERIES_NUMBER).unwrap_or(0);
        let number = Some(number.saturating_add(SERIES_NUMBER_OFFSET))
            .filter(|&number| i32::try_from(number).is_ok())
            .unwrap_or(SERIES_NUMBER_OFFSET);
        to.put_text(tags::MODALITY, VR::CS, "SEG");
        to.put_text(tags::SERIES_INSTANCE_UID, VR::UI, &self.identity.series_instance_uid);
        to.put_text(tags::SERIES_NUMBER, VR::IS, &number.to_string());
        let description = &self.request.options.series_description;
        to.put_text(tags::SERIES_DESCRIPTION, VR::LO, description);

        let mut series = Dataset::new_empty();
        let series_uid = source.required_text(tags::SERIES_INSTANCE_UID)?;
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, &series_uid);
        let references = self.instances.iter().map(|instance| reference(instance)).collect();
        series.put_items(tags::REFERENCED_INSTANCE_SEQUENCE, references);
        to.put_items(tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
        Ok(())
    }

    /// SOP Common, General Image, Image Pixel and Segmentation Image modules (PS3.3 C.12.1,
    /// C.7.6.1, C.7.6.3, C.8.20.2).
    fn put_image(&self, to: &mut Dataset) {
        let (columns, rows, _) = self.request.voxels.dim();
        let dimension = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        to.put_text(tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE);
        to.put_text(tags::SOP_INSTANCE_UID, VR::UI, self.sop_instance_uid);
        to.put_text(tags::INSTANCE_NUMBER, VR::IS, &self.number.to_string());
        to.put_texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED".to_owned(), "PRIMARY".to_owned()]);
        to.put_text(tags::NUMBER_OF_FRAMES, VR::IS, &self.frames.len().to_string());
        to.put_u16(tags::SAMPLES_PER_PIXEL, &[1]);
        to.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        to.put_u16(tags::ROWS, &[dimension(rows)]);
        to.put_u16(tags::COLUMNS, &[dimension(columns)]);
        to.put_u16(tags::BITS_ALLOCATED, &[1]);
        to.put_u16(tags::BITS_STORED, &[1]);
        to.put_u16(tags::HIGH_BIT, &[0]);
        to.put_u16(tags::PIXEL_REPRESENTATION, &[0]);
        to.put_text(tags::CONTENT_LABEL, VR::CS, "SEGMENTATION");
        let description = &self.request.options.series_description;
        to.put_text(tags::CONTENT_DESCRIPTION, VR::LO, description);
        to.put_text(tags::CONTENT_CREATOR_NAME, VR::PN, "");
        to.put_text(tags::SEGMENTATION_TYPE, VR::CS, "BINARY");
        let overlap = if self.overlap { "YES" } else { "NO" };
        to.put_text(tags::SEGMENTS_OVERLAP, VR::CS, overlap);
    }

    fn put_segments(&self, to: &mut Dataset) {
        let algorithm = self.request.algorithm;
        let segments = self.request.segments.iter().zip(&self.identity.tracking).zip(0_u16..);
        let items = segments.map(|((segment, tracking_uid), index)| {
            segment_item(segment, index, algorithm, tracking_uid)
        });
        to.put_items(tags::SEGMENT_SEQUENCE, items.collect());
    }
}

/// An item of the Segment Sequence (Segment Description Macro, PS3.3 C.8.20.4). `index` counts from
/// zero.
fn segment_item(
    segment: &SegmentDescription,
    index: u16,
    algorithm: &Algorithm,
    tracking_uid: &str,
) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_u16(tags::SEGMENT_NUMBER, &[index + 1]);
    item.put_text(tags::SEGMENT_LABEL, VR::LO, &segment.label);
    item.put_text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    item.put_text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, &algorithm.name);
    item.put_items(
        tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
        vec![algorithm_item(algorithm)],
    );
    item.put_code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &segment.category);
    let mut property = code_item(&segment.property_type);
    if let Some(modifier) = &segment.type_modifier {
        property.put_code(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, modifier);
    }
    item.put_items(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![property]);
    if let Some(region) = &segment.anatomic_region {
        item.put_code(tags::ANATOMIC_REGION_SEQUENCE, region);
    }
    let color = segment.color.unwrap_or_else(|| color::distinct(usize::from(index)));
    item.put_u16(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &color::cielab(color));
    item.put_text(tags::TRACKING_ID, VR::UT, &segment.label);
    item.put_text(tags::TRACKING_UID, VR::UI, tracking_uid);
    item
}

/// Algorithm Identification Macro (PS3.3 10.16, Table 10-19).
fn algorithm_item(algorithm: &Algorithm) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, &algorithm.family);
    item.put_text(tags::ALGORITHM_NAME, VR::LO, &algorithm.name);
    item.put_text(tags::ALGORITHM_VERSION, VR::LO, &algorithm.version);
    if let Some(parameters) = &algorithm.parameters {
        item.put_text(tags::ALGORITHM_PARAMETERS, VR::LT, parameters);
    }
    item
}

/// General and Enhanced General Equipment modules (PS3.3 C.7.5.1, C.7.5.2): the software that wrote
/// the object and the model it ran.
fn put_equipment(algorithm: &Algorithm, to: &mut Dataset) {
    to.put_text(tags::MANUFACTURER, VR::LO, MANUFACTURER);
    to.put_text(tags::MANUFACTURER_MODEL_NAME, VR::LO, &algorithm.name);
    to.put_text(tags::DEVICE_SERIAL_NUMBER, VR::LO, DEVICE_SERIAL_NUMBER);
    let versions = [env!("CARGO_PKG_VERSION").to_owned(), algorithm.version.clone()];
    to.put_texts(tags::SOFTWARE_VERSIONS, VR::LO, &versions);
}

/// Dates and times of series, content and instance: now, on the clock of the source's Timezone
/// Offset From UTC or else in UTC.
fn put_times(source: &Dataset, to: &mut Dataset) -> Result<()> {
    const DATE: &[BorrowedFormatItem] = format_description!("[year][month][day]");
    const TIME: &[BorrowedFormatItem] = format_description!("[hour][minute][second]");
    let defect = |e| Error::internal("the current time cannot be written").caused_by(e);
    let now = now_at(source.text(tags::TIMEZONE_OFFSET_FROM_UTC).as_deref());
    let date = now.format(DATE).map_err(|e| defect(Box::new(e)))?;
    let time = now.format(TIME).map_err(|e| defect(Box::new(e)))?;
    let dates: [Tag; 3] = [tags::SERIES_DATE, tags::CONTENT_DATE, tags::INSTANCE_CREATION_DATE];
    for tag in dates {
        to.put_text(tag, VR::DA, &date);
    }
    for tag in [tags::SERIES_TIME, tags::CONTENT_TIME, tags::INSTANCE_CREATION_TIME] {
        to.put_text(tag, VR::TM, &time);
    }
    Ok(())
}

/// The present on the clock of an offset such as `+0100` (PS3.3 C.12.1.1.8), UTC where there is
/// none.
fn now_at(offset: Option<&str>) -> OffsetDateTime {
    const OFFSET: &[BorrowedFormatItem] =
        format_description!("[offset_hour sign:mandatory][offset_minute]");
    let offset = offset.and_then(|text| UtcOffset::parse(text, OFFSET).ok());
    OffsetDateTime::now_utc().to_offset(offset.unwrap_or(UtcOffset::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_sources_offset() {
        assert_eq!(now_at(Some("+0130")).offset().whole_minutes(), 90);
        assert_eq!(now_at(Some("-0500")).offset().whole_minutes(), -300);
        assert_eq!(now_at(Some("nonsense")).offset(), UtcOffset::UTC);
        assert_eq!(now_at(None).offset(), UtcOffset::UTC);
    }
}
