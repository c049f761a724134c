//! A series of instances as every source delivers it: headers first, encoded frames later.

use std::sync::Arc;

use super::Dataset;

/// One series, with the headers of its instances in no particular order.
#[derive(Debug, Clone)]
pub struct Series {
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: String,
    /// Its instances, as the source lists them.
    pub instances: Vec<Instance>,
}

/// One instance: its complete header (patient, study, series and instance level in one data set, as
/// in a Part 10 file) and what is known about its frames before they are fetched.
#[derive(Debug, Clone)]
pub struct Instance {
    /// All attributes except the pixel data.
    pub dataset: Arc<Dataset>,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Transfer syntax UID of the encoded frames as delivered by this source.
    pub transfer_syntax: String,
    /// The frames in their order within the instance.
    pub frames: Vec<FrameDescriptor>,
}

/// What a source states about a frame before it is fetched. All of it is verified after decoding.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrameDescriptor {
    /// The source's identifier of the frame (AHI's image frame id); empty if it has none.
    pub id: String,
    /// Width and height in pixels at full resolution, if the source states them.
    pub dimensions: Option<(u32, u32)>,
    /// CRC-32 of the decoded little-endian pixels at full resolution, if the source states it.
    pub crc32: Option<u32>,
    /// Smallest and largest stored pixel value, if the source states them.
    pub pixel_range: Option<(f64, f64)>,
    /// Size of the encoded frame in bytes, if the source states it.
    pub encoded_bytes: Option<u64>,
}

/// Position of a frame in a [`Series`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKey {
    /// Index into [`Series::instances`].
    pub instance: usize,
    /// Index into [`Instance::frames`], counted from zero.
    pub frame: usize,
}
