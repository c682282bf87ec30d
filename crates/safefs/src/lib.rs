//! The only crate with path system calls: walk, read, create, publish.
//!
//! Customers' trees are hostile. Everything here holds directories by descriptor, goes down one
//! component at a time, follows no link, resolves no `..`, and checks that what was opened is what
//! was seen. Which trees belong to whom is decided in `sources`; what happens to the bytes, in
//! `repository`. The rules are `docs/ARCHITECTURE.md`, "What always holds", 8.
//!
//! What else the standard library has no safe word for is here, too.

mod content;
mod directory;
mod exclude;
mod find;
mod heap;
mod merge;
mod restore;
mod status;
pub mod testing;
mod users;
mod walk;

pub use exclude::{Excludes, PatternError};
pub use find::{Found, FoundDirectory, Mount, find_directories};
pub use heap::give_large_blocks_back;
pub use merge::Merged;
pub use restore::{Links, Owners, Policy, Published, RestoreTarget};
pub use users::{UserRecord, Users};
pub use walk::{Root, Walker};
