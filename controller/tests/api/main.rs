//! The API over real TLS: people and browsers, agents.

#[cfg(test)]
mod agents;
#[cfg(test)]
mod people;
#[cfg(test)]
mod support;
