//! The agent: one program, one subcommand for each systemd unit (`docs/ARCHITECTURE.md`).

pub mod apply;
mod cli;
pub mod configuration;
pub mod daemon;
pub mod job;
mod log;
mod pin;

pub use cli::main;
