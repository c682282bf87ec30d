//! What agents may do, over real TLS: nothing twice, nothing for another, nothing unsigned.

use crate::support::{Agent, World, signed_in};
use model::{Instant, RunCounts, RunId, RunRecord, RunState, Scope, Trigger};
use protocol::{Batch, Command, Generation, Row, Watch};
use serde_json::{Value, json};

fn record(number: u8) -> RunRecord {
    RunRecord {
        id: RunId::from_bytes([number; 16]),
        schedule: "nightly".parse().unwrap(),
        scope: Scope::Web,
        trigger: Trigger::Timer,
        due_at: None,
        started_at: Instant::from_secs(1_700_000_000 + i64::from(number)),
        finished_at: Some(Instant::from_secs(1_700_000_100)),
        state: RunState::Ok,
        summary: "stored".into(),
        counts: RunCounts::default(),
        copies: Vec::new(),
        log: vec!["begun".into(), "ended".into()],
    }
}

fn batch(after: i64, rows: &[(i64, u8)]) -> Value {
    let rows = rows.iter().map(|(seq, number)| Row {
        seq: *seq,
        record: record(*number),
    });
    serde_json::to_value(Batch {
        stream: "s".into(),
        after,
        rows: rows.collect(),
    })
    .unwrap()
}

async fn deliver(world: &World, agent: &Agent, batch: &Value) -> Value {
    let (status, answer) = agent.call(world, "POST", "/agent/v1/results", batch).await;
    assert_eq!(status, 200, "{answer}");
    answer["acknowledged"].clone()
}

async fn run_count(world: &World) -> usize {
    let (_, runs) = world.call("GET", "/api/v1/runs", None).await;
    runs["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_row_is_kept_once_whatever_is_sent_again() {
    let world = signed_in().await;
    let (agent, _) = world.join("web1", 2).await;
    let first = batch(0, &[(1, 1), (2, 2)]);
    assert_eq!(deliver(&world, &agent, &first).await, 2);
    // The answer was lost: the agent sends the same again.
    assert_eq!(deliver(&world, &agent, &first).await, 2);
    // A batch from the future is not taken: a row in between would be lost.
    assert_eq!(deliver(&world, &agent, &batch(5, &[(6, 6)])).await, 2);
    // Numbers may leave gaps.
    assert_eq!(
        deliver(&world, &agent, &batch(2, &[(4, 3), (9, 4)])).await,
        9
    );
    // A known run under a new number changes nothing.
    assert_eq!(deliver(&world, &agent, &batch(9, &[(10, 1)])).await, 10);
    assert_eq!(run_count(&world).await, 4);
    let unordered = batch(10, &[(12, 7), (11, 8)]);
    let (status, _) = agent
        .call(&world, "POST", "/agent/v1/results", &unordered)
        .await;
    assert_eq!((status, run_count(&world).await), (422, 4));

    let id = RunId::from_bytes([3; 16]);
    let (status, shown) = world.call("GET", &format!("/api/v1/runs/{id}"), None).await;
    assert_eq!((status, &shown["log"]), (200, &json!(["begun", "ended"])));
    assert_eq!(shown["server"]["name"], "web1");
}

#[tokio::test]
async fn requests_that_are_not_the_agents_own_are_refused() {
    let world = signed_in().await;
    let (agent, _) = world.join("web1", 2).await;
    let (path, body) = ("/agent/v1/progress", br#"{"tasks":[]}"#.to_vec());
    let refused = async |header: String, body: Vec<u8>| {
        let (status, problem) = agent.send(&world, "POST", path, (header, body)).await;
        (
            status,
            problem["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let header = agent.sign("POST", path, &body);
    assert_eq!(refused(header.clone(), body.clone()).await.0, 204);
    assert_eq!(
        refused(header, body.clone()).await,
        (409, "replayed".into())
    );
    let header = agent.sign("POST", path, &body);
    let other_body = br#"{"tasks": []}"#.to_vec();
    assert_eq!(
        refused(header, other_body).await,
        (401, "wrong_signature".into())
    );
    let header = agent.sign("POST", "/agent/v1/report", &body);
    assert_eq!(
        refused(header, body.clone()).await,
        (401, "wrong_signature".into())
    );
    assert_eq!(
        refused("Bearer x".into(), body.clone()).await,
        (401, "no_signature".into())
    );
    let mut stranger = Agent::new(9);
    stranger.record.clone_from(&agent.record);
    let header = stranger.sign("POST", path, &body);
    assert_eq!(refused(header, body).await, (401, "unknown_agent".into()));
}

#[tokio::test]
async fn an_older_start_of_an_agent_is_told_the_number_to_beat() {
    let world = signed_in().await;
    let (mut agent, _) = world.join("web1", 2).await;
    let body = json!({"tasks": []});
    agent.boot = 70;
    assert_eq!(
        agent
            .call(&world, "POST", "/agent/v1/progress", &body)
            .await
            .0,
        204
    );
    agent.boot = 69;
    let (status, problem) = agent
        .call(&world, "POST", "/agent/v1/progress", &body)
        .await;
    assert_eq!(
        (status, &problem["code"], &problem["boot"]),
        (409, &json!("stale_boot"), &json!(70))
    );
}

#[tokio::test]
async fn used_expired_and_unknown_codes_are_told_apart() {
    let world = signed_in().await;
    let code = world.join_code("web1").await;
    let (first, second) = (Agent::new(2), Agent::new(3));
    assert_eq!(world.show_code(&code, &first).await.0, 200);
    // The answer was lost: the same agent may ask again.
    assert_eq!(world.show_code(&code, &first).await.0, 200);
    let (status, problem, _) = world.show_code(&code, &second).await;
    assert_eq!((status, &problem["code"]), (410, &json!("code_used")));

    let old = world.join_code("web2").await;
    let state = rusqlite::Connection::open(world.dir.path().join("controller.db")).unwrap();
    state
        .execute(
            "UPDATE join_code SET expires_at = 5 WHERE used_by IS NULL",
            [],
        )
        .unwrap();
    let (status, problem, _) = world.show_code(&old, &second).await;
    assert_eq!((status, &problem["code"]), (410, &json!("code_expired")));

    let hash = world.join_code("web3").await.controller();
    let guessed = protocol::JoinCode::new([0; 16], hash, "x:1".into()).unwrap();
    let (status, problem, _) = world.show_code(&guessed, &second).await;
    assert_eq!((status, &problem["code"]), (401, &json!("unknown_code")));
}

#[tokio::test]
async fn each_change_is_a_signed_generation_for_one_agent() {
    let world = signed_in().await;
    let (agent, id) = world.join("web1", 2).await;
    let (other, _) = world.join("web2", 3).await;
    let watch = async |agent: &Agent, seen: u64| {
        let path = format!("/agent/v1/watch?seen={seen}&stream=s");
        let (status, answer) = agent.call(&world, "GET", &path, &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value::<Watch>(answer).unwrap()
    };
    assert!(watch(&agent, 0).await.generation.is_none());
    let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                          "destinations": ["local"]});
    let path = format!("/api/v1/servers/{id}/schedules");
    // The poll that waits is answered by the change.
    let (held, made) = tokio::join!(watch(&agent, 0), world.call("POST", &path, Some(&schedule)));
    assert_eq!(made.0, 201);
    let envelope = held.generation.unwrap();
    let record = agent.record();
    let (generation, hash) =
        Generation::accept(&envelope, &record.controller, record.agent, None).unwrap();
    assert_eq!(generation.number, 1);
    assert!(generation.toml.contains("[schedule.nightly]"));
    let foreign = other.record().agent;
    let refusal = Generation::accept(&envelope, &record.controller, foreign, None).unwrap_err();
    assert_eq!(refusal.code(), "other_agent");
    assert!(watch(&agent, 1).await.generation.is_none());
    assert!(watch(&other, 0).await.generation.is_none());

    // This state was restored from an older backup: the numbers go on behind the agent's.
    let envelope = watch(&agent, 60).await.generation.unwrap();
    let (generation, _) = Generation::accept(
        &envelope,
        &record.controller,
        record.agent,
        Some((60, hash)),
    )
    .unwrap();
    assert_eq!(generation.number, 61);
}

#[tokio::test]
async fn an_order_is_signed_delivered_and_followed_to_its_end() {
    let world = signed_in().await;
    let (agent, id) = world.join("web1", 2).await;
    let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                          "destinations": ["local"]});
    let path = format!("/api/v1/servers/{id}/schedules");
    assert_eq!(world.call("POST", &path, Some(&schedule)).await.0, 201);
    let restore = |confirm: &str| {
        json!({"schedule": "nightly", "snapshot": "ab".repeat(16), "destination": "local",
               "target": {"directory": "/srv/restored"}, "confirm": confirm})
    };
    let restores = format!("/api/v1/servers/{id}/restores");
    let (status, problem) = world.call("POST", &restores, Some(&restore("web2"))).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/confirm"))
    );
    let (status, begun) = world.call("POST", &restores, Some(&restore("web1"))).await;
    assert_eq!(
        (status, &begun["operation"]["state"]),
        (202, &json!("requested"))
    );

    let watch = "/agent/v1/watch?seen=1&stream=s";
    let (_, answer) = agent.call(&world, "GET", watch, &Value::Null).await;
    let watch: Watch = serde_json::from_value(answer).unwrap();
    let [envelope] = watch.commands.as_slice() else {
        panic!("one command is expected");
    };
    let record = agent.record();
    let command = Command::verify(envelope, &record.controller).unwrap();
    assert_eq!(command.agent, record.agent);
    let operation = format!("/api/v1/operations/{}", command.id);
    for (told, shown) in [
        ("accepted", "accepted"),
        ("running", "running"),
        ("accepted", "running"),
        ("done", "done"),
        ("running", "done"),
    ] {
        let report = json!({"commands": [{"id": command.id, "state": told}]});
        let (status, problem) = agent
            .call(&world, "POST", "/agent/v1/report", &report)
            .await;
        assert_eq!(status, 204, "{problem}");
        assert_eq!(world.call("GET", &operation, None).await.1["state"], shown);
    }
    let (_, tasks) = world.call("GET", "/api/v1/tasks", None).await;
    assert_eq!(tasks["items"], json!([]));
}

#[tokio::test]
async fn a_run_now_ends_with_the_record_of_its_run() {
    let world = signed_in().await;
    let (agent, id) = world.join("web1", 2).await;
    let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                          "destinations": ["local"]});
    let path = format!("/api/v1/servers/{id}/schedules");
    assert_eq!(world.call("POST", &path, Some(&schedule)).await.0, 201);
    let run = format!("{path}/nightly/run");
    let (status, begun) = world.call("POST", &run, Some(&json!({}))).await;
    assert_eq!(status, 202, "{begun}");
    let operation = format!(
        "/api/v1/operations/{}",
        begun["operation"]["id"].as_str().unwrap()
    );
    // A run that ended before the request does not answer it.
    assert_eq!(deliver(&world, &agent, &batch(0, &[(1, 1)])).await, 1);
    assert_eq!(
        world.call("GET", &operation, None).await.1["state"],
        "requested"
    );
    let mut fresh: Value = batch(1, &[(2, 2)]);
    fresh["rows"][0]["record"]["finished_at"] = json!("2100-01-01T00:00:00Z");
    assert_eq!(deliver(&world, &agent, &fresh).await, 2);
    let (_, shown) = world.call("GET", &operation, None).await;
    assert_eq!(
        (&shown["state"], &shown["run_id"]),
        (&json!("done"), &json!("02".repeat(16)))
    );
}

#[tokio::test]
async fn a_removed_server_is_strange_at_once() {
    let world = signed_in().await;
    let (agent, id) = world.join("web1", 2).await;
    let body = json!({"tasks": []});
    assert_eq!(
        agent
            .call(&world, "POST", "/agent/v1/progress", &body)
            .await
            .0,
        204
    );
    let (_, server) = world
        .call("GET", &format!("/api/v1/servers/{id}"), None)
        .await;
    assert_eq!(server["online"], true);
    assert_eq!(
        world
            .call("DELETE", &format!("/api/v1/servers/{id}"), None)
            .await
            .0,
        204
    );
    let (status, problem) = agent
        .call(&world, "POST", "/agent/v1/progress", &body)
        .await;
    assert_eq!((status, &problem["code"]), (401, &json!("unknown_agent")));
}
