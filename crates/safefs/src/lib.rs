//! The only crate with path system calls: descriptor-held, component by component.
