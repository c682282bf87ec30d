//! The agent: one program, one subcommand for each systemd unit (`docs/ARCHITECTURE.md`).

pub mod apply;
mod cli;
pub mod daemon;
pub mod job;

pub use cli::main;
