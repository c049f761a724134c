//! The UIDs of what is made of one segmentation.

use sha2::{Digest, Sha256};

use crate::dicom::uid;

/// What all UIDs of one segmentation are made from.
///
/// They are derived from what the segmentation was made of, so that a request that is sent again makes
/// instances of the same UIDs, and an archive that has them keeps one of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    seed: [u8; 32],
}

impl Identity {
    /// The identity of what is made from `parts`, which are told apart by their order and their ends.
    pub fn derived<'p>(parts: impl IntoIterator<Item = &'p str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self { seed: hash.finalize().into() }
    }

    /// An identity that no other segmentation has.
    pub fn fresh() -> Self {
        Self::derived([uid::generate().as_str()])
    }

    /// The UID of the thing of this name: a series, an instance, a segment.
    pub fn uid(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(name.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        uid::from_digest(&digest)
    }

    /// Series Instance UID of the objects of this kind.
    pub fn series(&self, kind: &str) -> String {
        self.uid(&format!("series {kind}"))
    }

    /// SOP Instance UID of the object of this kind and number, from 1, of its series.
    pub fn instance(&self, kind: &str, number: usize) -> String {
        self.uid(&format!("instance {kind} {number}"))
    }

    /// Tracking UID (0062,0021) of the segment of this index, the same in every output.
    pub fn tracking(&self, segment: usize) -> String {
        self.uid(&format!("segment {segment}"))
    }

    /// Frame of Reference UID of a source that has none.
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
