//! Tests of the sliding window, from its starts to the blended result.

mod blending;
mod workers;

use super::*;

#[test]
fn windows_start_as_in_monai() {
    assert_eq!(window_starts(40, 16, 0.25), [0, 12, 24]);
    assert_eq!(window_starts(33, 16, 0.5), [0, 8, 16, 17]);
    assert_eq!(window_starts(21, 16, 0.625), [0, 5]);
    assert_eq!(window_starts(16, 16, 0.5), [0]);
    assert_eq!(window_starts(5, 16, 0.5), [0]);
}

#[test]
fn padding_indices() {
    let at = |p: WindowPadding| -> Vec<_> { (-2..5).map(|i| p.source(i, 3)).collect() };
    assert_eq!(at(WindowPadding::Reflect), [2, 1, 0, 1, 2, 1, 0].map(Some));
    assert_eq!(at(WindowPadding::Replicate), [0, 0, 0, 1, 2, 2, 2].map(Some));
    assert_eq!(at(WindowPadding::Circular), [1, 2, 0, 1, 2, 0, 1].map(Some));
}
