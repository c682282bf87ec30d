//! The lab: real systemd hosts in containers, with a network of their own.
//!
//! A [`Lab`] holds [`Host`]s on one switch. Links are cut and healed, hosts rebooted, killed and robbed of their power;
//! what they wrote is kept. Everything is removed when the lab is dropped, and by a guard when its process dies.
//! This library knows nothing about Backstay but how its packages are installed.

mod builder;
pub mod command;
mod fault;
mod garage;
mod host;
mod image;
mod lab;
pub mod machine;
mod network;
mod packages;
pub mod process;
pub mod record;
mod site;

pub use builder::HostBuilder;
pub use command::wait_until;
pub use fault::{Doing, Fault, Result};
pub use garage::Garage;
pub use host::{Host, enter_words};
pub use image::{Distro, Image};
pub use lab::Lab;
pub use network::Rate;
pub use packages::Package;
pub use site::{Site, fingerprint, make_odd_tree};
