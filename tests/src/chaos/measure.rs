//! Two measurements.
