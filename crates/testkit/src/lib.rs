//! Doubles for tests: stores in memory that count requests or fail on purpose, scripted sources,
//! collecting targets, and the conformance suite that every object store has to pass.
//!
//! It is a development dependency only and knows nothing of the repository.

mod conformance;
mod source;
mod store;
mod target;
mod world;

pub use conformance::object_store_conformance;
pub use source::{FileSpec, TreeSource};
pub use store::{Fault, FaultyStore, MemoryStore, RecordingStore, Requests};
pub use target::{Collected, CollectingTarget};
pub use world::{CountingEntropy, FixedClock, RecordingMonitor};
