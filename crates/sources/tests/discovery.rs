//! Accounts, site trees and their entries in a snapshot, with real directories.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use edge::{FileTime, Source, SourceItem};
use model::Scope;
use safefs::Users;
use settings::{Accounts, HostingLayout};
use sources::{Database, Discovery, RunSource, Selection};

struct Server {
    dir: tempfile::TempDir,
    users: Users,
    layout: HostingLayout,
}

impl Server {
    /// Two accounts with homes; the directories belong to the user who runs the test, which is
    /// the second one, `bob`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uid = fs::metadata(dir.path()).unwrap().uid();
        let top = dir.path().to_str().unwrap().to_owned();
        for path in ["home/alice/web", "home/bob", "www/one", "www/two"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join("index.php"), path).unwrap();
        }
        let passwd = format!(
            "daemon:x:1:1::/usr/sbin:/bin/sh\nalice:x:7001:7001::{top}/home/alice:/bin/sh\n\
             bob:x:{uid}:{uid}::{top}/home/bob:/bin/sh\nghost:x:7003:7003::/nonexistent/x:/bin/sh\n"
        );
        let layout = HostingLayout {
            uid_min: uid.min(7000),
            uid_max: uid.max(8000),
            sites: vec!["{home}".to_owned(), format!("{top}/www/*")],
            mariadb_socket: None,
            ..HostingLayout::default()
        };
        let users = Users::parse(passwd.as_bytes(), b"");
        Self { dir, users, layout }
    }

    fn paths(&self, selection: &Selection) -> (Vec<String>, Vec<String>) {
        let mut source = RunSource::open(&self.layout, selection, self.users.clone()).unwrap();
        let (mut paths, mut errors) = (Vec::new(), Vec::new());
        while let Some(item) = source.next().unwrap() {
            match item {
                SourceItem::Entry(entry, _) => paths.push(entry.path.to_string()),
                SourceItem::Failed(error) => errors.push(error.to_string()),
            }
        }
        let top = self.dir.path().to_str().unwrap();
        let short = |path: &String| path.replacen(top, "/TOP", 1);
        (paths.iter().map(short).collect(), errors)
    }
}

fn selection(scope: Scope) -> Selection {
    Selection {
        scope,
        accounts: Accounts::All,
        excludes: vec!["*.tmp".to_owned()],
        dump_socket: PathBuf::from("/nonexistent/dump.sock"),
        taken_at: FileTime::default(),
    }
}

#[test]
fn a_site_made_today_is_in_the_next_run() {
    let server = Server::new();
    let uid = fs::metadata(server.dir.path()).unwrap().uid();
    let (before, errors) = server.paths(&selection(Scope::Web));
    assert_eq!(errors, [""; 0]);
    for expected in [
        "/alice.7001/files/TOP/home/alice/web/index.php".to_owned(),
        format!("/bob.{uid}/files/TOP/home/bob/index.php"),
        format!("/bob.{uid}/files/TOP/www/two/index.php"),
    ] {
        assert!(before.contains(&expected), "{expected} in {before:#?}");
    }
    assert!(!before.iter().any(|path| path.starts_with("/ghost")));
    let new = server.dir.path().join("www/three");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("page"), "new").unwrap();
    fs::write(new.join("page.tmp"), "excluded").unwrap();
    let (after, _) = server.paths(&selection(Scope::Full));
    let added: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(
        added,
        [
            &format!("/bob.{uid}/files/TOP/www/three"),
            &format!("/bob.{uid}/files/TOP/www/three/page")
        ]
    );
}

#[test]
fn one_account_can_be_chosen_and_a_missing_one_is_told() {
    let server = Server::new();
    let mut chosen = selection(Scope::Web);
    chosen.accounts = Accounts::Only(vec!["alice".to_owned(), "nobody-here".to_owned()]);
    let (paths, errors) = server.paths(&chosen);
    assert!(paths.iter().all(|path| path.starts_with("/alice.7001")));
    assert_eq!(errors, ["finding account nobody-here"]);
    let (paths, _) = server.paths(&selection(Scope::Db));
    assert_eq!(paths, [""; 0]);
}

#[test]
fn sites_within_a_home_are_walked_once() {
    let mut server = Server::new();
    let top = server.dir.path().to_str().unwrap().to_owned();
    server.layout.sites.push("{home}/*".to_owned());
    fs::create_dir(server.dir.path().join("home/bob/site")).unwrap();
    let found = Discovery::find(&server.layout, &server.users, Vec::new()).unwrap();
    let bob = found.accounts.iter().find(|a| a.user == b"bob").unwrap();
    let sites: Vec<_> = bob.sites.iter().map(|site| site.path.to_string()).collect();
    let expected = ["home/bob", "www/one", "www/two"].map(|path| format!("{top}/{path}"));
    assert_eq!(sites, expected);
}

#[test]
fn a_database_belongs_to_the_account_with_the_longest_matching_name() {
    let database = |name: &str| Database {
        name: name.as_bytes().to_vec(),
        charset: "utf8mb4".to_owned(),
        collation: "utf8mb4_general_ci".to_owned(),
    };
    let layout = HostingLayout {
        sites: Vec::new(),
        exclude_databases: vec!["*_cache".to_owned()],
        ..HostingLayout::default()
    };
    let passwd =
        b"a:x:1001:1::/home/a:/bin/sh\na_b:x:1002:1::/home/b:/bin/sh\nx*y:x:1003:1::/:/bin/sh\n";
    let users = Users::parse(passwd, b"");
    let names = [
        "a", "a_b", "a_b_shop", "a_cache", "a_shop", "ab", "x*y_1", "xzy_1",
    ];
    let found = Discovery::find(&layout, &users, names.map(database).into()).unwrap();
    let owned: Vec<(String, Vec<String>)> = found
        .accounts
        .iter()
        .map(|account| {
            let text = |name: &Vec<u8>| String::from_utf8(name.clone()).unwrap();
            let names = account.databases.iter().map(|d| text(&d.name)).collect();
            (text(&account.id), names)
        })
        .collect();
    let expected = [
        ("a.1001", vec!["a", "a_shop"]),
        ("a_b.1002", vec!["a_b", "a_b_shop"]),
        ("server", vec!["ab", "xzy_1"]),
        ("x*y.1003", vec!["x*y_1"]),
    ];
    let expected = expected.map(|(id, names)| {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        (id.to_owned(), names)
    });
    assert_eq!(owned, expected);
}

#[test]
fn a_dump_service_that_is_away_fails_databases_and_spares_sites() {
    let mut server = Server::new();
    server.layout.mariadb_socket = Some(PathBuf::from("/nonexistent/mysqld.sock"));
    let (paths, errors) = server.paths(&selection(Scope::Full));
    assert_eq!(errors, ["listing databases through /nonexistent/dump.sock"]);
    assert!(
        paths
            .iter()
            .any(|path| path.ends_with("/home/alice/web/index.php"))
    );
}

#[test]
fn a_layout_that_cannot_be_used_is_refused() {
    let server = Server::new();
    for bad in ["relative/*", "/srv/[a"] {
        let layout = HostingLayout {
            sites: vec![bad.to_owned()],
            ..server.layout.clone()
        };
        let opened = RunSource::open(&layout, &selection(Scope::Web), server.users.clone());
        let Err(error) = opened else {
            panic!("{bad} was taken");
        };
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn paths_of_the_server_belong_to_no_account() {
    let mut server = Server::new();
    let conf = server.dir.path().join("server.conf");
    fs::write(&conf, "x").unwrap();
    server.layout.server_paths = vec![conf, server.dir.path().join("www/one")];
    server.layout.exclude_users = vec!["alice".to_owned()];
    let (paths, errors) = server.paths(&selection(Scope::Web));
    assert_eq!(errors, [""; 0]);
    for expected in [
        "/server/files/TOP/server.conf",
        "/server/files/TOP/www/one/index.php",
    ] {
        assert!(paths.iter().any(|path| path == expected), "{paths:#?}");
    }
    assert!(!paths.iter().any(|path| path.starts_with("/alice")));
    server.layout.server_paths = vec![server.dir.path().join("missing")];
    let (_, errors) = server.paths(&selection(Scope::Web));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].ends_with("/missing"), "{errors:?}");
}

#[test]
fn a_server_whose_sites_are_gone_has_nothing_to_back_up() {
    let mut server = Server::new();
    let sites = server.dir.path().join("www");
    server.layout.sites = vec![format!("{}/*", sites.display())];
    let open = || RunSource::open(&server.layout, &selection(Scope::Web), server.users.clone());
    assert!(!open().unwrap().is_empty());
    fs::remove_dir_all(&sites).unwrap();
    assert!(open().unwrap().is_empty());
}
