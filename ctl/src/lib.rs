//! The `backstayctl` command: everything that the dashboard does, from a shell, and restores with
//! neither agent nor controller.
//!
//! `cli` says what can be typed, one module per verb does it, `problem` is how it fails,
//! `screen` how it answers. Exit codes are those of `docs/exit-codes.md`.

pub mod apply;
pub mod browse;
mod cli;
pub mod configuration;
pub mod control;
pub mod credential;
pub mod credentials;
pub mod follow;
pub mod history;
pub mod init;
pub mod join;
pub mod key;
pub mod pages;
pub mod problem;
pub mod prompt;
pub mod reach;
pub mod repo;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod screen;
pub mod secrets;
pub mod server;
pub mod status;
pub mod time;
pub mod watch;

pub use cli::main;
