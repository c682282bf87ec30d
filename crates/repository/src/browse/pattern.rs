//! What names are searched for: a part of a name, or a glob.

use std::borrow::Cow;

/// A pattern for names. Without `*` and `?` it is a part of the name; with them it is the whole
/// name, `*` standing for any characters and `?` for one. With `/` it is matched against whole paths,
/// which begin with `/`. Upper and lower case are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    is_glob: bool,
    is_path: bool,
}

impl Pattern {
    /// Takes a pattern as it was typed.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let is_path = text.contains(&b'/');
        let is_glob = text.iter().any(|byte| matches!(byte, b'*' | b'?'));
        let mut text = folded(text).into_owned();
        if is_path && is_glob && !matches!(text.first(), Some(b'/' | b'*')) {
            text.insert(0, b'/');
        }
        Self {
            text,
            is_glob,
            is_path,
        }
    }

    /// True when the entry of a key is meant.
    #[must_use]
    pub fn matches_key(&self, key: &[u8]) -> bool {
        if !self.is_path {
            let name = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
            return self.matches(name);
        }
        let mut path = Vec::with_capacity(key.len() + 1);
        for part in key.split(|byte| *byte == 0).filter(|part| !part.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        self.matches(&path)
    }

    fn matches(&self, name: &[u8]) -> bool {
        let name = folded(name);
        if self.is_glob {
            glob(&self.text, &name)
        } else {
            let mut windows = name.windows(self.text.len().max(1));
            self.text.is_empty() || windows.any(|part| part == self.text)
        }
    }
}

/// Takes case away: of all letters where the bytes are text, of A to Z where they are not.
fn folded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        if bytes.iter().any(u8::is_ascii_uppercase) {
            return Cow::Owned(bytes.to_ascii_lowercase());
        }
        return Cow::Borrowed(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text.to_lowercase().into_bytes()),
        Err(_) => Cow::Owned(bytes.to_ascii_lowercase()),
    }
}

/// Matches a whole name. Going back to the last `*` only, it takes at most the product of both
/// lengths.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Behind the last star, and where in the name it may end next.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                pattern = rest;
                again = Some((rest, name));
                continue;
            }
            (Some((b'?', rest)), Some(_)) => {
                pattern = rest;
                name = name.get(character_bytes(name)..).unwrap_or_default();
                continue;
            }
            (Some((wanted, rest)), Some((byte, behind))) if wanted == byte => {
                pattern = rest;
                name = behind;
                continue;
            }
            _ => {}
        }
        let Some((rest, [_, behind @ ..])) = again else {
            return false;
        };
        pattern = rest;
        name = behind;
        again = Some((rest, behind));
    }
}

/// Gives how many bytes the first character has: one where it is none.
fn character_bytes(name: &[u8]) -> usize {
    let text = name.utf8_chunks().next().map(|chunk| chunk.valid());
    let first = text.and_then(|text| text.chars().next());
    first.map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use edge::TreePath;
    use proptest::prelude::*;

    use super::*;

    fn hits(pattern: &str, path: &str) -> bool {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        Pattern::new(pattern.as_bytes()).matches_key(path.key())
    }

    #[test]
    fn names_are_found_by_a_part_or_by_a_glob_whatever_their_case() {
        for (pattern, path) in [
            ("config", "a/wp-config.php"),
            ("CONFIG", "a/wp-config.php"),
            ("config", "WP-Config.PHP"),
            ("*.php", "a/b/index.php"),
            ("*.PHP", "index.php"),
            ("i?dex.*", "a/index.php"),
            ("*", "x"),
            ("", "x"),
            ("ÜBER*", "über uns.html"),
            ("?ber*", "Über uns.html"),
            ("a/b", "x/a/bc"),
            ("/a/", "a/b"),
            ("*/a/*.php", "x/a/b/c.php"),
            ("a/*.php", "a/b.php"),
            ("/a/*.php", "a/b.php"),
        ] {
            assert!(hits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("config", "config/index.php"),
            ("*.php", "a.php/b"),
            ("index", "indx"),
            ("?", "ab"),
            ("a/*.php", "x/a/b.php"),
            ("*.ph", "a.php"),
        ] {
            assert!(!hits(pattern, path), "{pattern} {path}");
        }
    }

    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| naive(rest, &name[at..])),
            Some((b'?', rest)) => !name.is_empty() && naive(rest, &name[1..]),
            Some((byte, rest)) => name.first() == Some(byte) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_the_naive_matcher_does(
            pattern in "[ab*?]{0,8}",
            name in "[ab]{0,10}",
        ) {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(glob(pattern, name), naive(pattern, name));
        }

        #[test]
        fn foreign_bytes_never_panic(
            pattern in proptest::collection::vec(any::<u8>(), 0..12),
            key in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            std::hint::black_box(Pattern::new(&pattern).matches_key(&key));
        }
    }
}
