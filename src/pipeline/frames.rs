//! Fetches and decodes the frames of a volume concurrently.
//!
//! Encoded frames arrive in any order. Each is decoded on the CPU pool as soon as it arrives, checked
//! against the source's description while it is in the core's cache, and written to its position in the
//! volume as physical values. The number of frames that wait for a decoder is limited, so a fast
//! connection does not fill the memory.

use std::sync::Arc;

use futures::TryStreamExt;

use super::Holding;
pub use super::decoding::Work;
use super::decoding::may_be_the_transfers;
use super::placing::Filling;
use crate::dicom::{FrameKey, Series};
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};
use crate::source::{EncodedFrame, ImageSource};
use crate::volume::{Plan, Volume};

/// Statistics of fetching and decoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Number of frames decoded.
    pub frames: usize,
    /// Bytes received.
    pub encoded_bytes: u64,
    /// Times of the decoders, summed over frames.
    pub work: Work,
}

impl std::ops::AddAssign for FrameStats {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.encoded_bytes += other.encoded_bytes;
        self.work += other.work;
    }
}

/// Fetches every frame of `plan` and decodes it into a volume. Active decoders hold `holding`. If the volume is to
/// be `measured`, its values are kept for that.
pub async fn load(
    source: &dyn ImageSource,
    series: &Arc<Series>,
    plan: &Arc<Plan>,
    progress: &dyn Progress,
    holding: &Holding,
    measured: bool,
) -> Result<(Volume, FrameStats)> {
    let place: std::collections::HashMap<FrameKey, usize> =
        plan.slices.iter().enumerate().map(|(i, slice)| (slice.key, i)).collect();
    let keys = largest_first(series, plan);
    let total = keys.len();
    let filling = Filling::begin(series.clone(), plan.clone(), holding.clone(), measured)?;
    let mut stats = FrameStats::default();
    progress.advance(Stage::Frames, 0, total);
    let waiting = 2 * rayon::current_num_threads();
    let mut decoded = source
        .frames(series, keys)
        .map_ok(|frame| {
            let index = place.get(&frame.key).copied();
            let filling = &filling;
            async move {
                let index = index.ok_or_else(|| {
                    Error::internal("the source delivered a frame that was not asked for")
                })?;
                intact(source, series, filling, index, frame).await
            }
        })
        .try_buffer_unordered(waiting);
    while let Some(one) = decoded.try_next().await? {
        progress.check()?;
        stats += one;
        progress.advance(Stage::Frames, stats.frames, total);
    }
    drop(decoded);
    Ok((filling.end().await?, stats))
}

/// Returns the frames of a plan in the order of requests. If their encoded sizes are known, those that
/// take longest come first, so that no core is left alone with the last of them.
fn largest_first(series: &Series, plan: &Plan) -> Vec<FrameKey> {
    let mut keys: Vec<FrameKey> = plan.slices.iter().map(|s| s.key).collect();
    let bytes = |key: &FrameKey| {
        let instance = series.instances.get(key.instance)?;
        instance.frames.get(key.frame)?.encoded_bytes
    };
    if keys.iter().all(|key| bytes(key).is_some()) {
        // Equal sizes stay in the volume's order.
        keys.sort_by_key(|key| std::cmp::Reverse(bytes(key)));
    }
    keys
}

/// Number of retries for a frame.
pub(super) const AGAIN: usize = 2;

/// Decodes a frame. A broken frame (truncated, corrupted, or with another frame's bytes, which its
/// checksum reveals) is requested again before the image set is considered at fault. The bytes of all
/// transfers count.
async fn intact(
    source: &dyn ImageSource,
    series: &Series,
    filling: &Filling,
    index: usize,
    mut frame: EncodedFrame,
) -> Result<FrameStats> {
    let mut encoded_bytes = 0;
    for again in 0.. {
        encoded_bytes += frame.data.len() as u64;
        let key = frame.key;
        let error = match filling.decode(index, frame).await {
            Ok(work) => return Ok(FrameStats { frames: 1, encoded_bytes, work }),
            Err(e) if again < AGAIN && may_be_the_transfers(&e) => e,
            Err(e) => return Err(e),
        };
        let Some(once_more) = source.frame_again(series, key).await? else { return Err(error) };
        tracing::warn!(%error, "a frame was corrupt and is fetched again");
        frame = once_more;
    }
    Err(Error::internal("a frame without an end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Wanted};
    use crate::source::dicom_files::DicomFiles;

    #[tokio::test]
    async fn the_largest_frames_are_asked_for_first_where_all_sizes_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("p");
        let phantom = crate::phantom::PhantomArgs {
            out: out.clone(),
            seed: 1,
            size: 32,
            slices: 4,
            spacing: 5.0,
            slice_spacing: 5.0,
        };
        phantom.write().unwrap();
        let mut series = DicomFiles::new(out.join("dicom"), None).series().await.unwrap();
        let plans = crate::volume::plan(&series, &Policy::default(), Wanted::Any);
        let plan = plans.unwrap().remove(0);
        let order: Vec<FrameKey> = plan.slices.iter().map(|slice| slice.key).collect();
        let sizes = [Some(5), Some(7), Some(5), Some(9)];
        for (key, bytes) in order.iter().zip(sizes) {
            series.instances[key.instance].frames[key.frame].encoded_bytes = bytes;
        }
        let largest: Vec<FrameKey> = [3, 1, 0, 2].map(|i| order[i]).to_vec();
        assert_eq!(largest_first(&series, &plan), largest);
        series.instances[order[2].instance].frames[0].encoded_bytes = None;
        assert_eq!(largest_first(&series, &plan), order);
    }
}
