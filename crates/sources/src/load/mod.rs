//! Loading a dump back into its database.
//!
//! The whole dump is received and checked before anything is changed; what the database held is
//! dumped to the undo directory first and put back when the load fails. The SQL of the dump runs
//! as an account that is made for it and can reach this one database only.

mod client;
mod server;

pub use client::{LoadConnection, LoadService, Loaded};
pub use server::{LoadServer, serve_load};
