//! The durable memory of the agent in SQLite.
