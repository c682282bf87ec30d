//! Database names as file names and on the wire.

use edge::TreePath;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Writes a name with bytes outside `[A-Za-z0-9_-]` as `%XX`; nothing is lost.
#[must_use]
pub fn encode_name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            for nibble in [byte >> 4, byte & 15] {
                text.extend(DIGITS.get(usize::from(nibble)).map(|d| char::from(*d)));
            }
        }
    }
    text
}

/// Reads what [`encode_name`] wrote; `None` for anything else.
#[must_use]
pub fn decode_name(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?,
            byte => byte,
        });
    }
    (encode_name(&name) == text).then_some(name)
}

fn nibble(digit: u8) -> Option<u8> {
    let position = DIGITS.iter().position(|known| *known == digit)?;
    u8::try_from(position).ok()
}

/// Gives the database whose dump a snapshot keeps at this path: `ACCOUNT/databases/mariadb/NAME.sql`.
#[must_use]
pub fn database_of_path(path: &TreePath) -> Option<Vec<u8>> {
    let [_, b"databases", b"mariadb", file] = path.parts()[..] else {
        return None;
    };
    let name = std::str::from_utf8(file).ok()?.strip_suffix(".sql")?;
    decode_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_encoding() {
        for name in [
            &b"shop"[..],
            b"--help",
            b"a`b",
            b"a b/%.sql",
            "\u{e4}".as_bytes(),
            b"\xff",
        ] {
            assert_eq!(decode_name(&encode_name(name)).unwrap(), name);
        }
        assert_eq!(encode_name(b"a b.c"), "a%20b%2Ec");
    }

    #[test]
    fn only_what_encoding_writes_is_read() {
        for text in ["%", "%2", "%zz", "%2e", "%41", "a b", "../x"] {
            assert_eq!(decode_name(text), None, "{text}");
        }
    }

    #[test]
    fn dumps_are_found_by_their_path() {
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let found = database_of_path(&path("a.1000/databases/mariadb/a%60b.sql"));
        assert_eq!(found.unwrap(), b"a`b");
        for other in [
            "a.1000/files/x.sql",
            "a.1000/databases/mariadb/x/y.sql",
            "a/databases/mariadb/x",
        ] {
            assert_eq!(database_of_path(&path(other)), None);
        }
    }
}
