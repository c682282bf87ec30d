//! TOML on a server: parse, validate, merge, plan.
