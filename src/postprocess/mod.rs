//! Activations, inverse resampling, discretisation, components.
