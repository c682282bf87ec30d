//! Hosting sources: accounts, site trees, databases.
//!
//! [`Discovery`] says at each run which accounts a server has and what is theirs; [`RunSource`]
//! gives all of it as entries of a snapshot (`docs/ARCHITECTURE.md`, "What is in a snapshot").
//! Databases are dumped and loaded by separate units, [`serve_dump`] and [`serve_load`], over
//! sockets; the job that reads the trees has no right on any database, and the other way round.

mod accounts;
mod layout;
mod load;
mod mariadb;
mod name;
mod run;
mod target;
mod wire;

pub use accounts::{Account, Discovery, SiteRoot};
pub use layout::LayoutError;
pub use load::{LoadConnection, LoadServer, LoadService, Loaded, serve_load};
pub use mariadb::{Database, DumpService, MariaDb, ServeError, dump_account_sql, serve_dump};
pub use name::{database_of_path, decode_name, encode_name};
pub use run::{RunSource, Selection};
pub use target::ServerTarget;
