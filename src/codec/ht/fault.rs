//! What can go wrong with a frame.

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Fault(pub &'static str);

/// A coefficient does not fit into the arithmetic: of 16 bits, there is another of 32.
pub(super) const OVERFLOW: Fault = Fault("a coefficient is out of range");

/// There is no memory for a frame.
pub(in super::super) const NO_MEMORY: Fault =
    Fault("there is no memory for a frame's coefficients");

/// Makes room for `count` values in all, which a list may have.
pub(super) fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), Fault> {
    list.try_reserve(count.saturating_sub(list.len())).map_err(|_| NO_MEMORY)
}
