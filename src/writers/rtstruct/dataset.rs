//! Writes the attributes of an RT Structure Set, module by module, except its contours.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::RtStructRequest;
use crate::dicom::segment::SegmentDescription;
use crate::dicom::{Attributes, Dataset, Instance};
use crate::error::{Error, Result};
use crate::writers::dicom::{
    Put, SeriesHead, SourceSlice, algorithm_item, copy_context, decimal_string, put_equipment,
    put_frame_of_reference, put_meaning, put_series, put_times, reference, set_character_set,
};

/// Offset of the series number from that of the source series.
const SERIES_NUMBER_OFFSET: i64 = 1002;
/// Structure Set Label (3006,0002), at most 16 characters.
const LABEL: &str = "AI SEGMENTATION";
/// ROI Generation Algorithm (3006,0036): not drawn by a person.
const AUTOMATIC: &str = "AUTOMATIC";
/// Approval Status (300E,0002): not reviewed yet.
const UNAPPROVED: &str = "UNAPPROVED";

/// The source of the attributes.
pub(super) struct Content<'a, 'v, L> {
    pub request: &'a RtStructRequest<'a, 'v, L>,
    pub sop_instance_uid: &'a str,
    pub series_instance_uid: &'a str,
    /// The source instances without duplicates, at least one.
    pub instances: &'a [&'a Instance],
    /// Number of voxels of each segment.
    pub voxels: &'a [u64],
}

impl<L> Content<'_, '_, L> {
    /// Creates the whole data set, except the ROI Contour Sequence.
    pub fn dataset(&self, warnings: &mut Vec<String>) -> Result<Dataset> {
        let first = self.instances.first().ok_or_else(|| Error::internal("no source instance"))?;
        let source: &Dataset = &first.dataset;
        let mut to = Dataset::new_empty();
        copy_context(source, &mut to)?;
        // These describe only the image series.
        to.remove_element(tags::BODY_PART_EXAMINED);
        to.remove_element(tags::LATERALITY);
        let frame_of_reference =
            put_frame_of_reference(source, self.request.identity, &mut to, warnings);
        let head = SeriesHead {
            modality: "RTSTRUCT",
            uid: self.series_instance_uid,
            description: &self.request.options.series_description,
            offset: SERIES_NUMBER_OFFSET,
        };
        put_series(&head, source, &mut to);
        to.put_text(tags::OPERATORS_NAME, VR::PN, "");
        put_equipment(self.request.algorithm, &mut to);
        put_times(source, &mut to)?;
        to.put_text(tags::SOP_CLASS_UID, VR::UI, uids::RT_STRUCTURE_SET_STORAGE);
        to.put_text(tags::SOP_INSTANCE_UID, VR::UI, self.sop_instance_uid);
        self.put_structure_set(source, &frame_of_reference, &mut to)?;
        self.put_observations(&mut to);
        to.put_text(tags::APPROVAL_STATUS, VR::CS, UNAPPROVED);
        set_character_set(source, &mut to);
        Ok(to)
    }

    /// Writes the Structure Set Module (PS3.3 C.8.8.5).
    fn put_structure_set(
        &self,
        source: &Dataset,
        frame_of_reference: &str,
        to: &mut Dataset,
    ) -> Result<()> {
        to.put_text(tags::STRUCTURE_SET_LABEL, VR::SH, LABEL);
        to.put_text(tags::STRUCTURE_SET_NAME, VR::LO, &self.request.options.series_description);
        to.put_text(tags::INSTANCE_NUMBER, VR::IS, "1");
        for (from, tag, vr) in [
            (tags::CONTENT_DATE, tags::STRUCTURE_SET_DATE, VR::DA),
            (tags::CONTENT_TIME, tags::STRUCTURE_SET_TIME, VR::TM),
        ] {
            to.put_text(tag, vr, &to.text(from).unwrap_or_default());
            to.remove_element(from);
        }
        let referenced = self.referenced_frame_of_reference(source, frame_of_reference)?;
        to.put_items(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, vec![referenced]);
        let numbered = self.request.segments.iter().zip(self.voxels).zip(1..);
        let items = numbered.map(|((segment, &voxels), number)| {
            self.roi(segment, voxels, number, frame_of_reference)
        });
        to.put_items(tags::STRUCTURE_SET_ROI_SEQUENCE, items.collect());
        Ok(())
    }

    /// References every image of the source: some readers build a volume from these references first.
    fn referenced_frame_of_reference(
        &self,
        source: &Dataset,
        frame_of_reference: &str,
    ) -> Result<Dataset> {
        let images = self.instances.iter().map(|instance| self.image(instance)).collect();
        let mut series = Dataset::new_empty();
        let series_uid = source.required_text(tags::SERIES_INSTANCE_UID)?;
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, &series_uid);
        series.put_items(tags::CONTOUR_IMAGE_SEQUENCE, images);

        // Studies no longer have a SOP class; C.8.8.5.4 requires the retired one.
        let mut study = Dataset::new_empty();
        let study_uid = source.required_text(tags::STUDY_INSTANCE_UID)?;
        study.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, DETACHED_STUDY_MANAGEMENT);
        study.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &study_uid);
        study.put_items(tags::RT_REFERENCED_SERIES_SEQUENCE, vec![series]);

        let mut item = Dataset::new_empty();
        item.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, frame_of_reference);
        item.put_items(tags::RT_REFERENCED_STUDY_SEQUENCE, vec![study]);
        Ok(item)
    }

    /// Creates an item of the Contour Image Sequence. It lists the frames that are slices, unless all
    /// are.
    fn image(&self, instance: &Instance) -> Dataset {
        let mut item = reference(instance);
        let same =
            |slice: &&SourceSlice| slice.instance.sop_instance_uid == instance.sop_instance_uid;
        let slices = || self.request.slices.iter().filter(same);
        let frames = slices().next().map_or(1, SourceSlice::number_of_frames);
        if frames > 1 && slices().count() as u64 != frames {
            let numbers: Vec<String> = slices().map(|s| (s.frame + 1).to_string()).collect();
            item.put_texts(tags::REFERENCED_FRAME_NUMBER, VR::IS, &numbers);
        }
        item
    }

    /// Creates an item of the Structure Set ROI Sequence.
    fn roi(
        &self,
        segment: &SegmentDescription,
        voxels: u64,
        number: usize,
        frame_of_reference: &str,
    ) -> Dataset {
        let algorithm = self.request.algorithm;
        let mut item = Dataset::new_empty();
        item.put_text(tags::ROI_NUMBER, VR::IS, &number.to_string());
        item.put_text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, frame_of_reference);
        item.put_text(tags::ROI_NAME, VR::LO, &segment.label);
        if let Some(voxel) = self.request.options.voxel_volume {
            // In cubic centimetres.
            let volume = voxels as f64 * voxel / 1000.0;
            item.put_text(tags::ROI_VOLUME, VR::DS, &decimal_string(volume));
        }
        item.put_text(tags::ROI_GENERATION_ALGORITHM, VR::CS, AUTOMATIC);
        item.put_text(tags::ROI_GENERATION_DESCRIPTION, VR::LO, &algorithm.name);
        item.put_items(
            tags::ROI_DERIVATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
            vec![algorithm_item(algorithm)],
        );
        item
    }

    /// Writes the RT ROI Observations Module (PS3.3 C.8.8.8).
    fn put_observations(&self, to: &mut Dataset) {
        let items = self.request.segments.iter().zip(1..).map(|(segment, number)| {
            let number = usize::to_string(&number);
            let mut item = Dataset::new_empty();
            item.put_text(tags::OBSERVATION_NUMBER, VR::IS, &number);
            item.put_text(tags::REFERENCED_ROI_NUMBER, VR::IS, &number);
            put_meaning(segment, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, &mut item);
            item.put_text(tags::RTROI_INTERPRETED_TYPE, VR::CS, interpreted_type(segment));
            item.put_text(tags::ROI_INTERPRETER, VR::PN, "");
            item
        });
        to.put_items(tags::RTROI_OBSERVATIONS_SEQUENCE, items.collect());
    }
}

/// SOP Class UID for studies.
const DETACHED_STUDY_MANAGEMENT: &str = "1.2.840.10008.3.1.2.3.1";

/// Returns the RT ROI Interpreted Type (3006,00A4, PS3.3 C.8.8.8.1): `ORGAN` for anatomy. Any other
/// meaning of a region for a treatment, above all a target, is for people to decide.
fn interpreted_type(segment: &SegmentDescription) -> &'static str {
    /// SNOMED CT: Anatomical Structure, Tissue, Organ, and Anatomical or acquired body structure.
    const ANATOMY: [&str; 4] = ["91723000", "85756007", "113343008", "123037004"];
    let category = &segment.category;
    if category.scheme == "SCT" && ANATOMY.contains(&category.value.as_str()) {
        "ORGAN"
    } else {
        ""
    }
}
