//! Schedules: those that the controller holds, and, to read, those of the server's own files.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::RunRecord;
use protocol::ScheduleReport;
use serde_json::json;

use super::Body;
use super::shape::{LastRun, OriginWord, Page, ScheduleItem};
use crate::agents::issuer;
use crate::problem::{Problem, ProblemView};
use crate::schedule::ScheduleInput;
use crate::server::App;
use crate::store::{self, Server, Stored};

/// Shows a schedule that the controller holds.
fn held(
    input: &ScheduleInput,
    server: &Server,
    last: Option<&RunRecord>,
) -> Result<ScheduleItem, Problem> {
    let reported = server
        .reported
        .schedules
        .iter()
        .find(|report| report.name == input.name);
    Ok(ScheduleItem {
        name: input.name.as_str().to_owned(),
        enabled: input.enabled,
        origin: OriginWord::Controller,
        scope: input.scope.into(),
        accounts: input.accounts.clone(),
        when: input.when.clone(),
        destinations: input
            .destinations
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect(),
        keep: input.keep.clone(),
        compression: input.compression,
        exclude: input.exclude.clone(),
        toml: input.toml()?,
        next_run_at: reported
            .and_then(|report| report.next_run_at)
            .map(|at| at.to_string()),
        last_run: last.map(LastRun::from),
    })
}

/// Shows a schedule of the server's own files.
fn local(report: &ScheduleReport, last: Option<&RunRecord>) -> ScheduleItem {
    let input = ScheduleInput::from_toml(&report.name, report.scope, &report.toml);
    ScheduleItem {
        name: report.name.as_str().to_owned(),
        enabled: report.enabled,
        origin: OriginWord::Server,
        scope: report.scope.into(),
        accounts: input.accounts,
        when: input.when,
        destinations: input.destinations.into_iter().map(String::from).collect(),
        keep: input.keep,
        compression: input.compression,
        exclude: input.exclude,
        toml: report.toml.clone(),
        next_run_at: report.next_run_at.map(|at| at.to_string()),
        last_run: last.map(LastRun::from),
    }
}

fn is_local(report: &ScheduleReport) -> bool {
    report.origin == protocol::Origin::Server
}

/// Lists the schedules of a server by name.
#[utoipa::path(get, path = "/api/v1/servers/{id}/schedules", tag = "schedules",
    params(("id" = String, Path, description = "The server")),
    responses((status = 200, body = Page<ScheduleItem>), (status = 404, body = ProblemView)))]
pub(crate) async fn list_schedules(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Page<ScheduleItem>>, Problem> {
    let (server, stored, last) = app
        .store
        .read(move |c| {
            Ok((
                store::server(c, &id)?,
                store::schedules(c, &id)?,
                store::last_runs(c, &id)?,
            ))
        })
        .await?;
    let mut items = Vec::new();
    for Stored { input, .. } in &stored {
        items.push(held(input, &server, last.get(input.name.as_str()))?);
    }
    for report in server
        .reported
        .schedules
        .iter()
        .filter(|report| is_local(report))
    {
        if !stored.iter().any(|stored| stored.input.name == report.name) {
            items.push(local(report, last.get(report.name.as_str())));
        }
    }
    items.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Page {
        items,
        next_cursor: None,
    }))
}

/// Creates a schedule; the server gets it at its next poll.
#[utoipa::path(post, path = "/api/v1/servers/{id}/schedules", tag = "schedules", request_body = ScheduleInput,
    params(("id" = String, Path, description = "The server")),
    responses((status = 201, body = ScheduleItem), (status = 404, body = ProblemView),
              (status = 409, description = "code `name_taken`", body = ProblemView), (status = 422, body = ProblemView)))]
pub(crate) async fn create_schedule(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(input): Body<ScheduleInput>,
) -> Result<Response, Problem> {
    input.check()?;
    let server = app.store.read(move |c| store::server(c, &id)).await?;
    let taken = |report: &ScheduleReport| is_local(report) && report.name == input.name;
    if server.reported.schedules.iter().any(taken) {
        return Err(Problem::conflict(
            "name_taken",
            format!(
                "a file on the server has a schedule named {} already",
                input.name
            ),
        ));
    }
    let (issuer, kept) = (issuer(&app, &server), input.clone());
    app.store
        .write(move |c| store::insert_schedule(c, &issuer, &kept))
        .await?;
    tell(&app, &server, input.name.as_str());
    let item = held(&input, &server, None)?;
    Ok((StatusCode::CREATED, etag(1), Json(item)).into_response())
}

/// Shows one schedule.
#[utoipa::path(get, path = "/api/v1/servers/{id}/schedules/{name}", tag = "schedules",
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule")),
    responses((status = 200, body = ScheduleItem, headers(("ETag" = String))), (status = 404, body = ProblemView)))]
pub(crate) async fn show_schedule(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let wanted = name.clone();
    let (server, stored, last) = app
        .store
        .read(move |c| {
            Ok((
                store::server(c, &id)?,
                store::schedule(c, &id, &wanted)?,
                store::last_runs(c, &id)?,
            ))
        })
        .await?;
    let last = last.get(&name);
    if let Some(stored) = stored {
        let item = held(&stored.input, &server, last)?;
        return Ok((etag(stored.revision), Json(item)).into_response());
    }
    let report = server
        .reported
        .schedules
        .iter()
        .find(|report| is_local(report) && report.name.as_str() == name)
        .ok_or_else(|| Problem::not_found("schedule"))?;
    Ok(Json(local(report, last)).into_response())
}

/// Replaces a schedule; needs the `ETag` of what it replaces.
#[utoipa::path(put, path = "/api/v1/servers/{id}/schedules/{name}", tag = "schedules", request_body = ScheduleInput,
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule"),
           ("If-Match" = String, Header, description = "The ETag of what is replaced")),
    responses((status = 200, body = ScheduleItem, headers(("ETag" = String))), (status = 404, body = ProblemView),
              (status = 409, description = "code `read_only`: a file on the server holds it", body = ProblemView),
              (status = 412, description = "code `changed`: someone else changed it", body = ProblemView),
              (status = 422, body = ProblemView), (status = 428, body = ProblemView)))]
pub(crate) async fn replace_schedule(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(input): Body<ScheduleInput>,
) -> Result<Response, Problem> {
    if input.name.as_str() != name {
        return Err(Problem::invalid(
            "/name",
            "a schedule cannot be renamed; create another one",
        ));
    }
    input.check()?;
    let revision = wanted_revision(&headers)?;
    let server = writable(&app, id, &name).await?;
    let (issuer, kept) = (issuer(&app, &server), input.clone());
    let revision = app
        .store
        .write(move |c| store::update_schedule(c, &issuer, &kept, revision))
        .await?
        .ok_or_else(changed)?;
    tell(&app, &server, &name);
    let item = held(&input, &server, None)?;
    Ok((etag(revision), Json(item)).into_response())
}

/// Removes a schedule from the server; its snapshots stay.
#[utoipa::path(delete, path = "/api/v1/servers/{id}/schedules/{name}", tag = "schedules",
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule"),
           ("If-Match" = String, Header, description = "The ETag of what is removed")),
    responses((status = 204), (status = 404, body = ProblemView),
              (status = 409, description = "code `read_only`", body = ProblemView),
              (status = 412, description = "code `changed`", body = ProblemView), (status = 428, body = ProblemView)))]
pub(crate) async fn remove_schedule(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let revision = wanted_revision(&headers)?;
    let server = writable(&app, id, &name).await?;
    let (issuer, removed) = (issuer(&app, &server), name.clone());
    let done = app
        .store
        .write(move |c| store::delete_schedule(c, &issuer, &removed, revision))
        .await?;
    if !done {
        return Err(changed());
    }
    tell(&app, &server, &name);
    Ok(StatusCode::NO_CONTENT)
}

fn etag(revision: i64) -> [(header::HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{revision}\""));
    // Digits and quotes are always a header value.
    let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
    [(header::ETAG, value)]
}

fn wanted_revision(headers: &HeaderMap) -> Result<i64, Problem> {
    let value = headers.get(header::IF_MATCH).ok_or_else(|| {
        Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "if_match_required",
            "send the ETag of the schedule as If-Match",
        )
    })?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok())
        .ok_or_else(changed)
}

fn changed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "changed",
        "the schedule was changed meanwhile; load it again",
    )
}

/// Gives the server when the controller holds the schedule.
async fn writable(app: &App, id: String, name: &str) -> Result<Server, Problem> {
    let wanted = name.to_owned();
    let (server, stored) = app
        .store
        .read(move |c| {
            let stored = store::schedule(c, &id, &wanted)?;
            Ok((store::server(c, &id)?, stored))
        })
        .await?;
    let known = |report: &ScheduleReport| is_local(report) && report.name.as_str() == name;
    match stored {
        Some(_) => Ok(server),
        None if server.reported.schedules.iter().any(known) => Err(Problem::conflict(
            "read_only",
            "this schedule is in a file on the server; change it there",
        )),
        None => Err(Problem::not_found("schedule")),
    }
}

fn tell(app: &App, server: &Server, name: &str) {
    app.live.ring(&server.id);
    app.events.send(
        "schedule.changed",
        json!({"server_id": server.id, "name": name}),
    );
}
