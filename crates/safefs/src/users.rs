//! The server's users and groups, read from `/etc/passwd` and `/etc/group` by our own parser.
//!
//! Name services behind NSS are not asked: a backup must not wait for a directory server, and
//! numbers are recorded beside names anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use edge::Owner;

use crate::directory::lock;

/// Longest accepted user or group file, in bytes.
const TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Login name.
    pub name: Vec<u8>,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of the primary group.
    pub gid: u32,
    /// Home directory, as written.
    pub home: Vec<u8>,
}

/// Users and groups of this server at one moment.
#[derive(Debug, Clone, Default)]
pub struct Users {
    records: Vec<UserRecord>,
    user_names: HashMap<u32, Vec<u8>>,
    user_ids: HashMap<Vec<u8>, u32>,
    group_names: HashMap<u32, Vec<u8>>,
    group_ids: HashMap<Vec<u8>, u32>,
    latest: Latest,
}

/// The owner that was asked for last: neighbours mostly have one.
#[derive(Debug, Default)]
struct Latest(Mutex<Arc<Owner>>);

impl Clone for Latest {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Users {
    /// Reads the tables of this server.
    ///
    /// # Errors
    ///
    /// The cause, when a table cannot be read; a server without them has no names to offer.
    pub fn load() -> io::Result<Self> {
        let passwd = read_table(Path::new("/etc/passwd"))?;
        let group = read_table(Path::new("/etc/group"))?;
        Ok(Self::parse(&passwd, &group))
    }

    /// Reads tables in the form of passwd(5) and group(5). Lines that are not are ignored; of
    /// two lines with one id or name the first counts, as in the C library.
    #[must_use]
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let mut users = Self::default();
        for record in lines(passwd).filter_map(user_record) {
            let (name, uid) = (record.name.clone(), record.uid);
            users.user_names.entry(uid).or_insert_with(|| name.clone());
            users.user_ids.entry(name).or_insert(uid);
            users.records.push(record);
        }
        for (name, gid) in lines(group).filter_map(group_record) {
            users.group_names.entry(gid).or_insert_with(|| name.clone());
            users.group_ids.entry(name).or_insert(gid);
        }
        users
    }

    /// Gives every user in the order of the file.
    #[must_use]
    pub fn records(&self) -> &[UserRecord] {
        &self.records
    }

    /// Gives numbers with the names that belong to them here.
    #[must_use]
    pub fn owner(&self, uid: u32, gid: u32) -> Arc<Owner> {
        let mut latest = lock(&self.latest.0);
        // Without a name it may be what the cache begins with.
        let is_known = (latest.uid, latest.gid) == (uid, gid) && !latest.user.is_empty();
        if !is_known {
            *latest = Arc::new(Owner {
                uid,
                gid,
                user: self.user_names.get(&uid).cloned().unwrap_or_default(),
                group: self.group_names.get(&gid).cloned().unwrap_or_default(),
            });
        }
        Arc::clone(&latest)
    }

    /// Gives the ids of an owner on this server: by name where the name is known, else by number.
    #[must_use]
    pub fn ids(&self, owner: &Owner) -> (u32, u32) {
        let uid = self.user_ids.get(&owner.user).copied();
        let gid = self.group_ids.get(&owner.group).copied();
        (uid.unwrap_or(owner.uid), gid.unwrap_or(owner.gid))
    }
}

fn read_table(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(TABLE_BYTES_MAX)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n')
}

fn user_record(line: &[u8]) -> Option<UserRecord> {
    let mut fields = line.split(|b| *b == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = number(fields.nth(1)?)?;
    let gid = number(fields.next()?)?;
    let home = fields.nth(1)?;
    Some(UserRecord {
        name: name.to_vec(),
        uid,
        gid,
        home: home.to_vec(),
    })
}

fn group_record(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut fields = line.split(|b| *b == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name.to_vec(), number(fields.nth(1)?)?))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:1001::/home/alice:/bin/sh\ntoor:x:0:0::/root:\nodd:x:-1:5::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:1001:alice,bob\n";

    #[test]
    fn names_and_numbers_are_found_both_ways() {
        let users = Users::parse(PASSWD, GROUP);
        assert_eq!(users.records().len(), 3);
        let owner = users.owner(1000, 1001);
        assert_eq!(
            (&owner.user[..], &owner.group[..]),
            (&b"alice"[..], &b"web"[..])
        );
        assert_eq!(users.owner(0, 7).user, b"root");
        assert!(users.owner(0, 7).group.is_empty());
    }

    #[test]
    fn owners_are_mapped_by_name_then_by_number() {
        let users = Users::parse(PASSWD, GROUP);
        let mut owner = Owner::clone(&users.owner(1000, 1001));
        owner.uid = 4444;
        owner.gid = 5555;
        assert_eq!(users.ids(&owner), (1000, 1001));
        owner.user = b"nobody-here".to_vec();
        owner.group.clear();
        assert_eq!(users.ids(&owner), (4444, 5555));
    }
}
