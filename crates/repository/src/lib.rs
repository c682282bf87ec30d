//! The repository engine.
