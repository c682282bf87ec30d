//! Hosting sources: accounts, site trees, databases.
