//! Key hierarchy, chunk names, authenticated encryption.
