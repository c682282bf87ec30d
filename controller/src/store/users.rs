//! People: users, sessions and the set-up token of the first run.

use model::Instant;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::password::Hashed;
use crate::problem::Problem;

/// A signed-in person.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) role: String,
}

/// A stored user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) password: Hashed,
}

fn hash(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}

/// True while no user exists.
pub(crate) fn needs_setup(connection: &Connection) -> Result<bool, Problem> {
    Ok(
        connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM user)", [], |row| {
            row.get(0)
        })?,
    )
}

/// True while a set-up token waits to be used.
pub(crate) fn has_setup_token(connection: &Connection) -> Result<bool, Problem> {
    Ok(connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'setup_token')",
        [],
        |row| row.get(0),
    )?)
}

/// Keeps the hash of a new set-up token; the one before it is void.
pub(crate) fn new_setup_token(connection: &Connection, token: &[u8]) -> Result<(), Problem> {
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('setup_token', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [hash(token)],
    )?;
    Ok(())
}

/// Uses up the set-up token: true when it was the right one.
pub(crate) fn take_setup_token(connection: &Connection, token: &[u8]) -> Result<bool, Problem> {
    let taken = connection.execute(
        "DELETE FROM meta WHERE key = 'setup_token' AND value = ?1",
        [hash(token)],
    )?;
    Ok(taken > 0)
}

/// Adds a user.
pub(crate) fn add_user(
    connection: &Connection,
    id: &str,
    name: &str,
    password: &Hashed,
    now: Instant,
) -> Result<(), Problem> {
    connection.execute(
        "INSERT INTO user (id, name, role, salt, hash, created_at)
         VALUES (?1, ?2, 'root', ?3, ?4, ?5)",
        params![id, name, password.salt, password.hash, now.micros()],
    )?;
    Ok(())
}

/// Finds a user by name.
pub(crate) fn user_by_name(connection: &Connection, name: &str) -> Result<Option<User>, Problem> {
    Ok(connection
        .query_row(
            "SELECT id, salt, hash FROM user WHERE name = ?1",
            [name],
            |row| {
                Ok(User {
                    id: row.get(0)?,
                    password: Hashed {
                        salt: row.get(1)?,
                        hash: row.get(2)?,
                    },
                })
            },
        )
        .optional()?)
}

/// Keeps a session by the hash of its cookie, and forgets those that ended.
pub(crate) fn add_session(
    connection: &Connection,
    cookie: &[u8],
    user_id: &str,
    now: Instant,
    expires_at: Instant,
) -> Result<(), Problem> {
    connection.execute("DELETE FROM session WHERE expires_at <= ?1", [now.micros()])?;
    connection.execute(
        "INSERT INTO session (hash, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![hash(cookie), user_id, now.micros(), expires_at.micros()],
    )?;
    Ok(())
}

/// Finds the session of a cookie.
pub(crate) fn session(
    connection: &Connection,
    cookie: &[u8],
    now: Instant,
) -> Result<Option<Session>, Problem> {
    Ok(connection
        .query_row(
            "SELECT user.id, user.name, user.role FROM session
             JOIN user ON user.id = session.user_id
             WHERE session.hash = ?1 AND session.expires_at > ?2",
            params![hash(cookie), now.micros()],
            |row| {
                Ok(Session {
                    user_id: row.get(0)?,
                    name: row.get(1)?,
                    role: row.get(2)?,
                })
            },
        )
        .optional()?)
}

/// Ends a session.
pub(crate) fn delete_session(connection: &Connection, cookie: &[u8]) -> Result<(), Problem> {
    connection.execute("DELETE FROM session WHERE hash = ?1", [hash(cookie)])?;
    Ok(())
}
