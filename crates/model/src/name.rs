//! Names that people choose, and bytes shown to people.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Says why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{kind} name {given:?} is not allowed: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"
)]
pub struct NameError {
    kind: &'static str,
    given: String,
}

/// True for `[a-z0-9][a-z0-9._-]{0,62}`: safe in a unit name, a file name and a URL path.
fn is_plain_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(&b) if plain(b))
        && bytes.len() <= 63
        && bytes
            .iter()
            .all(|&b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            ///
            /// `NameError` when the text is not a plain name; ask for another one.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if is_plain_name(&text) {
                    Ok(Self(text))
                } else {
                    Err(NameError { kind: $kind, given: text })
                }
            }

            /// Gives the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a schedule, unique on its server; also the instance of its systemd units.
    ScheduleName,
    "schedule"
);
name_type!(
    /// The name of a destination, unique on its server.
    DestinationName,
    "destination"
);
name_type!(
    /// The name of a server in the fleet.
    ServerName,
    "server"
);

/// Shows bytes of foreign origin (file names, database names) on one line without losing any.
///
/// Printable text stays as it is. Control, direction-changing and invalid bytes, and the
/// backslash itself, become `\n`, `\t`, `\r`, `\\` or `\xHH` per byte, so the result can be
/// printed to a terminal or a log and still identifies the name exactly.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape_char(c, &mut out);
        }
        for b in chunk.invalid() {
            escape_byte(*b, &mut out);
        }
    }
    out
}

fn escape_char(c: char, out: &mut String) {
    let turns_text = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\\' => out.push_str("\\\\"),
        c if c.is_control() || turns_text => {
            let mut buffer = [0; 4];
            for b in c.encode_utf8(&mut buffer).bytes() {
                escape_byte(b, out);
            }
        }
        c => out.push(c),
    }
}

fn escape_byte(b: u8, out: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    out.push_str("\\x");
    for nibble in [b >> 4, b & 15] {
        out.extend(DIGITS.get(usize::from(nibble)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_units_and_paths() {
        for good in ["nightly", "0", "a.b_c-d", &"x".repeat(63)] {
            assert!(ScheduleName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "A",
            "a/b",
            "a b",
            "é",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(ScheduleName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reading_json_checks_names_too() {
        assert!(serde_json::from_str::<DestinationName>("\"../etc\"").is_err());
    }

    #[test]
    fn escaped_names_are_one_printable_line() {
        assert_eq!(escape(b"plain \xc3\xa4.txt"), "plain \u{e4}.txt");
        assert_eq!(escape(b"a\nb\\\x1b[31m\xff"), "a\\nb\\\\\\x1b[31m\\xff");
        assert_eq!(escape("x\u{202e}y".as_bytes()), "x\\xe2\\x80\\xaey");
    }
}
