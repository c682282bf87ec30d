//! Time zones by name, as in the system's tz database.

use std::fmt;

use jiff::tz::TimeZone;

/// A time zone with its name, for example `Europe/Berlin` or `UTC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// Gives coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self {
            name: "UTC".to_owned(),
            rules: TimeZone::UTC,
        }
    }

    /// Finds a zone by name, in the spelling of the tz database whatever case is given.
    ///
    /// # Errors
    ///
    /// One sentence for the person who wrote the name.
    pub fn find(name: &str) -> Result<Self, String> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        // Names like "EST5EDT" mean different rules to different programs; "Area/City" does not.
        if !Self::looks_like(name) {
            return Err(unknown(name));
        }
        let rules = TimeZone::get(name).map_err(|_| unknown(name))?;
        let name = rules.iana_name().unwrap_or(name).to_owned();
        Ok(Self { name, rules })
    }

    /// True when the text has the form of a zone name, known or not.
    pub(crate) fn looks_like(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        text.eq_ignore_ascii_case("utc")
            || (text.contains('/')
                && text.len() <= 64
                && text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(plain))
    }

    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

fn unknown(name: &str) -> String {
    format!("time zone {name:?} is not known; write for example \"UTC\" or \"Europe/Berlin\"")
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_spelt_as_in_the_database() {
        assert_eq!(Zone::find("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(Zone::find("utc").unwrap(), Zone::utc());
        for bad in ["", "CET", "Europe/Nowhere", "../etc/passwd", "a/../../etc"] {
            assert!(Zone::find(bad).is_err(), "{bad}");
        }
    }
}
