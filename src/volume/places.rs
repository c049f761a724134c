//! Locates the attributes of one frame in a header (PS3.3 C.7.6.16).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, Dataset};
use crate::error::Result;

/// The data sets that may hold an attribute of one frame, in order of precedence: the frame's own
/// functional group, the shared one, the top level.
pub(super) struct Places<'a> {
    candidates: Vec<&'a Dataset>,
}

impl<'a> Places<'a> {
    pub fn new(dataset: &'a Dataset, frame: usize, macro_sequence: Tag) -> Self {
        let group = |sequence: Tag, item: usize| -> Option<&'a Dataset> {
            let groups = dataset.get(sequence)?.items()?;
            groups.get(item)?.get(macro_sequence)?.items()?.first()
        };
        let candidates = [
            group(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame),
            group(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
            Some(dataset),
        ];
        Self { candidates: candidates.into_iter().flatten().collect() }
    }

    /// Returns the first data set that has the attribute; the top level if none has it, so that the
    /// error of a missing attribute is the usual one.
    fn holding(&self, tag: Tag) -> &'a Dataset {
        self.candidates
            .iter()
            .find(|d| d.get(tag).is_some())
            .or(self.candidates.last())
            .copied()
            .unwrap_or_else(|| unreachable!("the top level is always a candidate"))
    }

    pub fn numbers<const N: usize>(&self, tag: Tag) -> Result<[f64; N]> {
        self.holding(tag).required_numbers(tag)
    }

    pub fn number(&self, tag: Tag) -> Option<f64> {
        self.holding(tag).number(tag)
    }

    /// Returns the first item of a sequence.
    pub fn item(&self, sequence: Tag) -> Option<&'a Dataset> {
        self.holding(sequence).get(sequence)?.items()?.first()
    }

    /// Returns all values as text; empty if no data set has the attribute.
    pub fn texts(&self, tag: Tag) -> Vec<String> {
        self.holding(tag).texts(tag)
    }
}
