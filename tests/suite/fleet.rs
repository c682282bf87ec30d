//! A controller and a server with something to back up, for the promises that need both.

use std::time::Duration;

use lab::{Controller, Host, Lab, Result, Server};
use serde_json::{Value, json};

/// How long one small run may take on a busy machine.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(120);

/// A controller, a server that joined it, and the server's id there.
pub(crate) struct Fleet {
    pub(crate) controller: Controller,
    pub(crate) server: Server,
    pub(crate) id: String,
}

impl Fleet {
    /// Boots both, joins them, and gives the server an account with a few files and a local destination.
    pub(crate) fn set_up(lab: &Lab) -> Result<Self> {
        let hosts = [lab.host("controller").create()?, lab.host("web").create()?];
        lab.up_all(&[&hosts[0], &hosts[1]])?;
        let [first, second] = hosts;
        let controller = Controller::set_up(first)?;
        let server = prepared(second)?;
        let id = controller.join(&server)?;
        Ok(Self {
            controller,
            server,
            id,
        })
    }

    /// Gives the finished runs of a schedule as the controller shows them, oldest first.
    pub(crate) fn shown_runs(&self, schedule: &str) -> Result<Vec<Value>> {
        let path = format!(
            "/api/v1/runs?server_id={}&schedule={schedule}&limit=100",
            self.id
        );
        let mut runs = self.controller.items(&path)?;
        runs.retain(|run| run["state"] != "running");
        runs.sort_by_key(|run| run["started_at"].as_str().unwrap().to_owned());
        Ok(runs)
    }
}

/// Installs a server with an account, a few files and a local destination.
pub(crate) fn prepared(host: Host) -> Result<Server> {
    let server = Server::install(host)?;
    server.host.sh(
        "useradd --create-home acme; install -d -o acme /home/acme/www; \
         for i in $(seq 50); do seq $((i * 100)) > /home/acme/www/page-$i; done; chown -R acme: /home/acme",
    )?;
    server.add_local("local", "/srv/backup")?;
    server.apply()?;
    Ok(server)
}

/// Gives a schedule of site trees to the local destination, as the API takes it.
pub(crate) fn schedule(name: &str, when: &str) -> Value {
    json!({ "name": name, "enabled": true, "scope": "web", "accounts": "all", "when": when,
            "destinations": ["local"], "keep": { "last": 7 }, "exclude": [] })
}

/// Gives the ids of runs, sorted.
pub(crate) fn ids(runs: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = runs
        .iter()
        .map(|run| run["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}
