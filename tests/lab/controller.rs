//! A controller on a host, driven as people drive it: through its packages, its units and its API.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that it lacks gives null"
)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::fault::{Doing, Fault, Result};
use crate::host::Host;
use crate::packages::Package;
use crate::server::Server;

/// The name of the first user.
pub const USER: &str = "anna";
/// The password of the first user.
pub const PASSWORD: &str = "correct horse battery staple";
/// The port of API and dashboard.
pub const PORT: u16 = 8443;
/// How long an agent's watch is held; short, so that tests need not wait for what they cut.
pub const WATCH_SECS: u64 = 5;

const UP_MAX: Duration = Duration::from_secs(30);
const HEARD_MAX: Duration = Duration::from_secs(60);

/// A controller with its first user.
#[derive(Debug)]
pub struct Controller {
    /// The host that it runs on.
    pub host: Host,
}

impl Controller {
    /// Installs the controller on a host and makes the first user.
    ///
    /// # Errors
    ///
    /// When it does not start or refuses the user.
    pub fn set_up(host: Host) -> Result<Self> {
        let controller = Self::install(host)?;
        let token = controller.setup_token()?;
        let first = json!({ "token": token, "name": USER, "password": PASSWORD });
        controller.call("POST", "/api/v1/setup", Some(&first))?;
        Ok(controller)
    }

    /// Installs the controller on a host, without a user.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn install(host: Host) -> Result<Self> {
        let url = format!("https://{}:{PORT}", host.name());
        host.put(
            "/etc/backstay/controller.toml",
            format!("public_url = \"{url}\"\nwatch_secs = {WATCH_SECS}\n"),
        )?;
        host.install(&[Package::Controller])?;
        let controller = Self { host };
        controller.wait_up()?;
        Ok(controller)
    }

    /// Gives a fresh token for making the first user.
    ///
    /// # Errors
    ///
    /// When there is a user already.
    pub fn setup_token(&self) -> Result<String> {
        let url = self.host.sh("backstay-controller setup-token")?;
        let token = url.trim().split('#').nth(1).map(ToOwned::to_owned);
        token.doing(|| format!("reading the set-up address {url:?}"))
    }

    /// Stops it as an administrator would.
    ///
    /// # Errors
    ///
    /// When systemd cannot.
    pub fn stop(&self) -> Result<()> {
        self.host.sh("systemctl stop backstay-controller").map(drop)
    }

    /// Starts it again and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(&self) -> Result<()> {
        self.host.sh("systemctl start backstay-controller")?;
        self.wait_up()
    }

    /// Calls the API as the signed-in user; gives the answer, null when it has no body.
    ///
    /// # Errors
    ///
    /// When the answer is no success; the error holds it.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call_if(method, path, body, "")
    }

    /// Calls the API with one more header.
    fn call_if(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        header: &str,
    ) -> Result<Value> {
        // The body goes through a file: it may hold a password.
        let sent = match body {
            Some(body) => {
                self.host.put("/root/body.json", body.to_string())?;
                "--data-binary @/root/body.json -H 'Content-Type: application/json'"
            }
            None => "",
        };
        let answer = self.host.sh(&format!(
            "curl -sSk --max-time 60 -b /root/cookies -c /root/cookies -H 'X-Backstay: 1' -H '{header}' -X {method} {sent} \
             -w '\\n%{{http_code}}' 'https://127.0.0.1:{PORT}{path}'"
        ))?;
        let (text, code) = answer.rsplit_once('\n').unwrap_or(("", &answer));
        if !code.starts_with('2') {
            return Err(Fault::new(format!(
                "calling {method} {path}: {code} {text}"
            )));
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(text).doing(|| format!("reading the answer to {method} {path}"))
    }

    /// Gives the items of a list, from all its pages.
    ///
    /// # Errors
    ///
    /// As [`Controller::call`].
    pub fn items(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = self.call("GET", &format!("{path}{mark}{cursor}"), None)?;
            let found = page.get("items").and_then(Value::as_array);
            items.extend(found.into_iter().flatten().cloned());
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Makes a join code for a server of this name.
    ///
    /// # Errors
    ///
    /// As [`Controller::call`].
    pub fn join_code(&self, name: &str) -> Result<String> {
        let wanted = json!({ "server_name": name });
        let made = self.call("POST", "/api/v1/join-codes", Some(&wanted))?;
        let code = made.get("code").and_then(Value::as_str);
        code.map(ToOwned::to_owned)
            .doing(|| format!("reading the join code in {made}"))
    }

    /// Joins a server and waits until the controller hears from it; gives its id.
    ///
    /// # Errors
    ///
    /// When the server cannot join or is not heard.
    pub fn join(&self, server: &Server) -> Result<String> {
        let name = server.host.name();
        let code = self.join_code(name)?;
        server.join(&code)?;
        self.wait_online(name)
    }

    /// Waits until a server of this name is online; gives its id.
    ///
    /// # Errors
    ///
    /// When it is not in time.
    pub fn wait_online(&self, name: &str) -> Result<String> {
        let mut id = None;
        self.host
            .wait_until(&format!("{name} to be online"), HEARD_MAX, |_| {
                let servers = self.items("/api/v1/servers")?;
                let online = servers
                    .iter()
                    .find(|server| server["name"] == name && server["online"] == true);
                id = online.and_then(|server| server["id"].as_str().map(ToOwned::to_owned));
                Ok(id.is_some())
            })?;
        id.doing(|| format!("reading the id of {name}"))
    }

    /// Makes a schedule for a server and waits until its agent has applied it.
    ///
    /// # Errors
    ///
    /// When the controller or the agent refuses it.
    pub fn add_schedule(&self, server: &str, schedule: &Value) -> Result<()> {
        let path = format!("/api/v1/servers/{server}/schedules");
        self.call("POST", &path, Some(schedule))?;
        self.wait_applied(server)
    }

    /// Changes a schedule of a server and waits until its agent has applied it.
    ///
    /// # Errors
    ///
    /// When the controller or the agent refuses it.
    pub fn change_schedule(&self, server: &str, schedule: &Value) -> Result<()> {
        let name = schedule["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/servers/{server}/schedules/{name}");
        // What was looked at is changed, and nothing that somebody else changed since.
        let tag = self.host.sh(&format!(
            "curl -sSk --max-time 60 -b /root/cookies -o /dev/null -w '%header{{etag}}' 'https://127.0.0.1:{PORT}{path}'"
        ))?;
        self.call_if("PUT", &path, Some(schedule), &format!("If-Match: {tag}"))?;
        self.wait_applied(server)
    }

    /// Waits until a server has applied what was last saved for it.
    ///
    /// # Errors
    ///
    /// When the agent refuses it or takes too long.
    pub fn wait_applied(&self, server: &str) -> Result<()> {
        let path = format!("/api/v1/servers/{server}");
        self.host
            .wait_until("the generation to be applied", HEARD_MAX, |_| {
                let seen = self.call("GET", &path, None)?;
                let generation = &seen["generation"];
                if let Some(refusal) = generation["error"].as_str() {
                    return Err(Fault::new(format!("the agent refuses: {refusal}")));
                }
                Ok(generation["applied"] == generation["saved"])
            })
    }

    /// Waits until an operation has ended; gives its state and sentence.
    ///
    /// # Errors
    ///
    /// When it takes longer than `deadline`.
    pub fn wait_operation(&self, begun: &Value, deadline: Duration) -> Result<Value> {
        let id = begun["operation"]["id"].as_str();
        let id = id.doing(|| format!("reading the operation in {begun}"))?;
        let path = format!("/api/v1/operations/{id}");
        let mut last = Value::Null;
        self.host
            .wait_until(&format!("operation {id}"), deadline, |_| {
                last = self.call("GET", &path, None)?;
                let state = last["state"].as_str().unwrap_or_default();
                Ok(["done", "failed", "expired"].contains(&state))
            })?;
        Ok(last)
    }

    fn wait_up(&self) -> Result<()> {
        let probe = format!("curl -skf --max-time 5 https://127.0.0.1:{PORT}/healthz");
        self.host
            .wait_for(&probe, UP_MAX)
            .doing(|| self.host.journal("backstay-controller"))
    }
}
