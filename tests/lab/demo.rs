//! The demonstration: a WordPress site is backed up on its own timer while the controller is dead, damaged, and restored.

use std::thread;
use std::time::{Duration, Instant};

use lab::{Controller, Doing, Fault, Garage, Lab, Result, Server, Site, SiteState, controller};
use serde_json::{Value, json};

/// The next minute, and a backup.
const TIMER_MAX: Duration = Duration::from_secs(120);
const DELIVERY_MAX: Duration = Duration::from_secs(60);
const RESTORE_MAX: Duration = Duration::from_secs(120);
const SCHEDULE: &str = "minutely";

/// What happens after the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything is removed.
    Remove,
    /// Everything goes on until the process is ended.
    Keep,
}

/// Tells each step with the seconds since the beginning.
struct Teller {
    start: Instant,
}

impl Teller {
    fn say(&self, text: &str) {
        println!("[{:5.1} s] {text}", self.start.elapsed().as_secs_f64());
    }
}

/// What takes part: a controller, a server and its id there.
struct Stage {
    controller: Controller,
    server: Server,
    id: String,
    teller: Teller,
}

/// Shows the whole path; fails when anything did not hold.
pub(crate) fn show(ending: Ending) -> Result<()> {
    let teller = Teller {
        start: Instant::now(),
    };
    let lab = Lab::new()?;
    let stage = Stage::set_up(&lab, teller)?;
    let Stage {
        controller,
        server,
        teller,
        ..
    } = &stage;
    teller.say("web1: setting up a WordPress site with nginx, PHP-FPM and MariaDB");
    let site = Site::set_up(&server.host, "acme", "acme.example")?;
    server.init()?;
    let before = settled(&site, server)?;
    let run = stage.back_up()?;
    stage.restore(&run, &site, &before)?;
    teller.say("proved: page, files and database are what they were");
    if ending == Ending::Remove {
        return Ok(());
    }
    let address = controller
        .host
        .forward(controller::PORT, Some(controller::PORT))?;
    println!(
        "\nDashboard: https://{address}/  (its certificate is its own)\nName:      {}\nPassword:  {}\n\n\
         A shell on the server: backstay-lab shell web1. Ctrl-C ends and removes everything.",
        controller::USER,
        controller::PASSWORD
    );
    loop {
        thread::park();
    }
}

impl Stage {
    fn set_up(lab: &Lab, teller: Teller) -> Result<Self> {
        teller.say("booting three hosts: controller, web1 and an S3 store");
        let hosts = [
            lab.host("controller").create()?,
            lab.host("web1").create()?,
            lab.host("store").garage()?.create()?,
        ];
        lab.up_all(&hosts.each_ref())?;
        let [first, second, third] = hosts;
        teller.say("installing the packages");
        let controller = Controller::set_up(first)?;
        let server = Server::install(second)?;
        server.add_local("local", "/srv/backup")?;
        server.add_s3("offsite", &Garage::start_on(&third, "backups")?)?;
        server.apply()?;
        teller.say("joining web1 to the controller with a one-time code");
        let id = controller.join(&server)?;
        Ok(Self {
            controller,
            server,
            id,
            teller,
        })
    }

    /// Backs up with controller and agent stopped; gives the run as the controller shows it later.
    fn back_up(&self) -> Result<Value> {
        let Self {
            controller,
            server,
            id,
            teller,
        } = self;
        teller.say("controller: a schedule for every minute, to the server's disk and to S3");
        controller.add_schedule(id, &schedule("minutely"))?;
        teller.say("stopping controller and agent; only systemd's timer is left");
        controller.stop()?;
        server.host.sh("systemctl stop backstay-agentd")?;
        let known: Vec<Value> = run_ids(&server.history(SCHEDULE)?);
        let mut run = Value::Null;
        server.host.wait_until("a run by timer", TIMER_MAX, |_| {
            let runs = server.history(SCHEDULE)?;
            let found = runs
                .iter()
                .find(|run| !known.contains(&run["id"]) && run["state"] != "running");
            run = found.cloned().unwrap_or_default();
            Ok(found.is_some())
        })?;
        if run["state"] != "ok" {
            return Err(Fault::new(format!("the run did not end well: {run}")));
        }
        teller.say(&format!("the timer fired on its own: {}", summary(&run)));
        teller.say("starting both again");
        controller.start()?;
        server.host.sh("systemctl start backstay-agentd")?;
        let wanted = &run["id"];
        server
            .host
            .wait_until("the run in the history", DELIVERY_MAX, |_| {
                let shown = controller.items(&format!("/api/v1/runs?server_id={id}"))?;
                Ok(shown.iter().filter(|shown| shown["id"] == *wanted).count() == 1)
            })?;
        teller.say("the controller's history shows it, once");
        Ok(run)
    }

    fn restore(&self, run: &Value, site: &Site, before: &SiteState) -> Result<()> {
        let Self {
            controller,
            server,
            id,
            teller,
        } = self;
        controller.change_schedule(id, &schedule("daily 02:00"))?;
        teller.say("damaging the site: files deleted and changed, a table dropped, posts gone");
        site.damage(&server.host)?;
        if site
            .page(&server.host)
            .is_ok_and(|page| page == before.page)
        {
            return Err(Fault::new("the damage did not show"));
        }
        let copies = run["copies"].as_array();
        let offsite = copies
            .into_iter()
            .flatten()
            .find(|copy| copy["destination"] == "offsite");
        let snapshot = offsite
            .map(|copy| copy["snapshot"].clone())
            .doing(|| format!("finding the snapshot in {run}"))?;
        teller.say("restoring it from S3, asked for at the controller");
        let wanted = json!({ "schedule": SCHEDULE, "snapshot": snapshot, "destination": "offsite",
                         "target": "in_place", "confirm": server.host.name() });
        let begun = controller.call(
            "POST",
            &format!("/api/v1/servers/{id}/restores"),
            Some(&wanted),
        )?;
        let done = controller.wait_operation(&begun, RESTORE_MAX)?;
        if done["state"] != "done" {
            return Err(Fault::new(format!("the restore did not end well: {done}")));
        }
        let after = site.state(&server.host)?;
        let differences = before.differences(&after);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Fault::new(format!(
            "the restored site differs:\n{}",
            differences.join("\n")
        )))
    }
}

/// Gives the site's state once a visit changes nothing any more: WordPress writes some rows on the first ones.
fn settled(site: &Site, server: &Server) -> Result<SiteState> {
    let mut state = site.state(&server.host)?;
    lab::wait_until("the site to settle", DELIVERY_MAX, || {
        let next = site.state(&server.host)?;
        let is_settled = next == state;
        state = next;
        Ok(is_settled)
    })?;
    Ok(state)
}

fn schedule(when: &str) -> Value {
    json!({ "name": SCHEDULE, "enabled": true, "scope": "full", "accounts": "all", "when": when,
            "destinations": ["local", "offsite"], "keep": { "last": 7 }, "exclude": [] })
}

fn run_ids(runs: &[Value]) -> Vec<Value> {
    runs.iter().map(|run| run["id"].clone()).collect()
}

fn summary(run: &Value) -> &str {
    run["summary"].as_str().unwrap_or_default()
}
