//! The fixtures are what they claim to be: a site that is served, damage that shows, and a tree with everything in it.

use lab::{Distro, Lab, Result, Site, fingerprint, make_odd_tree};

#[test]
fn site_is_served_on_both_releases_and_damage_shows_everywhere() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let host = lab.host(distro.suite()).distro(distro).boot()?;
        let site = Site::set_up(&host, "acme", "acme.example")?;
        let before = [
            site.page(&host)?,
            site.tree(&host)?,
            site.database_rows(&host)?,
        ];
        assert!(before[0].contains("Hammer number 28"), "{}", before[0]);
        assert_eq!(site.page(&host)?, before[0]);
        assert_eq!(site.database_rows(&host)?, before[2]);
        host.reboot()?;
        host.wait_for(
            "curl -sf -H 'Host: acme.example' http://127.0.0.1/",
            std::time::Duration::from_secs(20),
        )?;
        assert_eq!(site.tree(&host)?, before[1]);
        site.damage(&host)?;
        assert_ne!(site.page(&host).unwrap_or_default(), before[0]);
        assert_ne!(site.tree(&host)?, before[1]);
        assert_ne!(site.database_rows(&host)?, before[2]);
    }
    Ok(())
}

#[test]
fn odd_tree_has_what_is_hard() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("one").boot()?;
    make_odd_tree(&host, "/srv/odd", "root")?;
    let lines = fingerprint(&host, "/srv/odd")?;
    for part in [
        "new\\nline",
        "\\xff\\xfe",
        "same-as=",
        "data=none",
        "data=524288-",
        "user.large=",
        "security.capability=",
        "system.posix_acl_access=",
        " fifo ",
        " socket ",
        " 33:4 ",
        "4755",
        "mtime=-",
        "level-59/bottom",
    ] {
        assert!(lines.contains(part), "{part}");
    }
    assert!(lines.lines().count() > 3_100);
    Ok(())
}
