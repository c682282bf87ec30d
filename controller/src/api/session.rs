//! First run, signing in and out.

use std::net::SocketAddr;
use std::time::Instant as Moment;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Body, created, new_id};
use crate::authorize::{COOKIE, cookie};
use crate::password::{LENGTH_MAX, LENGTH_MIN};
use crate::problem::{Problem, ProblemView};
use crate::server::App;
use crate::{password, store};

/// How long a session lasts: a working day.
const SESSION_SECS: i64 = 12 * 3600;
const NAME_CHARS_MAX: usize = 64;

/// Whether the first user is still to be made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SetupState {
    needed: bool,
}

/// The first user, with the one-time token from the controller's terminal or journal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetupInput {
    token: String,
    name: String,
    password: String,
}

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    name: String,
    password: String,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserView {
    id: String,
    name: String,
    role: String,
}

/// Who is signed in, and where.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    user: UserView,
    /// The version of the controller.
    version: String,
}

impl SessionView {
    fn new(id: String, name: String, role: String) -> Self {
        Self {
            user: UserView { id, name, role },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Says whether the first user is still to be made.
#[utoipa::path(get, path = "/api/v1/setup", tag = "session",
    responses((status = 200, body = SetupState)))]
pub(crate) async fn setup_state(State(app): State<App>) -> Result<Json<SetupState>, Problem> {
    let needed = app.store.read(store::needs_setup).await?;
    Ok(Json(SetupState { needed }))
}

/// Makes the first user and signs in.
#[utoipa::path(post, path = "/api/v1/setup", tag = "session", request_body = SetupInput,
    responses((status = 201, body = SessionView),
              (status = 403, description = "code `wrong_token`", body = ProblemView),
              (status = 409, description = "code `set_up`", body = ProblemView),
              (status = 422, body = ProblemView)))]
pub(crate) async fn set_up(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(input): Body<SetupInput>,
) -> Result<Response, Problem> {
    check_delay(&app, peer, "")?;
    let name = check_name(&input.name)?;
    check_password(&input.password)?;
    if !app.store.read(store::needs_setup).await? {
        return Err(Problem::conflict(
            "set_up",
            "the first user exists already; sign in",
        ));
    }
    let hashed = password::hash(input.password).await?;
    let id = new_id("usr")?;
    let (user_id, user_name) = (id.clone(), name.clone());
    let token = input.token.trim().to_ascii_lowercase();
    let done = app
        .store
        .write(move |c| {
            if !store::needs_setup(c)? {
                return Err(Problem::conflict("set_up", "the first user exists already; sign in"));
            }
            if !store::take_setup_token(c, token.as_bytes())? {
                let detail = "this set-up token is not valid; print a fresh one with \"backstay-controller setup-token\"";
                let mut problem = Problem::new(StatusCode::FORBIDDEN, "wrong_token", detail);
                problem.errors = Problem::invalid("/token", detail).errors;
                return Err(problem);
            }
            store::add_user(c, &user_id, &user_name, &hashed, crate::now())
        })
        .await;
    if let Err(problem) = done {
        if problem.code == "wrong_token" {
            app.throttle.failed(peer.ip(), "", Moment::now());
        }
        return Err(problem);
    }
    tracing::info!(name, %peer, "the first user was made");
    let session = begin(&app, &id).await?;
    let view = SessionView::new(id, name, "root".to_owned());
    Ok((session, created(view)).into_response())
}

/// Signs in.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SignIn,
    responses((status = 201, body = SessionView),
              (status = 401, description = "code `wrong_password`: name or password is wrong", body = ProblemView),
              (status = 429, body = ProblemView)))]
pub(crate) async fn sign_in(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(input): Body<SignIn>,
) -> Result<Response, Problem> {
    let name = input.name.trim().to_owned();
    check_delay(&app, peer, &name)?;
    if input.password.len() > LENGTH_MAX {
        return Err(wrong_password());
    }
    let wanted = name.clone();
    let user = app
        .store
        .read(move |c| store::user_by_name(c, &wanted))
        .await?;
    let stored = user.as_ref().map(|user| user.password.clone());
    let right = password::verify(input.password, stored).await?;
    let (true, Some(user)) = (right, user) else {
        app.throttle.failed(peer.ip(), &name, Moment::now());
        tracing::info!(%peer, "signing in failed");
        return Err(wrong_password());
    };
    app.throttle.succeeded(peer.ip(), &name);
    let session = begin(&app, &user.id).await?;
    let view = SessionView::new(user.id, name, "root".to_owned());
    Ok((session, created(view)).into_response())
}

/// Says who is signed in.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionView), (status = 401, description = "code `signed_out`", body = ProblemView)))]
pub(crate) async fn show_session(
    Extension(session): Extension<store::Session>,
) -> Json<SessionView> {
    Json(SessionView::new(
        session.user_id,
        session.name,
        session.role,
    ))
}

/// Signs out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session",
    responses((status = 204)))]
pub(crate) async fn sign_out(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(cookie) = cookie(&headers) {
        app.store
            .write(move |c| store::delete_session(c, &cookie))
            .await?;
    }
    Ok((StatusCode::NO_CONTENT, cookie_header("", 0)).into_response())
}

fn wrong_password() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "wrong_password",
        "name or password is wrong",
    )
}

fn check_delay(app: &App, peer: SocketAddr, name: &str) -> Result<(), Problem> {
    match app.throttle.delay(peer.ip(), name, Moment::now()) {
        Some(wait) => Err(Problem::too_many(
            wait.as_secs().saturating_add(1),
            "too many failed attempts; wait a little",
        )),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && !name.chars().any(char::is_control) {
        Ok(name.to_owned())
    } else {
        Err(Problem::invalid(
            "/name",
            "use 1 to 64 printable characters",
        ))
    }
}

fn check_password(password: &str) -> Result<(), Problem> {
    if password.chars().count() < LENGTH_MIN {
        return Err(Problem::invalid("/password", "use at least 10 characters"));
    }
    if password.len() > LENGTH_MAX {
        return Err(Problem::invalid("/password", "use at most 1024 bytes"));
    }
    Ok(())
}

async fn begin(
    app: &App,
    user_id: &str,
) -> Result<[(header::HeaderName, HeaderValue); 1], Problem> {
    let token = crate::random::<32>()?;
    let now = crate::now();
    let user_id = user_id.to_owned();
    app.store
        .write(move |c| store::add_session(c, &token, &user_id, now, now.plus_secs(SESSION_SECS)))
        .await?;
    Ok(cookie_header(&BASE64URL_NOPAD.encode(&token), SESSION_SECS))
}

fn cookie_header(value: &str, max_age: i64) -> [(header::HeaderName, HeaderValue); 1] {
    let text =
        format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={max_age}");
    // Base64url and digits are always a header value.
    let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    [(header::SET_COOKIE, value)]
}
