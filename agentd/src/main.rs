//! The `backstay-agentd` program.

fn main() {}
