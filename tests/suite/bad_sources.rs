//! Files and databases that change, vanish or fail while they are read: the run goes on, and says what it lacks. A file
//! that never stands still is in `repository/tests/round_trip.rs`, where its changes come exactly when they are to.

use std::time::Duration;

use lab::{Lab, Result};
use serde_json::Value;

use crate::bad_input::{Bench, told};

const SOON: Duration = Duration::from_secs(60);

/// Runs a schedule, stops its job as soon as a sign shows, does something to it, and lets it go on.
/// usage: interrupt SCHEDULE SIGN ACT; sign and act are shell and know the job as $pid
const INTERRUPT: &str = r#"
set -u
backstayctl --json schedule run "$1" >/run/record & run=$!
unit=backstay-job@$1.service pid=0 seen=
while [ "$pid" = 0 ] && kill -0 $run 2>/dev/null; do pid=$(systemctl show -P MainPID "$unit"); done
until [ -n "$seen" ] || ! kill -0 "$pid" 2>/dev/null; do
    if eval "$2"; then kill -STOP "$pid"; seen=1; fi
done
[ -n "$seen" ] || { echo "the run ended before $2"; exit 99; }
eval "$3"
kill -CONT "$pid"
code=0; wait $run || code=$?
echo "$code"
"#;

/// Gives how a run ended that was interrupted, as it is shown.
fn interrupted(bench: &Bench, schedule: &str, sign: &str, act: &str) -> Result<String> {
    let host = &bench.server.host;
    host.put("/root/interrupt", INTERRUPT)?;
    let code = host.sh(&format!(
        "timeout 60 bash /root/interrupt {schedule} '{sign}' '{act}'"
    ))?;
    let record: Value = serde_json::from_slice(&host.get("/run/record")?).unwrap();
    Ok(told(code.trim().parse().unwrap(), &record))
}

#[test]
fn files_that_change_vanish_or_have_odd_names_stop_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    let host = &bench.server.host;
    bench.schedule("moving", "web", "\"local\"")?;
    // All of the long file is new, so it is open for seconds.
    host.sh(
        "echo 'limits = { upload_per_second = \"20MB\" }' >> /etc/backstay/schedules.d/moving.toml",
    )?;
    bench.server.apply()?;
    host.sh(
        "set -e; cd /home/acme/www; head -c 80000000 /dev/urandom > a-big; echo gone > z-gone; \
         mkdir z-tree; echo gone > z-tree/leaf; for i in $(seq 4000); do : > m-$i; done",
    )?;
    // One file changes while it is read; a file and a tree are gone when their turn comes. The walk is up to two thousand
    // entries ahead of the reading.
    let shown = interrupted(
        &bench,
        "moving",
        // Without a new process for each look, so that no file is read too fast to be seen.
        "open=1; for fd in /proc/$pid/fd/*; do [ $fd -ef /home/acme/www/a-big ] && open=0; done; [ $open = 0 ]",
        "cd /home/acme/www; rm -r z-gone z-tree; printf changed | dd of=a-big conv=notrunc status=none",
    )?;
    insta::assert_snapshot!(shown, @"
    exit 3, partial
    local: the key of this schedule opens nothing there yet; snapshots that another key opens are left as they are, and this run begins anew
    a file or directory was not backed up: No such file or directory (os error 2)
    a file or directory was not backed up: No such file or directory (os error 2)
    local: snapshot [id], [size] stored
    4014 entries, [size]; [size] stored; 1 of 1 copy; 2 objects failed
    ");
    host.sh(
        "set -e; rm -rf /root/out; backstayctl restore moving --to /root/out; \
         cmp /root/out/acme.1000/files/home/acme/www/a-big /home/acme/www/a-big",
    )?;

    host.sh(
        "cd /home/acme/www; rm a-big m-*; echo 1 > $'new\\nline'; echo 2 > $'\\xff\\xfe'; echo 3 > ' '",
    )?;
    assert!(bench.attempt("moving")?.starts_with("exit 0, ok"));
    insta::assert_snapshot!(
        bench.type_in("backstayctl ls moving latest acme.1000/files/home/acme/www | sed -E '1d; s/.*:[0-9]{2}  //'")?,
        @r#"
     
    new\nline
    page-1
    page-2
    page-3
    page-4
    page-5
    \xff\xfe
    exit 0
    "#
    );
    host.sh(
        "set -e; rm -rf /root/out; backstayctl restore moving --to /root/out; \
         diff -r /root/out/acme.1000/files/home/acme/www /home/acme/www",
    )?;
    bench.assert_nothing_lost()
}

#[test]
fn databases_that_fail_make_the_run_partial_and_spare_the_others() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    let host = &bench.server.host;
    host.sh(
        "systemctl start mariadb; mariadb -e 'CREATE DATABASE acme_one; CREATE DATABASE acme_two'",
    )?;
    host.sh(
        "set -e; mariadb acme_one -e 'CREATE TABLE goods (id INT PRIMARY KEY, text VARCHAR(1000)); \
         INSERT INTO goods SELECT seq, REPEAT(\"x\", 1000) FROM seq_1_to_40000'; \
         mariadb acme_two -e 'CREATE TABLE goods (id INT PRIMARY KEY); INSERT INTO goods VALUES (1)'",
    )?;
    bench.schedule("dumps", "full", "\"local\"")?;

    // Nobody has let Backstay in yet.
    insta::assert_snapshot!(bench.attempt("dumps")?, @"
    exit 3, partial
    local: the key of this schedule opens nothing there yet; snapshots that another key opens are left as they are, and this run begins anew
    no database was backed up: /usr/bin/mariadb ended with exit status: 1: ERROR 1045 (28000): Access denied for user 'backstay-dump'@'localhost' (using password: NO)
    local: snapshot [id], [size] stored
    13 entries, [size]; [size] stored; 1 of 1 copy; 1 object failed
    ");
    host.sh("backstayctl init")?;
    let whole = bench.attempt("dumps")?;
    assert!(whole.starts_with("exit 0, ok"), "{whole}");

    let dumping = "pgrep -x mariadb-dump >/dev/null";
    insta::assert_snapshot!(interrupted(&bench, "dumps", dumping, "mariadb -e \"DROP DATABASE acme_two\"")?, @"
    exit 3, partial
    database acme_two of acme.1000 was not backed up: there is no database acme_two
    local: snapshot [id], [size] stored
    16 entries, [size]; [size] stored; 1 of 1 copy; 1 object failed
    ");
    host.sh("set -e; mariadb -e 'CREATE DATABASE acme_two'; mariadb acme_two -e 'CREATE VIEW cheap AS SELECT 1 AS one; \
             CREATE TABLE goods (id INT); CREATE VIEW goods_seen AS SELECT * FROM goods; DROP TABLE goods'")?;
    insta::assert_snapshot!(bench.attempt("dumps")?, @"
    exit 3, partial
    database acme_two of acme.1000 was not backed up: /usr/bin/mariadb-dump ended with exit status: 2: mariadb-dump: Couldn't execute 'SHOW FIELDS FROM `goods_seen`': View 'acme_two.goods_seen' references invalid table(s) or column(s) or function(s) or definer/invoker of view lack rights to use them (1356)
    local: snapshot [id], [size] stored
    16 entries, [size]; [size] stored; 1 of 1 copy; 1 object failed
    ");
    host.sh("mariadb -e 'DROP DATABASE acme_two'")?;

    // The job stands still, so the dump cannot go on once it sends rows.
    let kill = "until mariadb -e \"SHOW FULL PROCESSLIST\" | grep -q \"FROM .goods\"; do :; done; \
                systemctl kill -s KILL mariadb; while pgrep -x mariadbd >/dev/null; do :; done";
    let shown = interrupted(&bench, "dumps", dumping, kill)?;
    let (before, rest) = shown.split_once("at row: ").unwrap();
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    insta::assert_snapshot!(format!("{before}at row: [number]{rest}"), @"
    exit 3, partial
    database acme_one of acme.1000 was not backed up: /usr/bin/mariadb-dump ended with exit status: 3: mariadb-dump: Error 2013: Lost connection to server during query when dumping table `goods` at row: [number]
    local: nothing was let go or deleted: the newest 3 snapshots are partial, and older ones are complete; if that is right, 'backstayctl repo forget --force' goes on
    local: snapshot [id], [size] stored
    15 entries, [size]; [size] stored; 1 of 1 copy; 1 object failed
    ");
    host.sh("systemctl stop mariadb")?;
    insta::assert_snapshot!(bench.attempt("dumps")?, @"
    exit 3, partial
    no database was backed up: /usr/bin/mariadb ended with exit status: 1: ERROR 2002 (HY000): Can't connect to local server through socket '/run/mysqld/mysqld.sock' (111)
    local: nothing was let go or deleted: the newest 3 snapshots are partial, and older ones are complete; if that is right, 'backstayctl repo forget --force' goes on
    local: snapshot [id], [size] stored
    13 entries, [size]; [size] stored; 1 of 1 copy; 1 object failed
    ");

    // A server without MariaDB has no databases, and says that too.
    host.sh("mv /var/lib/mysql /var/lib/elsewhere; rm -r /run/mysqld")?;
    insta::assert_snapshot!(bench.attempt("dumps")?, @"
    exit 0, ok
    no databases: there is no MariaDB server here (/run/mysqld/mysqld.sock does not exist)
    local: nothing was let go or deleted: the newest snapshot has 13 entries and [size]; 16 and [size] were usual before; if that is right, 'backstayctl repo forget --force' goes on
    local: snapshot [id], [size] stored
    13 entries, [size]; [size] stored; 1 of 1 copy
    ");
    host.sh("mv /var/lib/elsewhere /var/lib/mysql; install -d -o mysql /run/mysqld; systemctl start mariadb")?;
    host.wait_for("mariadb -e 'SELECT 1'", SOON)?;
    assert!(bench.attempt("dumps")?.starts_with("exit 0, ok"));
    bench.assert_nothing_lost()
}
