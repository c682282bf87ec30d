//! The traits through which work meets the world: object store, scratch, source, target, monitor,
//! clock, entropy.
//!
//! Drivers in `destinations` and `sources` implement them, the engine in `repository` uses them,
//! `ops` brings both together, `testkit` has doubles. No driver and no runtime lives here.

mod entry;
mod monitor;
mod path;
mod scratch;
mod source;
mod store;
mod target;
mod time;

pub use entry::{Entry, EntryKind, FileTime, Owner, XAttr};
pub use monitor::{Event, Monitor, Phase, Silent};
pub use path::{PathError, TreePath, compare_by_component};
pub use scratch::{Scratch, ScratchFile};
pub use source::{Content, ContentEnd, Extent, Opener, Source, SourceError, SourceItem};
pub use store::{
    ByteRange, ObjectInfo, ObjectName, ObjectNameError, ObjectStore, StoreError, StoreFault,
};
pub use target::{FileSink, LeftOver, Target, TargetError};
pub use time::{Clock, Entropy};
