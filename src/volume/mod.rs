//! Slices to a volume: order, spacing, the affine into patient space, rescale.
