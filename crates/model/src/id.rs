//! Ids: fixed-size values with one text form each.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Says why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {given:?} is not {digits} lower-case hexadecimal digits")]
pub struct IdError {
    kind: &'static str,
    digits: usize,
    given: String,
}

fn parse_hex<const N: usize>(kind: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError {
        kind,
        digits: 2 * N,
        given: text.to_owned(),
    };
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return Err(wrong());
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else {
            return Err(wrong());
        };
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return Err(wrong());
        };
        *byte = high << 4 | low;
    }
    Ok(out)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $size:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $size]);

        impl $name {
            /// Takes the raw bytes of an id.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// Gives the raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex($kind, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// One execution of a schedule. In a systemd job it is the invocation id, which joins
    /// ledger and journal; 32 hexadecimal digits.
    RunId,
    16,
    "run id"
);
hex_id!(
    /// A snapshot: the first 16 bytes of the BLAKE3 hash of its stored object.
    SnapshotId,
    16,
    "snapshot id"
);
hex_id!(
    /// One writer at work on a domain, chosen at random; of all copies of a run the same.
    SessionId,
    16,
    "session id"
);
hex_id!(
    /// One key set and deduplication space inside a repository; derived from the schedule key that
    /// began it.
    DomainId,
    16,
    "domain id"
);
hex_id!(
    /// An agent: the BLAKE3 hash of its public signing key (see `docs/protocol.md`).
    AgentId,
    16,
    "agent id"
);
hex_id!(
    /// One order from the controller or from `backstayctl` to an agent, chosen at random.
    CommandId,
    16,
    "command id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_show() {
        let id = RunId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "3031",
            "3031323334353637383961626364656G",
            &"0".repeat(33),
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }
}
