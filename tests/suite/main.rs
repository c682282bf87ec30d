//! The promises of the product, one file for each. What needs the lab is in a module whose name begins with `lab_`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, and in what only tests call, a panic is how a promise is found broken"
)]

mod lab_garage;
mod lab_self;
mod lab_site;
mod layering;
mod tidy;
