//! The `backstay-controller` program.

fn main() {}
