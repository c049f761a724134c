//! Fallibly allocated result arrays.

use ndarray::{Array3, Array4, ArrayView3, Axis};

use crate::error::Result;
use crate::memory::{self, Zeroed};

/// Allocates empty masks; X varies fastest and the channel slowest.
pub(super) fn masks_of(channels: usize, [x, y, z]: [usize; 3]) -> Result<Array4<u8>> {
    Ok(zeros([channels, z, y, x])?.permuted_axes([0, 3, 2, 1]))
}

/// Allocates zeros in standard layout.
pub(super) fn zeros<T: Zeroed>(shape: [usize; 4]) -> Result<Array4<T>> {
    memory::zeros(shape, "the result on the network's grid or the source's")
}

/// Converts labels to f32 values for resampling.
pub(super) fn widened<T: Copy + Into<f32> + Sync>(labels: ArrayView3<T>) -> Result<Array3<f32>> {
    let (x, y, z) = labels.dim();
    let mut values = zeros([1, x, y, z])?.index_axis_move(Axis(0), 0);
    ndarray::Zip::from(&mut values).and(&labels).par_for_each(|v, &label| *v = label.into());
    Ok(values)
}

/// Allocates zeros of the size of another image, with the same memory order of axes.
pub(super) fn like<T: Zeroed, U>(image: &ArrayView3<U>) -> Result<Array3<T>> {
    let mut order = [0, 1, 2];
    order.sort_by_key(|&a| std::cmp::Reverse(image.strides()[a].unsigned_abs()));
    let [a, b, c] = order.map(|axis| image.shape()[axis]);
    let mut back = [0; 3];
    for (position, &axis) in order.iter().enumerate() {
        back[axis] = position;
    }
    Ok(zeros([1, a, b, c])?.index_axis_move(Axis(0), 0).permuted_axes(back))
}
