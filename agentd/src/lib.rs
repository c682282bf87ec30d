//! The agent: daemon and jobs.
