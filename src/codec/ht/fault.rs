//! Decoding errors of a frame.

/// A description of what is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Fault(pub &'static str);

/// A coefficient does not fit into the arithmetic. In 16 bits, the frame is then decoded again in
/// 32.
pub(super) const OVERFLOW: Fault = Fault("a coefficient is out of range");

/// There is not enough memory for a frame.
pub(in super::super) const NO_MEMORY: Fault =
    Fault("there is no memory for a frame's coefficients");

/// Reserves memory for `count` values in total, including those in the list.
pub(super) fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), Fault> {
    list.try_reserve(count.saturating_sub(list.len())).map_err(|_| NO_MEMORY)
}
