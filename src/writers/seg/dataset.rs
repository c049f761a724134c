//! Writes the attributes of a segmentation, module by module, except its pixel data.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::content::Content;
use super::{Algorithm, SegmentDescription, SegmentationType, functional_groups, labelmap};
use crate::dicom::segment::Code;
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, Result};
use crate::writers::dicom::{
    Put, SeriesHead, algorithm_item, color, copy_context, copy_lossy_compression, put_equipment,
    put_frame_of_reference, put_meaning, put_series, put_times, reference, set_character_set,
};

/// Pixel value of a label map outside of all segments.
const BACKGROUND: u16 = 0;

impl<L> Content<'_, '_, L> {
    /// Creates the whole data set, except the pixel data.
    pub fn dataset(&self, warnings: &mut Vec<String>) -> Result<Dataset> {
        let first = self.instances.first().ok_or_else(|| Error::internal("no source instance"))?;
        let source: &Dataset = &first.dataset;
        let mut to = Dataset::new_empty();
        copy_context(source, &mut to)?;
        copy_lossy_compression(self.instances, &mut to);
        put_frame_of_reference(source, self.request.identity, &mut to, warnings);
        self.put_series(source, &mut to)?;
        put_equipment(self.request.algorithm, &mut to);
        put_times(source, &mut to)?;
        self.put_image(&mut to);
        self.put_segments(&mut to);
        functional_groups::put(self, &mut to);
        set_character_set(source, &mut to);
        Ok(to)
    }

    /// Writes the General Series, Segmentation Series (PS3.3 C.7.3.1, C.8.20.1) and Common Instance
    /// Reference (C.12.2) modules.
    fn put_series(&self, source: &Dataset, to: &mut Dataset) -> Result<()> {
        let head = SeriesHead {
            modality: "SEG",
            uid: self.series_instance_uid,
            description: &self.request.options.series_description,
            offset: self.request.options.segmentation_type.series_number_offset(),
        };
        put_series(&head, source, to);

        let mut series = Dataset::new_empty();
        let series_uid = source.required_text(tags::SERIES_INSTANCE_UID)?;
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, &series_uid);
        let references = self.instances.iter().map(|instance| reference(instance)).collect();
        series.put_items(tags::REFERENCED_INSTANCE_SEQUENCE, references);
        to.put_items(tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
        Ok(())
    }

    /// Writes the SOP Common, General Image, Image Pixel and Segmentation Image modules (PS3.3 C.12.1,
    /// C.7.6.1, C.7.6.3, C.8.20.2).
    fn put_image(&self, to: &mut Dataset) {
        let (columns, rows, _) = self.request.voxels.dim();
        let dimension = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let (sop_class, name, bits) = match self.request.options.segmentation_type {
            SegmentationType::Binary => (uids::SEGMENTATION_STORAGE, "BINARY", 1),
            SegmentationType::LabelMap(_) => {
                let bits = labelmap::bits_allocated(self.request.segments.len());
                to.put_u16(tags::PIXEL_PADDING_VALUE, &[BACKGROUND]);
                (uids::LABEL_MAP_SEGMENTATION_STORAGE, "LABELMAP", bits)
            }
        };
        to.put_text(tags::SOP_CLASS_UID, VR::UI, sop_class);
        to.put_text(tags::SOP_INSTANCE_UID, VR::UI, self.sop_instance_uid);
        to.put_text(tags::INSTANCE_NUMBER, VR::IS, &self.number.to_string());
        to.put_texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED".to_owned(), "PRIMARY".to_owned()]);
        to.put_text(tags::NUMBER_OF_FRAMES, VR::IS, &self.frames.len().to_string());
        to.put_u16(tags::SAMPLES_PER_PIXEL, &[1]);
        to.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        to.put_u16(tags::ROWS, &[dimension(rows)]);
        to.put_u16(tags::COLUMNS, &[dimension(columns)]);
        to.put_u16(tags::BITS_ALLOCATED, &[bits]);
        to.put_u16(tags::BITS_STORED, &[bits]);
        to.put_u16(tags::HIGH_BIT, &[bits - 1]);
        to.put_u16(tags::PIXEL_REPRESENTATION, &[0]);
        to.put_text(tags::CONTENT_LABEL, VR::CS, "SEGMENTATION");
        let description = &self.request.options.series_description;
        to.put_text(tags::CONTENT_DESCRIPTION, VR::LO, description);
        to.put_text(tags::CONTENT_CREATOR_NAME, VR::PN, "");
        to.put_text(tags::SEGMENTATION_TYPE, VR::CS, name);
        let overlap = if self.overlap { "YES" } else { "NO" };
        to.put_text(tags::SEGMENTS_OVERLAP, VR::CS, overlap);
    }

    fn put_segments(&self, to: &mut Dataset) {
        let algorithm = self.request.algorithm;
        let identity = self.request.identity;
        let items = self.request.segments.iter().zip(0_u16..).map(|(segment, index)| {
            segment_item(segment, index, algorithm, &identity.tracking(usize::from(index)))
        });
        let background = (!self.by_segment()).then(|| background_item(algorithm));
        to.put_items(tags::SEGMENT_SEQUENCE, background.into_iter().chain(items).collect());
    }
}

/// Creates the item of a label map's background: every pixel value must be described (PS3.3
/// C.8.20.2.3). Readers recognise it by Pixel Padding Value (0028,0120), which has the same number.
fn background_item(algorithm: &Algorithm) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_u16(tags::SEGMENT_NUMBER, &[BACKGROUND]);
    item.put_text(tags::SEGMENT_LABEL, VR::LO, "Background");
    item.put_text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    item.put_text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, &algorithm.name);
    item.put_code(
        tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
        &Code::sct("309825002", "Spatial and Relational Concept"),
    );
    item.put_code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &Code::dcm("125040", "Background"));
    item.put_u16(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &color::cielab([0, 0, 0]));
    item
}

/// Creates an item of the Segment Sequence (Segment Description Macro, PS3.3 C.8.20.4). `index` counts
/// from zero.
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
    put_meaning(segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &mut item);
    let color = segment.color.unwrap_or_else(|| color::distinct(usize::from(index)));
    item.put_u16(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &color::cielab(color));
    item.put_text(tags::TRACKING_ID, VR::UT, &segment.label);
    item.put_text(tags::TRACKING_UID, VR::UI, tracking_uid);
    item
}
