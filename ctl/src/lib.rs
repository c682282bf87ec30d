//! The backstayctl command.
