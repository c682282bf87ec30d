//! What a server is there for, as a fixture: a WordPress site with its account, and a tree of everything that is hard.
//!
//! Content is the same on every run; passwords and keys are made anew. What a restore must bring back is read as text
//! that can be compared: [`Site::tree`], [`Site::database_rows`], [`Site::page`].

use std::collections::HashSet;
use std::time::Duration;

use crate::fault::{Doing, Result};
use crate::host::Host;

const SET_UP: &str = include_str!("assets/site.sh");
const CONTENT: &str = include_str!("assets/site.php");
const TABLES: &str = include_str!("assets/site.sql");
const FINGERPRINT: &str = include_str!("assets/fingerprint.py");
const ODD_TREE: &str = include_str!("assets/odd_tree.py");
const SERVED_MAX: Duration = Duration::from_secs(30);

/// A WordPress site on a host: nginx, PHP-FPM as the account's user, MariaDB.
#[derive(Debug, Clone)]
pub struct Site {
    /// The hosting account, also the Linux user.
    pub account: String,
    /// The name it is served under.
    pub domain: String,
    /// The directory of its files.
    pub root: String,
    /// Its database.
    pub database: String,
}

impl Site {
    /// Sets a site up on a host and waits until its front page is served.
    ///
    /// # Errors
    ///
    /// When a step fails; the error holds its output.
    pub fn set_up(host: &Host, account: &str, domain: &str) -> Result<Self> {
        let site = Self {
            account: account.to_owned(),
            domain: domain.to_owned(),
            root: format!("/home/{account}/www/{domain}"),
            database: format!("{account}_wp"),
        };
        host.put("/root/site.php", CONTENT)?;
        host.put("/root/site.sql", TABLES)?;
        host.sh("chmod 0711 /root; chmod 0644 /root/site.php")?;
        site.script(host, "set-up")?;
        Ok(site)
    }

    /// Puts PHP and nginx in front of the site's tree and database, which were brought to another host.
    ///
    /// # Errors
    ///
    /// When it is not served.
    pub fn serve(&self, host: &Host) -> Result<()> {
        self.script(host, "serve")
    }

    fn script(&self, host: &Host, verb: &str) -> Result<()> {
        let Self {
            account, domain, ..
        } = self;
        host.put("/root/site.sh", SET_UP)?;
        let php = host.distro().php();
        host.sh(&format!(
            "bash /root/site.sh {verb} {account} {domain} {php}"
        ))
        .doing(|| format!("site {domain}: {verb}"))?;
        host.wait_until("the front page", SERVED_MAX, |host| {
            Ok(self
                .page(host)
                .is_ok_and(|page| page.contains("Acme Tools")))
        })
    }

    /// Reads everything that a restore must bring back.
    ///
    /// # Errors
    ///
    /// When a part cannot be read.
    pub fn state(&self, host: &Host) -> Result<SiteState> {
        Ok(SiteState {
            page: self.page(host)?,
            tree: self.tree(host)?,
            rows: self.database_rows(host)?,
        })
    }

    /// Fetches the front page as a visitor gets it, without what differs on every visit.
    ///
    /// # Errors
    ///
    /// When it is not served.
    pub fn page(&self, host: &Host) -> Result<String> {
        let page = host.sh(&format!(
            "curl -sS --fail --max-time 20 -H 'Host: {}' http://127.0.0.1/ | sed -E 's/(nonce\"?[:=]\"?)[0-9a-f]{{10}}/\\1/g'",
            self.domain
        ))?;
        Ok(page)
    }

    /// Gives a line for each entry of its tree.
    ///
    /// # Errors
    ///
    /// When the tree cannot be read.
    pub fn tree(&self, host: &Host) -> Result<String> {
        fingerprint(host, &self.root)
    }

    /// Gives its database as statements, and a checksum for each table.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn database_rows(&self, host: &Host) -> Result<String> {
        let database = &self.database;
        host.sh(&format!(
            "set -o pipefail; mariadb-dump --routines --triggers --events --skip-dump-date --hex-blob --order-by-primary {database} \
             && mariadb -N -e \"SELECT CONCAT('CHECKSUM TABLE \\`', REPLACE(table_name, '\\`', '\\`\\`'), '\\` EXTENDED;') \
             FROM information_schema.tables WHERE table_schema = '{database}' AND table_type = 'BASE TABLE' ORDER BY 1\" \
             | mariadb -N {database}"
        ))
    }

    /// Does what a break-in or a bad plug-in does: files deleted, changed and added, rows changed, a table gone.
    ///
    /// # Errors
    ///
    /// When a step fails.
    pub fn damage(&self, host: &Host) -> Result<()> {
        let (root, database) = (&self.root, &self.database);
        host.sh(&format!(
            "set -e; cd {root}; rm -rf wp-content/uploads wp-includes; echo '<?php echo \"hacked\";' > index.php; \
             touch added.php; chmod 0777 wp-config.php; \
             mariadb {database} -e 'DROP VIEW shop_dear; DROP TABLE shop_odd; DROP PROCEDURE shop_count; DELETE FROM wp_posts WHERE ID % 2 = 0; \
             UPDATE wp_options SET option_value = \"Hacked\" WHERE option_name = \"blogname\"'"
        ))
        .map(drop)
    }
}

/// What a site is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteState {
    /// The front page.
    pub page: String,
    /// A line for each entry of the tree.
    pub tree: String,
    /// The database as statements and checksums.
    pub rows: String,
}

impl SiteState {
    /// Says how another state differs: the first lines of each part that only one of them has.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        [
            ("page", &self.page, &other.page),
            ("tree", &self.tree, &other.tree),
            ("database", &self.rows, &other.rows),
        ]
        .into_iter()
        .flat_map(|(part, one, two)| {
            differing_lines(one, two)
                .into_iter()
                .map(move |line| format!("{part}: {line}"))
        })
        .collect()
    }
}

/// Gives the first lines that only one of two texts has, marked `-` and `+`.
#[must_use]
pub fn differing_lines(one: &str, two: &str) -> Vec<String> {
    const SHOWN_MAX: usize = 8;
    const CHARS_MAX: usize = 300;
    let only = |mark: char, from: &str, without: &str| -> Vec<String> {
        let known: HashSet<&str> = without.lines().collect();
        from.lines()
            .filter(|line| !known.contains(line))
            .take(SHOWN_MAX)
            .map(|line| format!("{mark}{}", line.chars().take(CHARS_MAX).collect::<String>()))
            .collect()
    };
    let mut lines = only('-', one, two);
    lines.extend(only('+', two, one));
    if lines.is_empty() && one != two {
        lines.push("the same lines in another order".to_owned());
    }
    lines
}

/// Makes a tree of everything that is hard to back up; all but one entry of it belongs to `owner`.
///
/// # Errors
///
/// When it cannot be made.
pub fn make_odd_tree(host: &Host, directory: &str, owner: &str) -> Result<()> {
    host.put("/root/odd_tree.py", ODD_TREE)?;
    host.sh(&format!("python3 /root/odd_tree.py {directory} {owner}"))
        .map(drop)
}

/// Gives a line for each entry of a tree: kind, mode, owner, time, attributes, links, holes and content.
///
/// # Errors
///
/// When the tree cannot be read.
pub fn fingerprint(host: &Host, directory: &str) -> Result<String> {
    host.put("/root/fingerprint.py", FINGERPRINT)?;
    host.sh(&format!("python3 /root/fingerprint.py {directory}"))
}
