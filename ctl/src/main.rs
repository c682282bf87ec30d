//! The `backstayctl` program.

fn main() {}
