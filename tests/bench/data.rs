//! Bytes that look like what hosting servers hold, the same for the same seed on every machine: noise, prose, mails,
//! dumps of databases.

use std::fmt::Write as _;
use std::io::{self, Write};

/// Words that prose is made of, the frequent ones first.
const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "with",
    "as",
    "be",
    "at",
    "by",
    "this",
    "have",
    "from",
    "or",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "an",
    "your",
    "which",
    "their",
    "said",
    "if",
    "do",
    "will",
    "each",
    "about",
    "how",
    "up",
    "out",
    "them",
    "then",
    "she",
    "many",
    "some",
    "so",
    "these",
    "would",
    "other",
    "into",
    "has",
    "more",
    "her",
    "two",
    "like",
    "him",
    "see",
    "time",
    "could",
    "no",
    "make",
    "than",
    "first",
    "been",
    "its",
    "who",
    "now",
    "people",
    "my",
    "made",
    "over",
    "did",
    "down",
    "only",
    "way",
    "find",
    "use",
    "may",
    "water",
    "long",
    "little",
    "very",
    "after",
    "words",
    "called",
    "just",
    "where",
    "most",
    "know",
    "invoice",
    "order",
    "delivery",
    "customer",
    "account",
    "meeting",
    "schedule",
    "attached",
    "regards",
    "question",
    "website",
    "update",
    "plugin",
    "theme",
    "gallery",
    "shipping",
    "payment",
    "discount",
    "newsletter",
    "appointment",
    "contract",
    "harbour",
    "workshop",
    "kitchen",
    "garden",
    "bicycle",
];

const DOMAINS: &[&str] = &[
    "example.com",
    "example.net",
    "example.org",
    "mail.example",
    "shop.example",
];

/// An endless stream of bytes decided by a seed.
pub(crate) struct Noise {
    stream: blake3::OutputReader,
}

impl Noise {
    pub(crate) fn new(seed: &str) -> Self {
        Self {
            stream: blake3::Hasher::new().update(seed.as_bytes()).finalize_xof(),
        }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.fill(&mut bytes);
        bytes
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let number = usize::try_from(self.below(list.len() as u64)).unwrap_or(0);
        list.get(number).copied().unwrap_or("")
    }

    /// A word; frequent ones come often.
    fn word(&mut self) -> &'static str {
        let first = self.below(WORDS.len() as u64);
        let limit = first.max(8);
        let number = usize::try_from(self.below(limit)).unwrap_or(0);
        WORDS.get(number).copied().unwrap_or("the")
    }

    pub(crate) fn prose(&mut self, words: u64) -> String {
        let mut text = String::new();
        for number in 0..words {
            text.push_str(self.word());
            text.push(match (number % 12, self.below(9)) {
                (11, _) => '\n',
                (_, 0) => ',',
                _ => ' ',
            });
        }
        text
    }

    fn address(&mut self) -> String {
        let (name, number) = (self.word(), self.below(900));
        format!("{name}{number}@{}", self.one_of(DOMAINS))
    }
}

/// A mail as it lies in a Maildir: one in six has an attachment in base64, the others are short texts.
pub(crate) fn mail(noise: &mut Noise, number: u64) -> String {
    let (from, to) = (noise.address(), noise.address());
    let (day, hour, minute) = (noise.below(28) + 1, noise.below(24), noise.below(60));
    let (id, subject) = (noise.next(), noise.prose(5));
    let host = noise.one_of(DOMAINS);
    let mut text = format!(
        "Return-Path: <{from}>\nDelivered-To: {to}\nReceived: from {host} (unknown [192.0.2.{}])\n\
         \tby mx1.example.net (Postfix) with ESMTPS id {id:016X}\n\tfor <{to}>; {day} Jan 2026 {hour:02}:{minute:02}:17 +0000\n\
         DKIM-Signature: v=1; a=rsa-sha256; d={host}; s=mail; bh={}\nFrom: {from}\nTo: {to}\n\
         Subject: {}\nMessage-ID: <{id:x}.{number}@{host}>\nMIME-Version: 1.0\n",
        noise.below(250),
        base64(&noise.bytes(32)),
        subject.replace('\n', " "),
    );
    let words = 60 + noise.below(500);
    let body = noise.prose(words);
    if noise.below(6) == 0 {
        let length = usize::try_from(4_000 + noise.below(30_000)).unwrap_or(4_000);
        let attachment = base64(&noise.bytes(length));
        text.push_str("Content-Type: multipart/mixed; boundary=\"=_bound\"\n\n--=_bound\nContent-Type: text/plain\n\n");
        text.push_str(&body);
        text.push_str("\n--=_bound\nContent-Type: application/pdf; name=\"file.pdf\"\nContent-Transfer-Encoding: base64\n\n");
        for line in attachment.as_bytes().chunks(76) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("--=_bound--\n");
    } else {
        text.push_str("Content-Type: text/plain; charset=utf-8\n\n");
        text.push_str(&body);
    }
    text
}

/// Writes a dump as `mariadb-dump` does, of about `size` bytes: long lines of many rows each.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn dump(noise: &mut Noise, size: u64, out: &mut dyn Write) -> io::Result<()> {
    const ROWS_PER_LINE: u64 = 200;
    out.write_all(
        b"-- MariaDB dump 10.19\nSET NAMES utf8mb4;\nDROP TABLE IF EXISTS `wp_posts`;\nCREATE TABLE `wp_posts` (\n  \
          `ID` bigint(20) unsigned NOT NULL AUTO_INCREMENT,\n  `post_author` bigint(20) NOT NULL,\n  `post_date` datetime,\n  \
          `post_content` longtext,\n  `guid` varchar(255),\n  PRIMARY KEY (`ID`)\n) ENGINE=InnoDB;\nLOCK TABLES `wp_posts` WRITE;\n",
    )?;
    let (mut written, mut id) = (0, 0);
    while written < size {
        let mut line = String::from("INSERT INTO `wp_posts` VALUES ");
        for number in 0..ROWS_PER_LINE {
            id += 1;
            let words = 8 + noise.below(60);
            let (author, day, minute) = (noise.below(40), noise.below(28) + 1, noise.below(60));
            let content = noise.prose(words).replace('\n', "\\n");
            let token = noise.next();
            let end = if number + 1 == ROWS_PER_LINE {
                ";\n"
            } else {
                ","
            };
            // Writing to a String cannot fail.
            _ = write!(
                line,
                "({id},{author},'2026-01-{day:02} 10:{minute:02}:00','{content}','https://shop.example/?p={id}&k={token:016x}'){end}"
            );
        }
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    out.write_all(b"UNLOCK TABLES;\n-- Dump completed\n")
}

/// Edits a number of rows of a dump, spread over all of it; each edit changes the length of its row.
pub(crate) fn edit_rows(dump: &mut Vec<u8>, edits: usize) {
    let every = dump.len().checked_div(edits + 1).unwrap_or(0);
    for number in (1..=edits).rev() {
        let from = number * every;
        // The beginning of the next row's text.
        let found = dump
            .get(from..)
            .and_then(|rest| rest.windows(3).position(|three| three == b":00"));
        if let Some(at) = found.map(|at| from + at + 6) {
            let text = format!("edited {number} ");
            dump.splice(at..at, text.into_bytes());
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let part = |number: usize| u32::from(three.get(number).copied().unwrap_or(0));
        let bits = (part(0) << 16) | (part(1) << 8) | part(2);
        for place in 0..4 {
            let digit = usize::try_from((bits >> (18 - 6 * place)) & 63).unwrap_or(0);
            let is_there = place <= three.len();
            text.push(if is_there {
                char::from(DIGITS.get(digit).copied().unwrap_or(b'='))
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_the_same_data_and_another_does_not() {
        let made = |seed| {
            let mut noise = Noise::new(seed);
            let mut text = mail(&mut noise, 1).into_bytes();
            dump(&mut noise, 10_000, &mut text).unwrap();
            text
        };
        assert_eq!(made("a"), made("a"));
        assert_ne!(made("a"), made("b"));
        assert!(made("a").len() > 10_000);
    }

    #[test]
    fn edited_rows_are_longer_and_all_there() {
        let mut text = Vec::new();
        dump(&mut Noise::new("a"), 200_000, &mut text).unwrap();
        let before = text.len();
        edit_rows(&mut text, 10);
        let found = String::from_utf8(text.clone())
            .unwrap()
            .matches("'edited ")
            .count();
        assert_eq!(found, 10);
        assert_eq!(text.len(), before + 9 * 9 + 10);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
