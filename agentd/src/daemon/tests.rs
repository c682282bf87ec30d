//! The daemon against a real controller, with a stand-in for the root half of the agent.

pub(super) mod fleet;

use std::time::Duration;

use model::{CommandId, Instant};
use protocol::{Command, CommandKind, Generation, PROTOCOL_VERSION, SigningKey};
use serde_json::json;

use super::*;
use fleet::{Cutter, Dice, Fleet, Server, eventually, record};

#[tokio::test]
async fn a_generation_is_fetched_applied_and_reported() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(run(server.places.clone()));
    local
        .run_until(async {
            let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                                  "destinations": ["local"]});
            let path = format!(
                "/api/v1/servers/{}/schedules",
                fleet.server_id("web1").await
            );
            assert_eq!(fleet.post(&path, &schedule).await.0, 201);
            eventually("the generation is in force", async || {
                let server = fleet.server("web1").await;
                server["generation"]["applied"] == 1 && server["online"] == true
            })
            .await;
            let server = fleet.server("web1").await;
            assert_eq!(server["generation"]["delivered"], 1);
            assert_eq!(server["generation"]["error"], json!(null));
        })
        .await;
    assert!(server.applied().contains("[schedule.nightly]"));
}

#[tokio::test]
async fn a_run_asked_for_now_ends_in_history() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(run(server.places.clone()));
    local
        .run_until(async {
            let id = fleet.server_id("web1").await;
            let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                                  "destinations": ["local"]});
            let path = format!("/api/v1/servers/{id}/schedules");
            assert_eq!(fleet.post(&path, &schedule).await.0, 201);
            let (status, begun) = fleet.post(&format!("{path}/nightly/run"), &json!({})).await;
            assert_eq!(status, 202, "{begun}");
            let operation = begun["operation"]["id"].as_str().unwrap().to_owned();
            eventually("the operation is done", async || {
                let shown = fleet.get(&format!("/api/v1/operations/{operation}")).await;
                shown["state"] == "done"
            })
            .await;
            let runs = fleet.get("/api/v1/runs").await;
            assert_eq!(runs["items"].as_array().unwrap().len(), 1);
            assert_eq!(runs["items"][0]["state"], "ok");

            let refresh = format!("{path}/nightly/snapshots/refresh");
            assert_eq!(fleet.post(&refresh, &json!({})).await.0, 202);
            eventually("the snapshots are listed", async || {
                let listed = fleet.get(&format!("{path}/nightly/snapshots")).await;
                listed["items"]
                    .as_array()
                    .is_some_and(|items| items.len() == 1)
            })
            .await;
        })
        .await;
    assert_eq!(server.words("start-job"), 1);
}

#[tokio::test]
async fn a_join_code_works_once() {
    let fleet = Fleet::start().await;
    let code = fleet.join_code("web1").await;
    let (first, second) = (Server::make(), Server::make());
    join_with(&first.places, &code, false).await.unwrap();
    let again = join_with(&first.places, &code, false).await.unwrap_err();
    assert!(matches!(again, JoinFailure::Joined { .. }), "{again}");
    let other = join_with(&second.places, &code, false).await.unwrap_err();
    let text = crate::log::chain(&other);
    assert!(text.contains("this join code was used already"), "{text}");
    let damaged = join_with(&second.places, "bsj1-abc", false)
        .await
        .unwrap_err();
    assert!(matches!(damaged, JoinFailure::Code(_)));
}

#[tokio::test]
async fn a_foreign_command_and_a_repeated_one_do_nothing() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let shared = server.open();
    let order = |agent, expires: Instant| Command {
        id: CommandId::from_bytes([9; 16]),
        agent,
        not_before: Instant::default(),
        expires_at: expires,
        kind: CommandKind::RunNow {
            schedule: "nightly".parse().unwrap(),
        },
    };
    let us = shared.identity.record.agent;
    let later = now().plus_secs(600);
    let stranger = SigningKey::from_seed(&[5; 32]);
    let controller = fleet.signing_key();
    assert!(!commands::take(&shared, &order(us, later).seal(&stranger)).unwrap());
    let other = order(stranger.public().agent_id(), later).seal(&controller);
    assert!(!commands::take(&shared, &other).unwrap());
    let late = order(us, Instant::from_secs(5)).seal(&controller);
    assert!(commands::take(&shared, &late).unwrap());
    assert_eq!(shared.said.take()[0].state, protocol::CommandState::Expired);
    assert!(shared.ledger.borrow().queued_commands().unwrap().is_empty());

    let good = order(us, later).seal(&controller);
    assert!(commands::take(&shared, &good).unwrap());
    commands::dispatch(&shared).await.unwrap();
    assert!(!commands::take(&shared, &good).unwrap());
    commands::dispatch(&shared).await.unwrap();
    assert_eq!(server.words("start-job"), 1);
}

#[tokio::test]
async fn a_generation_of_a_stranger_is_reported_and_not_handed_over() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let shared = server.open();
    let generation = Generation {
        protocol: PROTOCOL_VERSION,
        agent: shared.identity.record.agent,
        number: 7,
        issued_at: now(),
        previous: None,
        toml: String::new(),
    };
    let forged = generation.seal(&SigningKey::from_seed(&[5; 32]));
    assert!(!watch::take(&shared, &forged).await.unwrap());
    let said = shared.refused.borrow().clone().unwrap();
    assert_eq!(said.code.as_deref(), Some("wrong_key"));
    assert_eq!(server.words("apply"), 0);
}

/// Cuts connections after random bytes, ends deliveries at random instants, starts both sides
/// anew at random, and once puts an old copy of the controller's state back.
#[tokio::test]
async fn every_result_arrives_exactly_once() {
    const CUTS: u32 = 200;
    let seed = std::env::var("BACKSTAY_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_120);
    let mut dice = Dice::new(seed);
    let cutter = Cutter::open().await;
    let mut fleet = Fleet::start_behind(&cutter).await;
    cutter.lead_to(fleet.address());
    let server = fleet.join("web1").await;
    let mut shared = server.open();
    let mut made = 0_u32;
    let mut backup = None;
    for round in 0..CUTS {
        for _ in 0..dice.below(3) {
            made += 1;
            shared
                .ledger
                .borrow_mut()
                .begin_run(&fleet::start_of(made))
                .unwrap();
            shared
                .ledger
                .borrow_mut()
                .finish_run(&record(made))
                .unwrap();
        }
        cutter.allow(dice.below(9_000).into());
        let time = Duration::from_micros(u64::from(dice.below(60_000)));
        // It is cut in most rounds; whether it was does not matter.
        drop(tokio::time::timeout(time, deliver::deliver(&shared)).await);
        match dice.below(8) {
            0 => shared = server.open(),
            1 => {
                fleet = fleet.restart().await;
                cutter.lead_to(fleet.address());
            }
            _ => {}
        }
        match round {
            60 => backup = Some(fleet.backup()),
            140 => {
                fleet = fleet.restore(backup.take().unwrap()).await;
                cutter.lead_to(fleet.address());
            }
            _ => {}
        }
    }
    cutter.allow(u64::MAX);
    eventually("the outbox is empty", async || {
        // What the controller has is asked for anew, as after a start.
        shared.delivered.set(None);
        drop(deliver::deliver(&shared).await);
        shared.ledger.borrow().outbox_len().unwrap() == 0
    })
    .await;
    let mut expected: Vec<_> = (1..=made).map(|n| record(n).id.to_string()).collect();
    let mut arrived = fleet.run_ids().await;
    expected.sort();
    arrived.sort();
    assert_eq!(arrived, expected, "seed {seed}");
    assert!(
        made > 100 && cutter.cuts() > 20,
        "{made} rows, {} cuts",
        cutter.cuts()
    );
}

#[tokio::test]
async fn an_expired_order_leaves_no_other_order_behind() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let shared = server.open();
    let accept = |number: u8, expires_at: Instant| {
        let command = ledger::Command {
            id: CommandId::from_bytes([number; 16]),
            schedule: "nightly".parse().unwrap(),
            kind: "run_now".into(),
            body: "{}".into(),
            state: ledger::CommandState::Queued,
            accepted_at: Instant::from_secs(i64::from(number)),
            expires_at,
            outcome: None,
        };
        let mut ledger = shared.ledger.borrow_mut();
        ledger.accept_command(&command).unwrap();
        command.id
    };
    let late = accept(1, Instant::from_secs(5));
    let good = accept(2, now().plus_secs(600));
    commands::dispatch(&shared).await.unwrap();
    let state = |id| shared.ledger.borrow().command(id).unwrap().unwrap().state;
    assert_eq!(state(late), ledger::CommandState::Failed);
    assert_eq!(state(good), ledger::CommandState::Done);
    assert_eq!(server.words("start-job"), 1);
}

#[tokio::test]
async fn an_order_that_a_former_daemon_began_is_answered() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let shared = server.open();
    let command = ledger::Command {
        id: CommandId::from_bytes([1; 16]),
        schedule: "nightly".parse().unwrap(),
        kind: "run_now".into(),
        body: "{}".into(),
        state: ledger::CommandState::Queued,
        accepted_at: now(),
        expires_at: now().plus_secs(600),
        outcome: None,
    };
    let mut ledger = Ledger::open(&server.places.ledger()).unwrap();
    ledger.accept_command(&command).unwrap();
    ledger
        .take_command(&command.schedule, &["run_now"], now())
        .unwrap();
    drop(shared);
    let shared = server.open();
    let ended = shared.ledger.borrow().unreported_commands().unwrap();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].state, ledger::CommandState::Failed);
}

#[tokio::test]
async fn a_restore_keeps_its_signature_and_joining_pins_the_signer() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let shared = server.open();
    let pin = crate::pin::read(&shared.places.root).unwrap().unwrap();
    assert_eq!(pin.controller, fleet.signing_key().public());
    assert_eq!(pin.agent, shared.identity.record.agent);
    let order = Command {
        id: CommandId::from_bytes([9; 16]),
        agent: pin.agent,
        not_before: Instant::default(),
        expires_at: now().plus_secs(600),
        kind: CommandKind::Restore {
            schedule: "nightly".parse().unwrap(),
            snapshot: model::SnapshotId::from_bytes([5; 16]),
            destination: "local".parse().unwrap(),
            target: protocol::RestoreTarget::InPlace,
        },
    };
    let envelope = order.seal(&fleet.signing_key());
    assert!(commands::take(&shared, &envelope).unwrap());
    let kept = shared.ledger.borrow().queued_commands().unwrap();
    let body: serde_json::Value = serde_json::from_str(&kept[0].body).unwrap();
    let kept: protocol::Envelope = serde_json::from_value(body["envelope"].clone()).unwrap();
    assert_eq!(Command::verify(&kept, &pin.controller).unwrap(), order);
}

#[tokio::test]
async fn what_the_guard_forbids_a_controller_does_not_end_roots_own_restore() {
    let fleet = Fleet::start().await;
    let server = fleet.join("web1").await;
    let _apply = server.apply();
    let shared = server.open();
    std::fs::write(shared.places.root.join("forbids-restores"), "").unwrap();
    let accept = |number: u8, body: serde_json::Value| {
        let command = ledger::Command {
            id: CommandId::from_bytes([number; 16]),
            schedule: "nightly".parse().unwrap(),
            kind: "restore".into(),
            body: body.to_string(),
            state: ledger::CommandState::Queued,
            accepted_at: now(),
            expires_at: now().plus_secs(600),
            outcome: None,
        };
        let mut ledger = shared.ledger.borrow_mut();
        ledger.accept_command(&command).unwrap();
        command.id
    };
    let roots = accept(1, json!({}));
    let controllers = accept(2, json!({"envelope": {}}));
    commands::dispatch(&shared).await.unwrap();
    let state = |id| shared.ledger.borrow().command(id).unwrap().unwrap().state;
    assert_eq!(state(roots), ledger::CommandState::Queued);
    assert_eq!(state(controllers), ledger::CommandState::Failed);
}
