//! TOML on a server: parse, validate, merge; calendars; rendered units.
//!
//! The truth is text that people can read, in `/etc/backstay` and in the synced generation. This
//! crate turns it into [`Settings`] or into every fault of it, each with file, line and key path.
//! It decides nothing by looking at the machine: time and observed state are handed in.

mod agent;
pub mod calendar;
mod destination;
mod draft;
mod guard;
mod load;
mod problem;
mod quantity;
mod reader;
mod schedule;
pub mod units;

pub use agent::{Agent, HostingLayout, LayoutKind};
pub use calendar::{Calendar, Zone};
pub use destination::{Credential, Destination, Place};
pub use draft::{KeepDraft, LimitsDraft, ScheduleDraft, destination_text, schedule_text};
pub use guard::{Guard, Permission};
pub use load::{Folders, Generation, Settings, parse_generation};
pub use problem::{Problem, Problems};
pub use quantity::{bytes, seconds};
pub use schedule::{Accounts, Compression, Keep, Limits, Origin, SPREAD_SECS_MAX, Schedule};
