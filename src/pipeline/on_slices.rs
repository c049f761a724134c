//! Writers of DICOM objects on the source's slices, for voxels of any form.

use crate::dicom::Series;
use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::error::Result;
use crate::volume::Plan;
use crate::writers::dicom::{Identity, SourceSlice};
use crate::writers::rtstruct::{self, RtStruct, RtStructOptions, RtStructRequest};
use crate::writers::seg::{self, Seg, SegOptions, SegRequest};
use crate::writers::{Label, Voxels};

/// The description of a segmentation for its objects, apart from voxels.
pub(super) struct Described<'w> {
    pub segments: &'w [SegmentDescription],
    pub algorithm: &'w Algorithm,
    pub identity: &'w Identity,
}

/// A writer of DICOM objects for voxels of any form on the source's slices.
pub(super) trait OnSlices {
    /// The written result.
    type Written;

    fn write<'v, L: Label>(
        self,
        voxels: Voxels<'v, L>,
        slices: &'v [SourceSlice<'v>],
    ) -> Result<Self::Written>
    where
        Self: 'v;
}

/// Writes DICOM SEG.
pub(super) struct SegWriter<'w> {
    pub of: Described<'w>,
    pub options: &'w SegOptions,
}

impl OnSlices for SegWriter<'_> {
    type Written = Vec<Seg>;

    fn write<'v, L: Label>(
        self,
        voxels: Voxels<'v, L>,
        slices: &'v [SourceSlice<'v>],
    ) -> Result<Vec<Seg>>
    where
        Self: 'v,
    {
        seg::write(&SegRequest {
            voxels,
            slices,
            segments: self.of.segments,
            algorithm: self.of.algorithm,
            identity: self.of.identity,
            options: self.options,
        })
    }
}

/// Writes an RT Structure Set.
pub(super) struct RtStructWriter<'w> {
    pub of: Described<'w>,
    pub options: &'w RtStructOptions,
}

impl OnSlices for RtStructWriter<'_> {
    type Written = RtStruct;

    fn write<'v, L: Label>(
        self,
        voxels: Voxels<'v, L>,
        slices: &'v [SourceSlice<'v>],
    ) -> Result<RtStruct>
    where
        Self: 'v,
    {
        rtstruct::write(&RtStructRequest {
            voxels: &voxels,
            slices,
            segments: self.of.segments,
            algorithm: self.of.algorithm,
            identity: self.of.identity,
            options: self.options,
        })
    }
}

/// Returns the source's slices, as objects refer to them.
pub(super) fn source_slices<'s>(series: &'s Series, plan: &Plan) -> Vec<SourceSlice<'s>> {
    let slice = |slice: &crate::volume::Slice| SourceSlice {
        instance: &series.instances[slice.key.instance],
        frame: slice.key.frame,
    };
    plan.slices.iter().map(slice).collect()
}
