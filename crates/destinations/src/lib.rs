//! Drivers for the places where repositories live. They only ever see sealed bytes.
//!
//! Each driver implements [`edge::ObjectStore`] and passes the conformance suite in `testkit`.
//! Which driver serves a destination is decided in `ops`.

mod local;
mod retry;
mod s3;
mod scratch;

pub use local::{FileCall, Gate, LocalStore};
pub use s3::{S3Options, S3Store};
pub use scratch::LocalScratch;
