//! A controller over real TLS, a browser and agents that speak to it.

use std::sync::atomic::{AtomicU64, Ordering};

use controller::{Config, Controller};
use protocol::{
    Host, JoinAnswer, JoinCode, JoinRecord, JoinRequest, Nonce, RequestProof, SignedParts,
    SigningKey,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) controller: Controller,
    pub(crate) http: reqwest::Client,
    pub(crate) cookie: String,
}

/// Starts a controller that has no user yet.
pub(crate) async fn fresh() -> World {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        public_url: Some("https://127.0.0.1:0".into()),
        state_dir: dir.path().to_owned(),
        watch_secs: 1,
        ..Config::default()
    };
    let controller = Controller::start(&config).await.unwrap();
    let http = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    World {
        dir,
        controller,
        http,
        cookie: String::new(),
    }
}

/// Starts a controller with a signed-in user.
pub(crate) async fn signed_in() -> World {
    let mut world = fresh().await;
    let body = json!({"token": world.token(), "name": "anna", "password": PASSWORD});
    let response = world.send("POST", "/api/v1/setup", Some(&body)).await;
    assert_eq!(response.status(), 201);
    world.cookie = cookie_of(&response);
    world
}

pub(crate) fn cookie_of(response: &Response) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

impl World {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.controller.address())
    }

    pub(crate) fn token(&self) -> String {
        let url = self.controller.setup_url().unwrap();
        url.split_once("/setup#").unwrap().1.to_owned()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.http
            .request(method, self.url(path))
            .header("x-backstay", "1")
            .header("cookie", &self.cookie)
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// Calls and gives status and JSON; null without a body.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        outcome(self.send(method, path, body).await).await
    }

    pub(crate) async fn join_code(&self, name: &str) -> JoinCode {
        let body = json!({"server_name": name});
        let (status, made) = self.call("POST", "/api/v1/join-codes", Some(&body)).await;
        assert_eq!(status, 201, "{made}");
        JoinCode::parse(made["code"].as_str().unwrap()).unwrap()
    }

    /// Shows a code as an agent does; gives status and body.
    pub(crate) async fn show_code(
        &self,
        code: &JoinCode,
        agent: &Agent,
    ) -> (u16, Value, JoinRequest) {
        let nonce = Nonce::from_bytes([1; 16]);
        let request = JoinRequest::new(code, &agent.key, nonce, Host::default());
        let body = serde_json::to_value(&request).unwrap();
        let (status, answer) = self.call("POST", "/agent/v1/join", Some(&body)).await;
        (status, answer, request)
    }

    /// Takes a server into the fleet; gives its agent and its id.
    pub(crate) async fn join(&self, name: &str, seed: u8) -> (Agent, String) {
        let code = self.join_code(name).await;
        let mut agent = Agent::new(seed);
        let (status, answer, request) = self.show_code(&code, &agent).await;
        assert_eq!(status, 200, "{answer}");
        let answer: JoinAnswer = serde_json::from_value(answer).unwrap();
        let seen = self.controller.certificate();
        agent.record = Some(answer.verify(&request, &code, &seen).unwrap());
        let (_, listed) = self.call("GET", "/api/v1/servers", None).await;
        let servers = listed["items"].as_array().unwrap();
        let server = servers
            .iter()
            .find(|server| server["name"] == name)
            .unwrap();
        (agent, server["id"].as_str().unwrap().to_owned())
    }
}

pub(crate) async fn outcome(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub(crate) struct Agent {
    pub(crate) key: SigningKey,
    pub(crate) record: Option<JoinRecord>,
    pub(crate) boot: u64,
    counter: AtomicU64,
}

impl Agent {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            key: SigningKey::from_seed(&[seed; 32]),
            record: None,
            boot: 1,
            counter: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self) -> &JoinRecord {
        self.record.as_ref().unwrap()
    }

    /// Signs a request; gives the header.
    pub(crate) fn sign(&self, method: &str, path: &str, body: &[u8]) -> String {
        let counter = self.counter.fetch_add(1, Ordering::SeqCst) + 1;
        let parts = SignedParts {
            method,
            path_and_query: path,
            body,
            controller: self.record().controller.hash(),
        };
        RequestProof::sign(&self.key, &parts, self.boot, counter, 0).header()
    }

    pub(crate) async fn call(
        &self,
        world: &World,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body).unwrap()
        };
        let header = self.sign(method, path, &body);
        self.send(world, method, path, (header, body)).await
    }

    pub(crate) async fn send(
        &self,
        world: &World,
        method: &str,
        path: &str,
        (header, body): (String, Vec<u8>),
    ) -> (u16, Value) {
        let request = world
            .http
            .request(method.parse().unwrap(), world.url(path))
            .header("authorization", header)
            .body(body);
        outcome(request.send().await.unwrap()).await
    }
}
