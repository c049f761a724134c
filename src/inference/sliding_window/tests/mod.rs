//! Tests of the sliding window, from its starts to the blended result.

mod blending;
mod workers;

use ndarray::Array4;
use proptest::prelude::*;

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

proptest! {
    /// Whatever the order of the axes in memory, every voxel arrives in its place.
    #[test]
    fn copies_of_any_memory_order(
        shape in prop::array::uniform3(1usize..36),
        channels in 1usize..3,
        order in Just([1, 2, 3]).prop_shuffle(),
        flips in prop::array::uniform3(any::<bool>()),
        before in prop::array::uniform3(0usize..4),
        after in prop::array::uniform3(0usize..3),
    ) {
        let in_memory = [channels, shape[order[0] - 1], shape[order[1] - 1], shape[order[2] - 1]];
        let count = in_memory.iter().product::<usize>();
        let values = (0..count).map(|v| v as f32 + 1.0).collect();
        let mut image = Array4::from_shape_vec(in_memory, values).unwrap();
        for (axis, _) in flips.iter().enumerate().filter(|(_, flip)| **flip) {
            image.invert_axis(Axis(axis + 1));
        }
        let place = |axis: usize| 1 + order.iter().position(|&a| a == axis).unwrap();
        let image = image.permuted_axes([0, place(1), place(2), place(3)]);
        let dims: [usize; 3] = std::array::from_fn(|a| before[a] + image.shape()[a + 1] + after[a]);
        let mut target = Array4::zeros((channels, dims[0], dims[1], dims[2]));
        copy_into(target.view_mut(), before, image.view());
        for ((c, x, y, z), value) in target.indexed_iter() {
            let at = [x, y, z].iter().zip(before).map(|(i, b)| i.checked_sub(b)).collect::<Option<Vec<_>>>();
            let wanted = at.and_then(|at| image.get((c, at[0], at[1], at[2])).copied());
            prop_assert_eq!(*value, wanted.unwrap_or(0.0));
        }
        let copy = standard_layout(image.view()).unwrap();
        prop_assert!(copy.is_standard_layout() && copy == image);
    }
}
