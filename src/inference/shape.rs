//! The shape of a network's input and output.

/// The fixed parts of a network's input and output; `None` for a dimension that can vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkShape {
    /// Windows in a batch.
    pub batch: Option<usize>,
    /// Channels of the input.
    pub input_channels: Option<usize>,
    /// Size of a window along X, Y, Z.
    pub spatial: [Option<usize>; 3],
    /// Channels of the result.
    pub output_channels: Option<usize>,
    /// Whether the network takes slices (4D tensors). They are passed as windows whose last axis is 1,
    /// and so are the results.
    pub planar: bool,
}
