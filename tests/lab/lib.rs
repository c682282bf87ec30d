//! The lab: real systemd hosts in containers, with a network of their own.
//!
//! A [`Lab`] holds [`Host`]s on one switch. Links are cut and healed, hosts rebooted, killed and robbed of their power;
//! what they wrote is kept. Everything is removed when the lab is dropped, and by a guard when its process dies.
//! Backstay itself is driven from outside only: its packages are installed, its commands typed, its API called.

mod builder;
pub mod command;
pub mod controller;
mod fault;
mod forward;
mod garage;
mod host;
mod image;
mod lab;
pub mod machine;
mod network;
mod packages;
pub mod process;
pub mod record;
mod server;
mod site;

pub use builder::HostBuilder;
pub use command::wait_until;
pub use controller::Controller;
pub use fault::{Doing, Fault, Result};
pub use garage::Garage;
pub use host::{Host, enter_words};
pub use image::{Distro, Image};
pub use lab::Lab;
pub use network::Rate;
pub use packages::Package;
pub use server::Server;
pub use site::{Site, SiteState, differing_lines, fingerprint, make_odd_tree};
