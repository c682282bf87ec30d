//! A controller, servers and a line between them that can be cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Moment};

use controller::{Config, Controller};
use ledger::{CommandState, Ledger, RunStart};
use model::{Instant, RunCounts, RunId, RunRecord, RunState, Scope, Trigger};
use protocol::control::{ApplyOutcome, ControlReply, ControlRequest, SystemStatus};
use protocol::{CertificateHash, Envelope, Generation, JoinRecord, SigningKey};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::super::client::{self, Pinned};
use super::super::{Places, Shared, identity, join_with};

const PASSWORD: &str = "correct horse battery";

/// Waits for a condition, at most half a minute.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Moment::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Moment::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Random numbers that a seed repeats.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // xorshift64*: George Marsaglia, "Xorshift RNGs", 2003.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        u32::try_from(high).unwrap() % bound
    }
}

/// A controller with a signed-in browser.
pub(super) struct Fleet {
    dir: tempfile::TempDir,
    config: Config,
    controller: Controller,
    browser: reqwest::Client,
    cookie: String,
}

impl Fleet {
    pub(super) async fn start() -> Self {
        Self::open(tempfile::tempdir().unwrap(), "https://127.0.0.1:0".into()).await
    }

    pub(super) async fn start_behind(cutter: &Cutter) -> Self {
        let url = format!("https://{}", cutter.address);
        Self::open(tempfile::tempdir().unwrap(), url).await
    }

    async fn open(dir: tempfile::TempDir, url: String) -> Self {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: Some(url),
            state_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let controller = Controller::start(&config).await.unwrap();
        let token = controller
            .setup_url()
            .unwrap()
            .split_once('#')
            .unwrap()
            .1
            .to_owned();
        let mut fleet = Self {
            browser: browser(controller.certificate()),
            dir,
            config,
            controller,
            cookie: String::new(),
        };
        let body = json!({"token": token, "name": "root", "password": PASSWORD});
        let response = fleet.send("POST", "/api/v1/setup", Some(&body)).await;
        assert_eq!(response.status(), 201);
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        fleet.cookie = cookie.split(';').next().unwrap().to_owned();
        fleet
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.controller.address()
    }

    /// Stops it and starts it on the same state, at another port.
    pub(super) async fn restart(self) -> Self {
        self.controller.stop().await;
        let controller = Controller::start(&self.config).await.unwrap();
        Self { controller, ..self }
    }

    /// Copies the state, as a backup program does while it is stopped.
    pub(super) fn backup(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let database = copy_state(self.dir.path(), copy.path());
        assert!(database > 0);
        copy
    }

    /// Puts a copy of the state back.
    pub(super) async fn restore(self, copy: tempfile::TempDir) -> Self {
        self.controller.stop().await;
        for end in ["", "-wal", "-shm"] {
            let name = format!("controller.db{end}");
            drop(std::fs::remove_file(self.dir.path().join(&name)));
        }
        copy_state(copy.path(), self.dir.path());
        let controller = Controller::start(&self.config).await.unwrap();
        Self { controller, ..self }
    }

    pub(super) fn signing_key(&self) -> SigningKey {
        let seed = std::fs::read(self.dir.path().join("signing.key")).unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Response {
        let url = format!("https://{}{path}", self.address());
        let mut request = self
            .browser
            .request(method.parse().unwrap(), url)
            .header("x-backstay", "1")
            .header("sec-fetch-site", "same-origin")
            .header("cookie", &self.cookie);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let response = self.send("GET", path, None).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send("POST", path, Some(body)).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(super) async fn join_code(&self, name: &str) -> String {
        let (status, made) = self
            .post("/api/v1/join-codes", &json!({"server_name": name}))
            .await;
        assert_eq!(status, 201, "{made}");
        made["code"].as_str().unwrap().to_owned()
    }

    pub(super) async fn join(&self, name: &str) -> Server {
        let server = Server::make();
        let code = self.join_code(name).await;
        join_with(&server.places, &code, false).await.unwrap();
        server
    }

    pub(super) async fn server(&self, name: &str) -> Value {
        let listed = self.get("/api/v1/servers").await;
        let items = listed["items"].as_array().unwrap();
        items
            .iter()
            .find(|server| server["name"] == name)
            .unwrap()
            .clone()
    }

    pub(super) async fn server_id(&self, name: &str) -> String {
        self.server(name).await["id"].as_str().unwrap().to_owned()
    }

    /// Gives the id of every run in the history, page by page.
    pub(super) async fn run_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/runs?limit=7{cursor}")).await;
            let items = page["items"].as_array().unwrap();
            ids.extend(
                items
                    .iter()
                    .map(|run| run["id"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    }
}

/// Copies the database files as they are; gives the bytes of the database.
fn copy_state(from: &Path, to: &Path) -> u64 {
    let copied = std::fs::copy(from.join("controller.db"), to.join("controller.db")).unwrap();
    if from.join("controller.db-wal").exists() {
        std::fs::copy(from.join("controller.db-wal"), to.join("controller.db-wal")).unwrap();
    }
    copied
}

fn browser(certificate: CertificateHash) -> reqwest::Client {
    client::http(Arc::new(Pinned::new(Some(certificate)))).unwrap()
}

/// A server: its files, and what its root half was told.
pub(super) struct Server {
    _dir: tempfile::TempDir,
    root: PathBuf,
    pub(super) places: Places,
    told: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for path in ["identity", "inbox", "ledger", "generations"] {
            std::fs::create_dir_all(root.join("var/lib/backstay").join(path)).unwrap();
        }
        std::fs::create_dir_all(root.join("run/backstay")).unwrap();
        std::fs::create_dir_all(root.join("etc/backstay")).unwrap();
        Self {
            _dir: dir,
            places: Places::below(&root),
            root,
            told: Arc::default(),
        }
    }

    /// Opens the daemon's state, as a start of the daemon does.
    pub(super) fn open(&self) -> Shared {
        let identity = identity::Identity::read(&self.places.state("identity"))
            .unwrap()
            .unwrap();
        Shared::open(self.places.clone(), identity).unwrap()
    }

    /// Counts how often the root half was told a word.
    pub(super) fn words(&self, word: &str) -> usize {
        let told = self.told.lock().unwrap();
        told.iter()
            .filter(|line| line.contains(&format!("\"word\":\"{word}\"")))
            .count()
    }

    /// Gives the text of the generation in force.
    pub(super) fn applied(&self) -> String {
        std::fs::read_to_string(self.root.join("applied.toml")).unwrap_or_default()
    }

    /// Stands in for the root half until it is dropped.
    pub(super) fn apply(&self) -> tokio::task::AbortHandle {
        let listener = UnixListener::bind(self.places.apply_socket()).unwrap();
        let (root, places) = (self.root.clone(), self.places.clone());
        let told = Arc::clone(&self.told);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &root, &places, &told).await;
            }
        })
        .abort_handle()
    }
}

async fn answer(stream: UnixStream, root: &Path, places: &Places, told: &Mutex<Vec<String>>) {
    let mut line = String::new();
    let mut stream = BufReader::new(stream);
    stream.read_line(&mut line).await.unwrap();
    let request: ControlRequest = serde_json::from_str(&line).unwrap();
    told.lock().unwrap().push(line);
    let reply = match request {
        ControlRequest::Apply { .. } => take_generation(root, places),
        ControlRequest::Reconcile {} => ControlReply::Applied(ApplyOutcome::default()),
        ControlRequest::Status {} => ControlReply::Status(status(root)),
        ControlRequest::StartJob { .. } => {
            let mut ledger = Ledger::open(&places.ledger()).unwrap();
            ledger.begin_run(&start_of(1)).unwrap();
            ledger.finish_run(&record(1)).unwrap();
            started("job")
        }
        ControlRequest::StartBrowse { name } => {
            let mut ledger = Ledger::open(&places.ledger()).unwrap();
            let kinds = ["list_snapshots"];
            let command = ledger
                .take_command(&name, &kinds, Instant::default())
                .unwrap()
                .unwrap();
            let row = json!({"id": "ab".repeat(16), "destination": "local", "run": null,
                             "taken_at": "2026-01-01T00:00:00Z", "is_complete": true,
                             "entries": 1, "bytes": 2});
            let outcome = json!({"snapshots": [row]}).to_string();
            let done = CommandState::Done;
            ledger
                .finish_command(command.id, done, &outcome, Instant::default())
                .unwrap();
            started("browse")
        }
        ControlRequest::StartRestore { .. } if root.join("forbids-restores").exists() => {
            ControlReply::Failed {
                code: "not_allowed".into(),
                message: "guard.toml does not allow it".into(),
                problems: Vec::new(),
            }
        }
        ControlRequest::StartRestore { .. } => started("restore"),
    };
    let mut text = serde_json::to_vec(&reply).unwrap();
    text.push(b'\n');
    stream.write_all(&text).await.unwrap();
}

fn started(what: &str) -> ControlReply {
    ControlReply::Started {
        unit: format!("backstay-{what}@nightly.service"),
    }
}

fn take_generation(root: &Path, places: &Places) -> ControlReply {
    let record = std::fs::read(places.state("identity").join("join.json")).unwrap();
    let record: JoinRecord = serde_json::from_slice(&record).unwrap();
    let mut outcome = ApplyOutcome::default();
    for entry in std::fs::read_dir(places.state("inbox")).unwrap().flatten() {
        let envelope = Envelope::parse(&std::fs::read(entry.path()).unwrap()).unwrap();
        let (generation, _) =
            Generation::accept(&envelope, &record.controller, record.agent, None).unwrap();
        outcome.generation = Some(generation.number);
        std::fs::write(root.join("applied"), generation.number.to_string()).unwrap();
        std::fs::write(root.join("applied.toml"), generation.toml).unwrap();
        std::fs::remove_file(entry.path()).unwrap();
    }
    ControlReply::Applied(outcome)
}

fn status(root: &Path) -> SystemStatus {
    let applied = std::fs::read_to_string(root.join("applied")).ok();
    SystemStatus {
        at: Instant::default(),
        generation: applied.and_then(|text| text.parse().ok()),
        generation_hash: None,
        refused: None,
        problems: Vec::new(),
        timers: Vec::new(),
        drift: Vec::new(),
        repaired: Vec::new(),
    }
}

fn run_id(number: u32) -> RunId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    RunId::from_bytes(bytes)
}

/// The beginning of run `number`.
pub(in crate::daemon) fn start_of(number: u32) -> RunStart {
    let record = record(number);
    RunStart {
        id: record.id,
        schedule: record.schedule,
        scope: record.scope,
        trigger: record.trigger,
        due_at: None,
        started_at: record.started_at,
    }
}

/// The record of run `number`; it ended just now.
pub(in crate::daemon) fn record(number: u32) -> RunRecord {
    RunRecord {
        id: run_id(number),
        schedule: "nightly".parse().unwrap(),
        scope: Scope::Web,
        trigger: Trigger::Request,
        due_at: None,
        started_at: Instant::from_secs(1_700_000_000 + i64::from(number)),
        finished_at: Some(super::super::now()),
        state: RunState::Ok,
        summary: "stored".into(),
        counts: RunCounts::default(),
        copies: Vec::new(),
        log: vec!["a line of the log, long enough to make some bytes".repeat(20)],
    }
}

/// A line that forwards to the controller, and ends connections after so many bytes.
pub(super) struct Cutter {
    pub(super) address: SocketAddr,
    state: Arc<CutterState>,
}

struct CutterState {
    to: Mutex<Option<SocketAddr>>,
    left: AtomicU64,
    cuts: AtomicU32,
}

impl Cutter {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(CutterState {
            to: Mutex::new(None),
            left: AtomicU64::new(u64::MAX),
            cuts: AtomicU32::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { forward(near, &state).await });
            }
        });
        Self { address, state }
    }

    pub(super) fn lead_to(&self, address: SocketAddr) {
        *self.state.to.lock().unwrap() = Some(address);
    }

    /// Lets so many more bytes through, both ways together.
    pub(super) fn allow(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::SeqCst);
    }

    pub(super) fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

async fn forward(near: TcpStream, state: &CutterState) {
    let to = state.to.lock().unwrap().unwrap();
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pump(near_read, far_write, state) => {}
        () = pump(far_read, near_write, state) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: &CutterState,
) {
    let mut buffer = vec![0; 2048];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let left = state.left.load(Ordering::SeqCst);
        let allowed = left.min(length as u64);
        state.left.store(left - allowed, Ordering::SeqCst);
        let allowed = usize::try_from(allowed).unwrap();
        let written = to.write_all(&buffer[..allowed]).await;
        if allowed < length {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if written.is_err() {
            return;
        }
    }
}
