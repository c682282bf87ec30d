//! The promises of the product, one file for each, kept by the installed packages on hosts of the lab.
//! `layering` and `tidy` look at the tree alone; `lab_*` are the promises of the lab itself; `fleet` is what others share.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, and in what only tests call, a panic is how a promise is found broken"
)]

mod apply_cuts;
mod bad_input;
mod bad_orders;
mod bad_sources;
mod concurrent;
mod cut_restore;
mod dashboard;
mod drift;
mod exactly_once;
mod fleet;
mod incremental;
mod lab_garage;
mod lab_self;
mod lab_site;
mod layering;
mod missed;
mod offline;
mod packages;
mod reboot;
mod restore;
mod tidy;
mod timer_traps;
mod timers;
