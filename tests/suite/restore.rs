//! What was backed up comes back as it was: every entry of every tree, every row, and the page that visitors see.

use std::time::Duration;

use lab::{
    Controller, Distro, Garage, Lab, Package, Result, Server, Site, differing_lines, fingerprint,
    make_odd_tree,
};
use serde_json::{Value, json};

use crate::fleet::{RUN_MAX, schedule};

/// Gives the lines of a tree as a restore of a customer's tree may leave them: nothing that gives rights comes back (set-id
/// bits and privileged attributes of files), and sockets belong to the process that made them.
fn as_restored(lines: &str) -> String {
    let kept = |line: &&str| !line.contains(" socket ");
    let line = |line: &str| {
        let words: Vec<_> = line
            .split(' ')
            .filter(|word| !word.starts_with("security."))
            .map(|word| match word {
                "4755" | "2755" if line.contains(" file ") => "0755",
                other => other,
            })
            .collect();
        words.join(" ") + "\n"
    };
    lines.lines().filter(kept).map(line).collect()
}

const RESTORE_MAX: Duration = Duration::from_secs(180);

/// A site and a hard tree on a server of the given release, backed up to both destinations.
struct BackedUp {
    controller: Controller,
    server: Server,
    id: String,
    site: Site,
    run: Value,
    garage: Garage,
    // Serves S3 until the end of the test.
    _store: lab::Host,
}

fn back_up(lab: &Lab, distro: Distro) -> Result<BackedUp> {
    let hosts = [
        lab.host("controller").create()?,
        lab.host("web").distro(distro).create()?,
        lab.host("store").garage()?.create()?,
    ];
    lab.up_all(&hosts.each_ref())?;
    let [first, second, store] = hosts;
    let garage = Garage::start_on(&store, "backups")?;
    let controller = Controller::set_up(first)?;
    let server = Server::install(second)?;
    server.add_local("local", "/srv/backup")?;
    server.add_s3("offsite", &garage)?;
    server.apply()?;
    let id = controller.join(&server)?;
    let site = Site::set_up(&server.host, "acme", "acme.example")?;
    server.init()?;
    make_odd_tree(&server.host, "/home/acme/odd", "acme")?;
    // The first visits write rows; after them a visit writes nothing.
    let mut rows = String::new();
    server
        .host
        .wait_until("the site to settle", RUN_MAX, |host| {
            site.page(host)?;
            let before = std::mem::replace(&mut rows, site.database_rows(host)?);
            Ok(before == rows)
        })?;
    let mut nightly = schedule("nightly", "daily 02:00");
    nightly["scope"] = json!("full");
    nightly["destinations"] = json!(["local", "offsite"]);
    controller.add_schedule(&id, &nightly)?;
    let run = server.run_now("nightly", RUN_MAX)?;
    assert_eq!(run["state"], "ok", "{run}");
    assert_eq!(run["counts"]["databases"], 1, "{run}");
    Ok(BackedUp {
        controller,
        server,
        id,
        site,
        run,
        garage,
        _store: store,
    })
}

impl BackedUp {
    fn restore(&self, destination: &str, target: Value) -> Result<()> {
        let copies = self.run["copies"].as_array().unwrap();
        let copy = copies
            .iter()
            .find(|copy| copy["destination"] == destination)
            .unwrap();
        assert_eq!(copy["state"], "stored", "{copy}");
        let wanted = json!({ "schedule": "nightly", "snapshot": copy["snapshot"], "destination": destination,
                             "target": target, "confirm": self.server.host.name() });
        let path = format!("/api/v1/servers/{}/restores", self.id);
        let begun = self.controller.call("POST", &path, Some(&wanted))?;
        let done = self.controller.wait_operation(&begun, RESTORE_MAX)?;
        assert_eq!(done["state"], "done", "{done}");
        Ok(())
    }
}

fn site_comes_back_in_place(distro: Distro) -> Result<()> {
    let lab = Lab::new()?;
    let backed_up = back_up(&lab, distro)?;
    let (site, host) = (&backed_up.site, &backed_up.server.host);
    for destination in ["local", "offsite"] {
        let home = fingerprint(host, "/home/acme")?;
        let before = site.state(host)?;
        site.damage(host)?;
        host.sh(
            "rm -rf /home/acme/odd/links /home/acme/odd/wide; echo other > /home/acme/odd/listed",
        )?;
        assert!(!before.differences(&site.state(host)?).is_empty());
        backed_up.restore(destination, json!("in_place"))?;
        assert_eq!(
            before.differences(&site.state(host)?),
            Vec::<String>::new(),
            "from {destination}"
        );
        assert_eq!(
            differing_lines(&as_restored(&home), &fingerprint(host, "/home/acme")?),
            Vec::<String>::new(),
            "from {destination}"
        );
    }
    Ok(())
}

#[test]
fn damaged_site_comes_back_in_place_on_debian_12() -> Result<()> {
    site_comes_back_in_place(Distro::Bookworm)
}

#[test]
fn damaged_site_comes_back_in_place_on_debian_13() -> Result<()> {
    site_comes_back_in_place(Distro::Trixie)
}

#[test]
fn restore_into_a_directory_equals_the_original_and_touches_nothing_else() -> Result<()> {
    let lab = Lab::new()?;
    let backed_up = back_up(&lab, Distro::Bookworm)?;
    let host = &backed_up.server.host;
    let home = fingerprint(host, "/home/acme")?;
    let before = backed_up.site.state(host)?;
    backed_up.restore("offsite", json!({ "directory": "/var/tmp/restored" }))?;
    let uid = host.sh("id -u acme")?;
    let account = format!("/var/tmp/restored/acme.{}", uid.trim());
    let restored = fingerprint(host, &format!("{account}/files/home/acme"))?;
    assert_eq!(
        differing_lines(&as_restored(&home), &restored),
        Vec::<String>::new()
    );
    host.sh(&format!(
        "head -c 200 {account}/databases/mariadb/acme_wp.sql | grep -q MariaDB"
    ))?;
    assert_eq!(
        before.differences(&backed_up.site.state(host)?),
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn site_comes_back_on_a_third_host_with_backstayctl_and_the_key_alone() -> Result<()> {
    let lab = Lab::new()?;
    let backed_up = back_up(&lab, Distro::Bookworm)?;
    let (site, host) = (&backed_up.site, &backed_up.server.host);
    let home = fingerprint(host, "/home/acme")?;
    let before = site.state(host)?;
    let uid = host.sh("id -u acme")?.trim().to_owned();
    let key = host.sh("backstayctl key export nightly")?;

    // Neither the server nor the controller is there any more.
    host.kill()?;
    backed_up.controller.host.kill()?;
    let third = lab.host("third").boot()?;
    third.install(&[Package::Ctl])?;
    third.put("/root/key", key)?;
    let garage = &backed_up.garage;
    third.put(
        "/root/access",
        format!("{}\n{}\n", garage.access_key, garage.secret_key),
    )?;
    third.sh("chmod 0600 /root/key /root/access")?;
    third.sh(&format!(
        "backstayctl restore --repo 's3://{}/web?endpoint={}&region={}' --key-file /root/key --access-key-file /root/access \
         --to /var/tmp/restored",
        garage.bucket, garage.endpoint, garage.region
    ))?;
    let account = format!("/var/tmp/restored/acme.{uid}");
    let restored = fingerprint(&third, &format!("{account}/files/home/acme"))?;
    assert_eq!(
        differing_lines(&as_restored(&home), &restored),
        Vec::<String>::new()
    );

    third.sh(&format!(
        "set -e; useradd --no-create-home --uid {uid} acme; cp -a {account}/files/home/acme /home/acme; \
         systemctl enable --quiet --now mariadb; \
         password=$(sed -n \"s/^define('DB_PASSWORD', '\\(.*\\)');/\\1/p\" {}/wp-config.php); \
         mariadb -e \"CREATE DATABASE acme_wp CHARACTER SET utf8mb4; CREATE USER acme@localhost IDENTIFIED BY '$password'; \
                      GRANT ALL ON acme_wp.* TO acme@localhost\"; \
         mariadb acme_wp < {account}/databases/mariadb/acme_wp.sql",
        site.root
    ))?;
    site.serve(&third)?;
    assert_eq!(
        before.differences(&site.state(&third)?),
        Vec::<String>::new()
    );
    Ok(())
}
