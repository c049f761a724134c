//! The UIDs of the objects created from one segmentation.

use sha2::{Digest, Sha256};

use crate::dicom::uid;

/// The seed of all UIDs of one segmentation.
///
/// UIDs are derived from the segmentation's inputs. A repeated request thus creates instances with the
/// same UIDs, and an archive keeps one of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    seed: [u8; 32],
}

impl Identity {
    /// Creates the identity derived from `parts`; their order and boundaries matter.
    pub fn derived<'p>(parts: impl IntoIterator<Item = &'p str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self { seed: hash.finalize().into() }
    }

    /// Creates an identity that no other segmentation has.
    pub fn fresh() -> Self {
        Self::derived([uid::generate().as_str()])
    }

    /// Returns the UID of the named object: a series, an instance, a segment.
    pub fn uid(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(name.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        uid::from_digest(&digest)
    }

    /// Returns the Series Instance UID of objects of this kind.
    pub fn series(&self, kind: &str) -> String {
        self.uid(&format!("series {kind}"))
    }

    /// Returns the SOP Instance UID of object `number` of this kind in its series, counted from 1.
    pub fn instance(&self, kind: &str, number: usize) -> String {
        self.uid(&format!("instance {kind} {number}"))
    }

    /// Returns the Tracking UID (0062,0021) of the segment at this index, the same in every output.
    pub fn tracking(&self, segment: usize) -> String {
        self.uid(&format!("segment {segment}"))
    }

    /// Returns the Frame of Reference UID for a source that has none.
    pub fn frame_of_reference(&self) -> String {
        self.uid("frame of reference")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_make_the_same_uids() {
        let a = Identity::derived(["model", "1.2.3"]);
        assert_eq!(a.instance("seg", 1), Identity::derived(["model", "1.2.3"]).instance("seg", 1));
        let others = [
            a.instance("seg", 2),
            a.instance("sr", 1),
            a.series("seg"),
            a.tracking(0),
            a.frame_of_reference(),
            Identity::derived(["model1", ".2.3"]).instance("seg", 1),
            Identity::derived(["model", "1.2.4"]).instance("seg", 1),
            Identity::fresh().instance("seg", 1),
        ];
        let mut all = vec![a.instance("seg", 1)];
        for other in others {
            assert!(uid::is_valid(&other), "{other}");
            assert!(!all.contains(&other), "{other}");
            all.push(other);
        }
        assert_ne!(Identity::fresh(), Identity::fresh());
    }
}
