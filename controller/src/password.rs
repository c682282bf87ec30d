//! Passwords: argon2id, few at a time, and the same work for names that do not exist.

use argon2::{Algorithm, Argon2, Params, Version};
use axum::http::StatusCode;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// How many passwords are hashed at once: each takes 64 MiB while it lasts.
const AT_ONCE_MAX: usize = 2;
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;

/// The shortest password that is accepted, in characters.
pub(crate) const LENGTH_MIN: usize = 10;
/// The longest password that is read, in bytes.
pub(crate) const LENGTH_MAX: usize = 1024;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// A stored password.
#[derive(Debug, Clone)]
pub(crate) struct Hashed {
    pub(crate) salt: Vec<u8>,
    pub(crate) hash: Vec<u8>,
}

/// Hashes a new password.
pub(crate) async fn hash(password: String) -> Result<Hashed, Problem> {
    let salt = crate::random::<16>()?;
    let hash = derive(password, salt.to_vec()).await?;
    Ok(Hashed {
        salt: salt.to_vec(),
        hash,
    })
}

/// Compares a password with a stored one. Without a stored one it does the same work and says no.
pub(crate) async fn verify(password: String, stored: Option<Hashed>) -> Result<bool, Problem> {
    let exists = stored.is_some();
    let stored = stored.unwrap_or_else(|| Hashed {
        salt: vec![0; 16],
        hash: vec![0; 32],
    });
    let given = derive(password, stored.salt).await?;
    Ok(bool::from(given.ct_eq(&stored.hash)) && exists)
}

async fn derive(password: String, salt: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let password = zeroize::Zeroizing::new(password);
    let turn = TURNS.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32))?;
        let mut out = vec![0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
            password.as_bytes(),
            &salt,
            &mut out,
        )?;
        Ok::<_, argon2::Error>(out)
    })
    .await;
    drop(turn);
    let failed = || {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "hashing the password failed",
        )
    };
    done.map_err(|_| failed())?.map_err(|_| failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_name_passes() {
        let stored = hash("correct horse".into()).await.unwrap();
        assert!(
            verify("correct horse".into(), Some(stored.clone()))
                .await
                .unwrap()
        );
        assert!(!verify("wrong horse".into(), Some(stored)).await.unwrap());
        assert!(!verify("correct horse".into(), None).await.unwrap());
    }
}
