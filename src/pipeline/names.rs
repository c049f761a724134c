//! Names of output files, which describe their content. They are built from the segment labels, which
//! come from the model package and contain nothing about a patient.

use super::{chosen, kinds};
use crate::dicom::segment::SegmentDescription;
use crate::error::Result;
use crate::registry::Model;
use crate::request::OutputKind;

/// Number of segments listed in a name; the others are counted.
const MOST_LISTED: usize = 3;

/// Longest stem in bytes. An S3 key has 1024, of which a prefix may take 900, the request's folder 45,
/// and the part after the stem 40.
const LONGEST: usize = 39;

/// Longest label in a stem with several labels, in bytes.
const LONGEST_LABEL: usize = 22;

/// The names of the files of one result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Stem, input and volume.
    start: String,
}

impl Names {
    /// Creates the names for these segments of the model called `model`. `input` is the number of the
    /// input if the request has several, and `volume` that of the volume if the series has several: two
    /// of them may belong to one series.
    pub fn new<'l>(
        labels: impl Iterator<Item = &'l str>,
        model: &str,
        input: Option<usize>,
        volume: Option<usize>,
    ) -> Self {
        let mut start = stem(labels, model);
        for (what, number) in [("input", input), ("volume", volume)] {
            if let Some(number) = number {
                start.push_str(&format!("-{what}{number}"));
            }
        }
        Self { start }
    }

    /// Returns the file name of an output.
    pub fn file(&self, kind: OutputKind) -> String {
        format!("{}.{}", self.start, kind.extension())
    }

    /// Returns the name of file `part` (from 1) of an output that has `of` files.
    pub fn part(&self, kind: OutputKind, part: usize, of: usize) -> String {
        match of {
            1 => self.file(kind),
            _ => format!("{}-part{part}.{}", self.start, kind.extension()),
        }
    }
}

/// Returns a predicate for names that `model` gives to outputs of these kinds and segments, for any
/// volume. Empty lists mean the model's own.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`](crate::error::ErrorKind::InvalidRequest) for labels that the model
/// does not have.
pub fn of_model(
    model: &Model,
    segments: &[String],
    outputs: &[OutputKind],
) -> Result<impl Fn(&str) -> bool + use<>> {
    let segments = chosen::segments(&model.segments, segments)?;
    let stem = stem(labels(&segments), &model.name);
    let kinds = kinds::of(outputs, false, &model.outputs);
    Ok(move |name: &str| may_be(name, &stem, &kinds))
}

/// Whether a file of one of `kinds` can have the name `name`.
fn may_be(name: &str, stem: &str, kinds: &[OutputKind]) -> bool {
    let middle = |kind: &OutputKind| {
        let name = name.strip_suffix(kind.extension())?.strip_suffix('.')?;
        name.strip_prefix(stem)
    };
    let ours = |middle: &str| {
        middle.is_empty() || ["-volume", "-part"].iter().any(|next| middle.starts_with(next))
    };
    kinds.iter().filter_map(middle).any(ours)
}

/// Returns the labels of segments.
pub fn labels(segments: &[SegmentDescription]) -> impl Iterator<Item = &str> {
    segments.iter().map(|segment| segment.label.as_str())
}

/// Returns `liver`, `liver-spleen`, `liver-spleen-aorta-and-4-more`, or the model's name if no label
/// has a letter.
fn stem<'l>(labels: impl Iterator<Item = &'l str>, model: &str) -> String {
    let labels: Vec<&str> = labels.collect();
    let slugs = |longest: usize| {
        let slugs = labels.iter().map(move |label| slug(label, longest));
        slugs.filter(|slug| !slug.is_empty())
    };
    if let [_] = labels[..]
        && let Some(only) = slugs(LONGEST).next()
    {
        return only;
    }
    let listed: Vec<String> = slugs(LONGEST_LABEL).take(MOST_LISTED).collect();
    let with = |count: usize| {
        let names = listed[..count].join("-");
        match labels.len() - count {
            0 => names,
            more => format!("{names}-and-{more}-more"),
        }
    };
    let fitting = (1..=listed.len()).rev().map(with).find(|stem| stem.len() <= LONGEST);
    let of_model = || Some(slug(model, LONGEST)).filter(|slug| !slug.is_empty());
    fitting.or_else(of_model).unwrap_or_else(|| "segmentation".to_owned())
}

/// Converts `text` to lower-case ASCII letters and digits with single hyphens in between, truncated
/// after a word if possible.
fn slug(text: &str, longest: usize) -> String {
    let text = deunicode::deunicode_with_tofu(text, " ").to_ascii_lowercase();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words {
        let begun = !slug.is_empty();
        if begun && slug.len() + 1 + word.len() > longest {
            break;
        }
        if begun {
            slug.push('-');
        }
        slug.push_str(word);
    }
    // The slug is ASCII by now; its first word alone may be too long.
    slug.truncate(longest);
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(labels: &[&str]) -> String {
        let names = Names::new(labels.iter().copied(), "a model", None, None);
        names.file(OutputKind::DicomSeg)
    }

    #[test]
    fn names_say_what_is_in_the_file() {
        assert_eq!(name(&["Spleen"]), "spleen.seg.dcm");
        assert_eq!(name(&["Liver", "Spleen"]), "liver-spleen.seg.dcm");
        assert_eq!(name(&["Liver", "Spleen", "Aorta"]), "liver-spleen-aorta.seg.dcm");
        let seven = ["Liver", "Spleen", "Aorta", "a", "b", "c", "d"];
        assert_eq!(name(&seven), "liver-spleen-aorta-and-4-more.seg.dcm");
        assert_eq!(
            name(&["Phantom spleen", "Phantom liver", "x", "y"]),
            "phantom-spleen-phantom-liver-and-2-more.seg.dcm"
        );
        assert_eq!(
            name(&["Right kidney", "Left kidney", "Liver", "x"]),
            "right-kidney-left-kidney-and-2-more.seg.dcm"
        );
    }

    #[test]
    fn labels_in_any_script_become_plain_names() {
        assert_eq!(name(&["Fígado", "Прямая кишка"]), "figado-priamaia-kishka.seg.dcm");
        assert_eq!(name(&["../../etc/passwd\n\0"]), "etc-passwd.seg.dcm");
        assert_eq!(name(&["???", "\u{202e}"]), "a-model.seg.dcm");
        let nameless = Names::new(std::iter::once("?"), "/", None, None);
        assert_eq!(nameless.file(OutputKind::Stl), "segmentation.stl");
    }

    #[test]
    fn what_a_run_would_replace_is_told_from_other_files() {
        let kinds = [OutputKind::DicomSeg, OutputKind::Nifti];
        for name in ["liver.seg.dcm", "liver-volume2.labels.nii.gz", "liver-part1.seg.dcm"] {
            assert!(may_be(name, "liver", &kinds), "{name}");
        }
        for name in [
            "liver-spleen.seg.dcm",
            "liver.stl",
            "liver",
            "seg.dcm",
            "liver.seg.dcm.txt",
            "sliver.seg.dcm",
        ] {
            assert!(!may_be(name, "liver", &kinds), "{name}");
        }
    }

    #[test]
    fn names_are_bounded_whatever_the_labels_are() {
        let long = "extraordinarily".repeat(9);
        for labels in [vec![long.as_str()], vec![long.as_str(); 2], vec![long.as_str(); 255]] {
            let name = name(&labels);
            let stem = name.strip_suffix(".seg.dcm").unwrap();
            assert!(stem.len() <= LONGEST && stem.starts_with("extraordinarily"), "{name}");
        }
        assert_eq!(name(&[long.as_str(); 255]).len(), 22 + "-and-254-more.seg.dcm".len());
    }

    #[test]
    fn outputs_inputs_volumes_and_parts_have_names_of_their_own() {
        let mut all = std::collections::BTreeSet::new();
        let mut count = 0;
        for (input, volume) in [(None, None), (Some(1), None), (Some(2), None), (Some(2), Some(1))]
        {
            let names = Names::new(["Liver"].into_iter(), "m", input, volume);
            for kind in <OutputKind as clap::ValueEnum>::value_variants() {
                all.extend([names.file(*kind), names.part(*kind, 1, 2), names.part(*kind, 2, 2)]);
                count += 3;
            }
        }
        assert_eq!(all.len(), count, "{all:?}");
        assert!(all.contains("liver-input2-volume1-part2.labelmap.dcm"), "{all:?}");
        let names = Names::new(["Liver"].into_iter(), "m", None, None);
        assert_eq!(names.part(OutputKind::DicomSeg, 1, 1), "liver.seg.dcm");
    }
}
