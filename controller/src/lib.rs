//! The controller: API, state and dashboard.
