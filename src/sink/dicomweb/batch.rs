//! Divides instances into requests.

use super::outcome::Instance;

/// Maximum size of a request in bytes, unless a single instance is larger: HealthImaging accepts 1
/// GB of DICOM data, including boundaries and headers.
pub(super) const LARGEST: usize = 1_000_000_000 - (1 << 20);

/// Maximum number of instances per request.
const MOST: usize = 500;

/// Groups instances that may be sent together: of one study, within the limits, in order.
pub(super) fn batches<I: Copy>(instances: Vec<(I, &Instance)>) -> Vec<Vec<(I, &Instance)>> {
    divide(instances, LARGEST, MOST)
}

fn divide<I: Copy>(
    instances: Vec<(I, &Instance)>,
    largest: usize,
    most: usize,
) -> Vec<Vec<(I, &Instance)>> {
    let mut batches: Vec<Vec<(I, &Instance)>> = Vec::new();
    let mut bytes = 0_usize;
    for (index, instance) in instances {
        let size = instance.bytes.len();
        let fits = batches.last().and_then(|batch| batch.first().map(|first| (batch, first)));
        let fits = fits.is_some_and(|(batch, (_, first))| {
            first.study_instance_uid == instance.study_instance_uid
                && batch.len() < most
                && bytes.saturating_add(size) <= largest
        });
        match batches.last_mut() {
            Some(batch) if fits => {
                bytes = bytes.saturating_add(size);
                batch.push((index, instance));
            }
            _ => {
                bytes = size;
                batches.push(vec![(index, instance)]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(study: &str, size: usize) -> Instance {
        Instance {
            kind: "dicom-seg",
            study_instance_uid: study.to_owned(),
            series_instance_uid: "1.2".to_owned(),
            sop_instance_uid: "1.3".to_owned(),
            bytes: vec![0; size].into(),
        }
    }

    #[test]
    fn requests_are_of_one_study_and_bounded() {
        let all = [
            instance("1", 40),
            instance("1", 60),
            instance("1", 1),
            instance("2", 1),
            instance("2", 200),
            instance("2", 1),
            instance("2", 1),
            instance("2", 1),
        ];
        let numbered = all.iter().enumerate().collect();
        let groups: Vec<Vec<usize>> = divide(numbered, 100, 2)
            .into_iter()
            .map(|batch| batch.into_iter().map(|(index, _)| index).collect())
            .collect();
        assert_eq!(groups, [vec![0, 1], vec![2], vec![3], vec![4], vec![5, 6], vec![7]]);
        assert!(batches::<usize>(Vec::new()).is_empty());
    }
}
