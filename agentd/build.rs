//! Packs the relocations of the program: the loader reads each of them at start, and what it reads stays in memory.
//!
//! glibc understands it since 2.36, which is that of Debian 12.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
