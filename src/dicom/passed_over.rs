//! Counts the files and objects next to images that were skipped, for warnings and errors. Keeps no
//! file names and no patient data.

use std::collections::BTreeMap;

use super::{classes, uid};

/// Skipped files or objects that are not images, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedOver {
    no_dicom: usize,
    /// Counts by kind of object.
    without_image: BTreeMap<String, usize>,
    copies: usize,
}

impl PassedOver {
    /// Counts a file that is not DICOM.
    pub fn add_no_dicom(&mut self) {
        self.no_dicom += 1;
    }

    /// Counts an object without an image, by its SOP class.
    pub fn add_without_image(&mut self, class: Option<&str>) {
        let what = match class.map(|class| (class, classes::without_image(class))) {
            None => "no SOP class".to_owned(),
            Some((_, Some(what))) => what.to_owned(),
            // The class comes from outside; a text that is not a UID is not repeated.
            Some((class, None)) if uid::is_written(class) => format!("SOP class {class}"),
            Some(_) => "no known SOP class".to_owned(),
        };
        *self.without_image.entry(what).or_default() += 1;
    }

    /// Counts a copy of another file or object.
    pub fn add_copy(&mut self) {
        self.copies += 1;
    }

    /// Adds the counts of `others`.
    pub fn append(&mut self, others: Self) {
        self.no_dicom += others.no_dicom;
        self.copies += others.copies;
        for (what, count) in others.without_image {
            *self.without_image.entry(what).or_default() += count;
        }
    }

    /// Whether nothing was skipped.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns up to three sentences: for objects without an image, for files that are not DICOM,
    /// and for copies.
    pub fn warnings(&self) -> Vec<String> {
        let parts = [self.images_wanting(), self.dicom_wanting(), self.repeated()];
        parts.into_iter().flatten().map(|part| format!("{part} passed over")).collect()
    }

    /// Describes what was found, for an error: `2 DICOM objects without an image (…) and 3 files
    /// that …`.
    pub fn found(&self) -> String {
        let parts: Vec<String> =
            [self.images_wanting(), self.dicom_wanting()].into_iter().flatten().collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(" and ") }
    }

    fn images_wanting(&self) -> Option<String> {
        let count: usize = self.without_image.values().sum();
        let list: Vec<String> =
            self.without_image.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        (count > 0)
            .then(|| format!("{count} DICOM object(s) without an image ({})", list.join(", ")))
    }

    fn repeated(&self) -> Option<String> {
        (self.copies > 0)
            .then(|| format!("{} file(s) with the same instance as another", self.copies))
    }

    fn dicom_wanting(&self) -> Option<String> {
        (self.no_dicom > 0).then(|| format!("{} file(s) that are not DICOM", self.no_dicom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_over_is_counted_by_what_it_is() {
        let mut all = PassedOver::default();
        assert!(all.is_empty() && all.warnings().is_empty());
        assert_eq!(all.found(), "nothing");
        all.add_without_image(Some(classes::DIRECTORY));
        let mut others = PassedOver::default();
        others.add_without_image(Some("1.2.840.10008.5.1.4.1.1.88.67"));
        others.add_without_image(Some("1.2.840.10008.5.1.4.1.1.88.11"));
        others.add_without_image(Some("Doe^Jane"));
        others.add_no_dicom();
        all.append(others);
        assert_eq!(
            all.warnings(),
            [
                "4 DICOM object(s) without an image (directory: 1, no known SOP class: 1, \
                 structured report: 2) passed over",
                "1 file(s) that are not DICOM passed over",
            ]
        );
        assert!(all.found().contains(" and 1 file(s)"), "{}", all.found());
    }
}
