//! Automation around the code.

fn main() {}
