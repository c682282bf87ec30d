//! The agents' side of the API: join, watch, results, progress, report (`docs/protocol.md`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use axum::extract::{ConnectInfo, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::{Extension, Json};
use model::{CommandId, ScheduleName};
use protocol::{
    Batch, Envelope, JoinAnswer, JoinRecord, JoinRequest, PROTOCOL_VERSION, ProgressReport, Report,
    RequestProof, ResultsAnswer, SignedParts, Watch,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::Body;
use crate::live::{Counted, Line, TaskChange};
use crate::problem::Problem;
use crate::server::{App, stopped};
use crate::store::{self, Issuer, Server};

fn refused(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}

/// Finds out which agent made a request: signature first, then the replay window.
pub(crate) async fn authenticate(app: &App, parts: &Parts, body: &[u8]) -> Result<Server, Problem> {
    let header = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let proof =
        RequestProof::parse(header).map_err(|error| refused("no_signature", &error.to_string()))?;
    let agent = proof.agent;
    let server = app
        .store
        .glance(|c| store::server_by_agent(c, agent))?
        .ok_or_else(|| refused("unknown_agent", "this agent is not in the fleet"))?;
    let signed = SignedParts {
        method: parts.method.as_str(),
        path_and_query: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        body,
        controller: app.identity.key.public().hash(),
    };
    proof
        .verify(&server.key, &signed)
        .map_err(|error| refused("wrong_signature", &error.to_string()))?;
    count(app, &server, &proof).await?;
    if let Some(line) = parts.extensions.get::<Line>() {
        line.hold(&app.live, &server.id);
    }
    if app.live.seen(&server.id, Moment::now(), crate::now()) {
        app.events.send(
            "server.status",
            json!({"server_id": server.id, "online": true}),
        );
    }
    Ok(server)
}

async fn count(app: &App, server: &Server, proof: &RequestProof) -> Result<(), Problem> {
    let counted = || {
        app.live
            .count(&server.id, server.boot, proof.boot, proof.counter)
    };
    let mut verdict = counted();
    if verdict == Counted::NewBoot {
        let (id, boot) = (server.id.clone(), proof.boot);
        app.store
            .write(move |c| store::set_boot(c, &id, boot))
            .await?;
        app.live.begin_boot(&server.id, boot);
        verdict = counted();
    }
    match verdict {
        Counted::Fresh => Ok(()),
        Counted::StaleBoot { known } => {
            let mut problem =
                Problem::conflict("stale_boot", "take a boot number higher than the known one");
            problem.boot = Some(known);
            Err(problem)
        }
        Counted::NewBoot | Counted::Replayed => {
            Err(Problem::conflict("replayed", "this request came before"))
        }
    }
}

/// The answer to `GET /agent/v1/join`.
#[derive(Debug, Serialize)]
pub(crate) struct Greeting {
    protocol: u32,
    key: protocol::PublicKey,
}

/// Says who the controller is, before an agent says anything.
pub(crate) async fn greet(State(app): State<App>) -> Json<Greeting> {
    Json(Greeting {
        protocol: PROTOCOL_VERSION,
        key: app.identity.key.public(),
    })
}

/// Takes an agent into the fleet.
pub(crate) async fn join(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(request): Body<JoinRequest>,
) -> Result<Json<JoinAnswer>, Problem> {
    if let Some(wait) = app.throttle.delay(peer.ip(), "", Moment::now()) {
        return Err(Problem::too_many(
            wait.as_secs() + 1,
            "too many failed attempts to join",
        ));
    }
    let failed = |problem| {
        app.throttle.failed(peer.ip(), "", Moment::now());
        problem
    };
    let id = *request.code_id();
    let code = app
        .store
        .read(move |c| store::join_code(c, &id))
        .await?
        .ok_or_else(|| {
            failed(refused(
                "unknown_code",
                "this join code is not known; make a fresh one",
            ))
        })?;
    request
        .verify(&code.key, app.identity.key.public().hash())
        .map_err(|error| failed(refused("wrong_proof", &error.to_string())))?;
    let agent = request.key;
    if code
        .used_by
        .as_deref()
        .is_some_and(|key| key != agent.as_bytes())
    {
        tracing::warn!(%peer, server = %code.server_name, "a used join code was shown by another agent");
        let detail = "this join code was used already; make a fresh one";
        return Err(failed(Problem::new(StatusCode::GONE, "code_used", detail)));
    }
    if code.expires_at <= crate::now() {
        let detail = "this join code has expired; make a fresh one";
        return Err(Problem::new(StatusCode::GONE, "code_expired", detail));
    }
    let record = JoinRecord {
        protocol: PROTOCOL_VERSION,
        agent: agent.agent_id(),
        server_name: code.server_name.clone(),
        controller: app.identity.key.public(),
        host: app.host.to_string(),
        certificate: app.identity.certificate,
        joined_at: crate::now(),
    };
    let answer = JoinAnswer::new(&request, &code.key, &app.identity.key, &record);
    let server_id = crate::api::new_id("srv")?;
    app.store
        .write(move |c| store::redeem(c, &code, &server_id, &agent, &request.host))
        .await?;
    tracing::info!(server = %record.server_name, agent = %record.agent, %peer, "an agent joined");
    app.events
        .send("server.status", json!({"server_name": record.server_name}));
    Ok(Json(answer))
}

/// What an agent has when it begins to wait.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchQuery {
    /// The highest number of a generation that it fetched.
    #[serde(default)]
    seen: u64,
    /// Its outbox stream.
    #[serde(default)]
    stream: String,
    /// How long it wants to wait at most, in seconds.
    wait: Option<u32>,
}

/// Answers when there is something for the agent, or when the time is over.
pub(crate) async fn watch(
    State(app): State<App>,
    Extension(server): Extension<Arc<Server>>,
    Query(query): Query<WatchQuery>,
) -> Result<Json<Watch>, Problem> {
    let wait_secs = query.wait.unwrap_or(app.watch_secs).min(app.watch_secs);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait_secs.into());
    let bell = app.live.bell(&server.id);
    let mut stopping = app.stopping.clone();
    loop {
        // Listen before looking, so that nothing is missed in between.
        let rung = bell.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        let mut found = look(&app, &server, &query).await?;
        if found.generation.is_some() || !found.commands.is_empty() {
            return Ok(Json(found));
        }
        tokio::select! {
            () = rung => {}
            () = tokio::time::sleep_until(deadline) => return Ok(Json(found)),
            () = stopped(&mut stopping) => {
                // Come back when the controller is up again, spread over some seconds.
                found.wait_secs = 0;
                return Ok(Json(found));
            }
        }
    }
}

async fn look(app: &App, server: &Arc<Server>, query: &WatchQuery) -> Result<Watch, Problem> {
    let (id, stream, seen) = (&server.id, &query.stream, query.seen);
    let (saved, delivered, generation, commands, last_seq) = app
        .store
        .glance(|c| {
            let server = store::server(c, id)?;
            Ok((
                server.generation_saved,
                server.generation_delivered,
                store::newer_generation(c, id, seen)?,
                store::pending_envelopes(c, id, crate::now())?,
                store::last_seq(c, id, stream)?,
            ))
        })
        .map_err(|problem| match problem.code {
            "not_found" => refused("unknown_agent", "this server was removed from the fleet"),
            _ => problem,
        })?;
    let generation = if seen > saved {
        tracing::warn!(server = %server.name, seen, saved, "the agent has a newer generation than this state; continuing behind it");
        Some(renumbered(app, server, seen).await?)
    } else {
        generation
    };
    if let Some((number, _)) = generation
        && number != delivered
    {
        let id = server.id.clone();
        app.store
            .write(move |c| store::mark_delivered(c, &id, number))
            .await?;
        app.events
            .send("server.status", json!({"server_id": server.id}));
    }
    Ok(Watch {
        protocol: PROTOCOL_VERSION,
        generation: generation.map(|(_, envelope)| envelope),
        commands,
        last_seq,
        wait_secs: app.watch_secs,
    })
}

async fn renumbered(app: &App, server: &Server, seen: u64) -> Result<(u64, Envelope), Problem> {
    let issuer = issuer(app, server);
    app.store
        .write(move |c| {
            store::renumber(c, &issuer, seen)?;
            store::newer_generation(c, &issuer.server_id, seen)?
                .ok_or_else(|| Problem::not_found("generation"))
        })
        .await
}

/// Gives what is needed to sign for a server.
pub(crate) fn issuer(app: &App, server: &Server) -> Issuer {
    Issuer {
        server_id: server.id.clone(),
        agent: server.agent,
        key: app.identity.key.clone(),
    }
}

/// Takes run records and says up to which number they are on disk.
pub(crate) async fn results(
    State(app): State<App>,
    Extension(server): Extension<Arc<Server>>,
    Body(batch): Body<Batch>,
) -> Result<Json<ResultsAnswer>, Problem> {
    if batch.rows.len() > protocol::BATCH_ROWS_MAX || batch.stream.len() > 64 {
        return Err(Problem::invalid(
            "/rows",
            "the batch is longer than a batch may be",
        ));
    }
    let id = server.id.clone();
    let (taken, operations) = app
        .store
        .write(move |c| {
            let taken = store::take_batch(c, &id, batch)?;
            let mut operations = Vec::new();
            for record in &taken.new {
                operations.extend(store::finish_operation_of_run(
                    c,
                    &id,
                    record,
                    crate::now(),
                )?);
            }
            Ok((taken, operations))
        })
        .await?;
    for record in &taken.new {
        app.live.end_task(&server.id, &record.id.to_string());
        app.events.send(
            "run.finished",
            json!({
                "id": record.id,
                "server": {"id": server.id, "name": server.name},
                "schedule": record.schedule,
                "state": record.state,
                "summary": record.summary,
            }),
        );
    }
    tell_operations(&app, &operations);
    if !taken.new.is_empty() {
        app.events
            .send("task.changed", json!({"server_id": server.id}));
    }
    Ok(Json(ResultsAnswer {
        acknowledged: taken.acknowledged,
    }))
}

fn tell_operations(app: &App, operations: &[CommandId]) {
    for id in operations {
        app.events.send("operation.changed", json!({"id": id}));
    }
}

/// Takes over what runs.
pub(crate) async fn progress(
    State(app): State<App>,
    Extension(server): Extension<Arc<Server>>,
    Body(report): Body<ProgressReport>,
) -> Result<StatusCode, Problem> {
    const TASKS_MAX: usize = 1000;
    let mut tasks = report.tasks;
    tasks.truncate(TASKS_MAX);
    match app.live.set_tasks(&server.id, tasks.clone(), Moment::now()) {
        TaskChange::Quiet => {}
        TaskChange::Tasks => app
            .events
            .send("task.changed", json!({"server_id": server.id})),
        TaskChange::Progress => {
            for task in &tasks {
                let task = crate::api::task_of(&server.id, server.name.as_str(), task);
                app.events.send("run.progress", json!(task));
            }
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes over how a server is.
pub(crate) async fn report(
    State(app): State<App>,
    Extension(server): Extension<Arc<Server>>,
    Body(report): Body<Report>,
) -> Result<StatusCode, Problem> {
    let id = server.id.clone();
    let schedules_told = report.schedules.is_some();
    let (changed, operations, listed) = app
        .store
        .write(move |c| {
            let server = store::server(c, &id)?;
            let now = crate::now();
            let mut operations = Vec::new();
            let mut listed: Vec<ScheduleName> = Vec::new();
            for command in &report.commands {
                operations.extend(store::apply_command_report(c, &id, command, now)?);
                listed.extend(command.listed.clone());
            }
            for schedule in &listed {
                let of_it: Vec<_> = report
                    .snapshots
                    .iter()
                    .filter(|snapshot| snapshot.schedule == *schedule)
                    .cloned()
                    .collect();
                store::replace_snapshots(c, &id, schedule, &of_it, now)?;
            }
            let changed = store::save_report(c, &server, report)?;
            Ok((changed, operations, listed))
        })
        .await?;
    if changed {
        app.events
            .send("server.status", json!({"server_id": server.id}));
    }
    if (changed && schedules_told) || !listed.is_empty() {
        app.events.send(
            "schedule.changed",
            json!({"server_id": server.id, "listed": listed}),
        );
    }
    tell_operations(&app, &operations);
    if !operations.is_empty() {
        app.events
            .send("task.changed", json!({"server_id": server.id}));
    }
    Ok(StatusCode::NO_CONTENT)
}
