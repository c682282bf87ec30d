//! The verbs: back up, restore, check, list.
