//! Drivers for the places where repositories live.
