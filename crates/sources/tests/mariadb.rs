//! Dumps and loads against a real MariaDB server that the test starts for itself.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edge::{Content, SourceError};
use model::ErrorClass;
use sources::{
    DumpService, LoadServer, LoadService, MariaDb, dump_account_sql, serve_dump, serve_load,
};

/// A database server in a temporary directory. The system user who runs the test is its
/// administrator.
struct Server {
    dir: tempfile::TempDir,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bs-db")
            .tempdir_in("/tmp")
            .unwrap();
        let output = Command::new("id").arg("-un").output().unwrap();
        let system_user = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let data = dir.path().join("data");
        let installed = Command::new("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--user={system_user}"))
            .arg("--auth-root-authentication-method=socket")
            .arg(format!("--auth-root-socket-user={system_user}"))
            .arg(format!("--tmpdir={}", dir.path().display()))
            .arg("--skip-test-db")
            .stdout(Stdio::null())
            .status()
            .expect("the Debian package mariadb-server-core is needed");
        assert!(installed.success());
        let child = Self::spawn(dir.path(), &system_user);
        let server = Self { dir, child };
        server.await_login();
        for statement in dump_account_sql() {
            server.sql(statement);
        }
        // Elsewhere the system user of that name logs in; here there is none.
        server.sql("ALTER USER `backstay-dump`@`localhost` IDENTIFIED BY ''");
        server
    }

    fn spawn(dir: &Path, system_user: &str) -> Child {
        let daemon = ["/usr/sbin/mariadbd", "/usr/bin/mariadbd"];
        let daemon = daemon.iter().find(|path| Path::new(path).exists());
        Command::new(daemon.expect("the Debian package mariadb-server-core is needed"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", dir.join("data").display()))
            .arg(format!("--socket={}", dir.join("db.sock").display()))
            .arg(format!("--pid-file={}", dir.join("db.pid").display()))
            .arg(format!("--user={system_user}"))
            .arg(format!("--tmpdir={}", dir.display()))
            .args(["--skip-networking", "--innodb-buffer-pool-size=16M"])
            .args(["--innodb-log-file-size=8M", "--event-scheduler=ON"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap()
    }

    fn await_login(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self
            .client()
            .arg("--execute=DO 1")
            .status()
            .unwrap()
            .success()
        {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(
                Instant::now() < deadline,
                "the server does not answer: {log}"
            );
            std::thread::yield_now();
        }
    }

    fn as_user(&self, user: &str) -> MariaDb {
        MariaDb {
            socket: self.dir.path().join("db.sock"),
            user: user.to_owned(),
            programs: PathBuf::from("/usr/bin"),
        }
    }

    fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client
            .args([
                "--no-defaults",
                "--protocol=socket",
                "--user=root",
                "--batch",
            ])
            .args(["--skip-column-names", "--default-character-set=utf8mb4"])
            .arg(format!(
                "--socket={}",
                self.dir.path().join("db.sock").display()
            ))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        client
    }

    /// Runs a script and gives what it prints.
    fn sql(&self, script: &str) -> String {
        let mut client = self.client();
        client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = client.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Serves the next `count` connections of a dump socket.
    fn dumps(&self, count: usize) -> DumpService {
        self.dumps_as(self.as_user("backstay-dump"), count)
    }

    fn dumps_as(&self, server: MariaDb, count: usize) -> DumpService {
        let (socket, listener) = self.listen();
        std::thread::spawn(move || {
            for _ in 0..count {
                let (stream, _) = listener.accept().unwrap();
                // What went wrong is told to the client, which is what is tested.
                serve_dump(&server, &stream, &mut &stream).ok();
            }
        });
        DumpService::new(socket)
    }

    fn loads(&self, count: usize) -> LoadService {
        let (socket, listener) = self.listen();
        let service = LoadServer {
            server: self.as_user("root"),
            undo_directory: self.undo_directory(),
        };
        fs::create_dir_all(&service.undo_directory).unwrap();
        std::thread::spawn(move || {
            for _ in 0..count {
                let (stream, _) = listener.accept().unwrap();
                serve_load(&service, &stream, &mut &stream).ok();
            }
        });
        LoadService::new(socket)
    }

    fn undo_directory(&self) -> PathBuf {
        self.dir.path().join("undo")
    }

    fn listen(&self) -> (PathBuf, UnixListener) {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let socket = dir.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        (socket, listener)
    }

    fn dump(&self, name: &[u8]) -> Vec<u8> {
        let content = self.dumps(1).open(name).unwrap();
        let (bytes, end) = read(content);
        end.unwrap();
        bytes
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn read(mut content: Box<dyn Content>) -> (Vec<u8>, Result<(), SourceError>) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 100_000];
    while let Ok(count @ 1..) = content.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    (bytes, content.finish().map(drop))
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().unwrap().to_string()
}

/// Names as hostile as the server takes them.
const NAMES: [&str; 6] = [
    "shop",
    "--help",
    "a`b",
    "c d",
    "\u{e4}\u{4e16}_50%",
    "e; -- #f",
];

/// Fills a database with one of everything that a dump must bring back.
fn fill(server: &Server, name: &str) {
    let quoted = format!("`{}`", name.replace('`', "``"));
    server.sql(&format!(
        "CREATE DATABASE {quoted} CHARACTER SET latin2 COLLATE latin2_bin;
         USE {quoted};
         CREATE TABLE goods (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50) CHARACTER SET
             utf8mb4, picture BLOB, price DECIMAL(10,2), KEY (price)) ENGINE=InnoDB;
         CREATE TABLE log (id INT, line TEXT) ENGINE=Aria;
         INSERT INTO goods (name, picture, price) VALUES
             ('caf\u{e9} \u{1f600}', x'00ff0a0d5c27', 1.50), (NULL, NULL, -0.01);
         INSERT INTO goods (name) SELECT seq FROM seq_1_to_3000;
         CREATE VIEW cheap AS SELECT name FROM goods WHERE price < 1;
         DELIMITER //
         CREATE TRIGGER counted AFTER INSERT ON goods FOR EACH ROW
             BEGIN INSERT INTO log VALUES (NEW.id, 'new'); END//
         CREATE PROCEDURE clear() BEGIN DELETE FROM log; END//
         CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n//
         CREATE DEFINER=`gone`@`localhost` PROCEDURE orphan() SELECT 1//
         CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM log; END//
         DELIMITER ;"
    ));
}

/// What a database holds, seen from the inside.
fn facts(server: &Server, name: &str) -> String {
    let quoted = format!("`{}`", name.replace('`', "``"));
    server.sql(&format!(
        "USE {quoted}; CHECKSUM TABLE goods, log; SELECT * FROM cheap; SELECT twice(21);
         SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA
             WHERE SCHEMA_NAME = '{name}';
         SELECT ROUTINE_NAME, ROUTINE_DEFINITION, DEFINER FROM information_schema.ROUTINES
             WHERE ROUTINE_SCHEMA = '{name}' ORDER BY 1;
         SELECT TRIGGER_NAME, ACTION_STATEMENT, DEFINER FROM information_schema.TRIGGERS
             WHERE TRIGGER_SCHEMA = '{name}' ORDER BY 1;
         SELECT EVENT_NAME, EVENT_DEFINITION, STATUS FROM information_schema.EVENTS
             WHERE EVENT_SCHEMA = '{name}' ORDER BY 1;"
    ))
}

#[test]
fn databases_of_any_name_come_back_with_everything_in_them() {
    let server = Server::start();
    for name in NAMES {
        fill(&server, name);
    }
    let listed = server.dumps(1).list().unwrap();
    let mut expected: Vec<Vec<u8>> = NAMES.map(|name| name.as_bytes().to_vec()).into();
    expected.sort();
    let names: Vec<_> = listed.iter().map(|found| found.name.clone()).collect();
    assert_eq!(names, expected);
    assert_eq!(listed[0].collation, "latin2_bin");
    for name in NAMES {
        let before = facts(&server, name);
        let dump = server.dump(name.as_bytes());
        assert_eq!(
            dump,
            server.dump(name.as_bytes()),
            "dumps of one state are equal"
        );
        let quoted = format!("`{}`", name.replace('`', "``"));
        server.sql(&format!(
            "USE {quoted}; DROP EVENT nightly; UPDATE goods SET name = 'defaced';
             CREATE TABLE malware (id INT)"
        ));
        let mut connection = server.loads(1).open(name.as_bytes(), "r1").unwrap();
        for (number, part) in dump.chunks(50_000).enumerate() {
            let offset = u64::try_from(number * 50_000).unwrap();
            connection.write_at(offset, part).unwrap();
        }
        let loaded = connection.complete().unwrap();
        assert_eq!(facts(&server, name), before);
        assert_eq!(server.dump(name.as_bytes()), dump);
        let undo = fs::read(loaded.undo.unwrap()).unwrap();
        let undo = String::from_utf8_lossy(&undo).into_owned();
        assert!(undo.contains("malware") && undo.contains("defaced"));
    }
    let left = server.sql("SELECT User FROM mysql.user WHERE User LIKE 'backstay-load%'");
    assert_eq!(left, "", "accounts of loads are gone");
}

#[test]
fn the_account_for_dumps_can_change_nothing() {
    let server = Server::start();
    fill(&server, "shop");
    let rights = server.sql("SHOW GRANTS FOR `backstay-dump`@`localhost`");
    assert_eq!(rights.lines().count(), 1, "{rights}");
    let mut client = server.client();
    client.arg("--user=backstay-dump").arg("--execute");
    for forbidden in [
        "DELETE FROM shop.log",
        "DROP DATABASE shop",
        "SET GLOBAL max_connections=9",
    ] {
        let mut client = server.client();
        client.args(["--user=backstay-dump", "--execute", forbidden]);
        assert!(!client.status().unwrap().success(), "{forbidden}");
    }
    let mut client = server.client();
    client.args([
        "--user=backstay-dump",
        "--execute",
        "SELECT COUNT(*) FROM shop.goods",
    ]);
    assert!(client.stdout(Stdio::null()).status().unwrap().success());
}

#[test]
fn a_dump_that_fails_half_way_is_no_dump() {
    let mut server = Server::start();
    fill(&server, "shop");
    server.sql(
        "USE shop; CREATE TABLE zlarge (id INT PRIMARY KEY, text VARCHAR(1000));
         INSERT INTO zlarge SELECT seq, REPEAT('x', 1000) FROM seq_1_to_40000;",
    );
    let mut content = server.dumps(1).open(b"shop").unwrap();
    let mut buffer = vec![0; 100_000];
    let mut received = 0;
    while received < 2_000_000 {
        received += content.read(&mut buffer).unwrap();
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let (bytes, end) = read(content);
    let error = end.unwrap_err();
    assert_eq!(error.to_string(), "dumping database shop");
    assert_eq!(error.class, ErrorClass::RetryNow);
    assert!(
        cause(&error).contains("ost connection"),
        "{}",
        cause(&error)
    );
    assert!(bytes.len() < 40_000_000);

    // And a server that is away altogether.
    let error = server.dumps(1).list().unwrap_err();
    assert!(cause(&error).contains("ERROR 2002"), "{}", cause(&error));
    let error = DumpService::new(PathBuf::from("/nonexistent"))
        .list()
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::RetryLater);
}

#[test]
fn a_database_that_disappears_fails_alone_and_for_good() {
    let server = Server::start();
    fill(&server, "shop");
    fill(&server, "other");
    let service = server.dumps(3);
    let listed = service.list().unwrap();
    assert_eq!(listed.len(), 2);
    server.sql("DROP DATABASE shop");
    let (_, end) = read(service.open(b"shop").unwrap());
    let error = end.unwrap_err();
    assert_eq!(error.class, ErrorClass::Never);
    assert_eq!(cause(&error), "there is no database shop");
    let (bytes, end) = read(service.open(b"other").unwrap());
    assert!(end.is_ok() && bytes.ends_with(b"-- Dump completed\n"));
}

#[test]
fn a_view_that_lost_its_table_fails_its_database_and_says_why() {
    let server = Server::start();
    fill(&server, "shop");
    server.sql("DROP TABLE shop.goods");
    let (_, end) = read(server.dumps(1).open(b"shop").unwrap());
    let error = end.unwrap_err();
    assert!(cause(&error).contains("cheap"), "{}", cause(&error));
}

#[test]
fn a_load_that_is_cut_or_foreign_changes_nothing() {
    let server = Server::start();
    fill(&server, "shop");
    let before = server.dump(b"shop");
    let loads = server.loads(3);

    let mut cut = loads.open(b"shop", "r1").unwrap();
    cut.write_at(0, &before[..before.len() / 2]).unwrap();
    assert!(cut.write_at(0, b"again").is_err(), "bytes out of order");
    drop(cut);
    for (foreign, expected) in [
        (&b"DROP TABLE goods;\n"[..], "does not end as a dump does"),
        (
            b"DROP TABLE goods;\n-- Dump completed\n",
            "does not begin as ours do",
        ),
    ] {
        let mut connection = loads.open(b"shop", "r2").unwrap();
        connection.write_at(0, foreign).unwrap();
        let error = connection.complete().unwrap_err();
        assert!(cause(&error).contains(expected), "{}", cause(&error));
    }
    assert_eq!(server.dump(b"shop"), before);
    assert_eq!(fs::read_dir(server.undo_directory()).unwrap().count(), 0);
}

#[test]
fn a_load_that_fails_puts_back_what_was_there() {
    let server = Server::start();
    fill(&server, "shop");
    fill(&server, "victim");
    let before = server.dump(b"shop");
    let victim = server.dump(b"victim");
    let loads = server.loads(3);
    let header = before.split_inclusive(|b| *b == b'\n').next().unwrap();
    for (number, evil) in [
        "SELECT nonsense;",
        "DROP DATABASE victim;",
        "\\! touch /tmp/pwned;",
    ]
    .iter()
    .enumerate()
    {
        let mut script = header.to_vec();
        script.extend_from_slice(format!("{evil}\n-- Dump completed\n").as_bytes());
        let mut connection = loads.open(b"shop", &format!("r{number}")).unwrap();
        connection.write_at(0, &script).unwrap();
        let error = connection.complete().unwrap_err();
        let cause = cause(&error);
        assert!(
            cause.ends_with("what the database held before was put back"),
            "{cause}"
        );
        assert_eq!(server.dump(b"shop"), before);
    }
    assert_eq!(
        server.dump(b"victim"),
        victim,
        "a dump reaches its own database only"
    );
    assert!(!Path::new("/tmp/pwned").exists());
}

#[test]
fn a_database_that_is_gone_is_created_again() {
    let server = Server::start();
    fill(&server, "shop");
    let (dump, before) = (server.dump(b"shop"), facts(&server, "shop"));
    server.sql("DROP DATABASE shop");
    let mut connection = server.loads(1).open(b"shop", "r1").unwrap();
    connection.write_at(0, &dump).unwrap();
    assert_eq!(connection.complete().unwrap().undo, None);
    assert_eq!(facts(&server, "shop"), before);
}
