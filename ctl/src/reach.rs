//! How backups are reached: through a schedule of this server, or straight at a place with a key.

use std::path::{Path, PathBuf};

use clap::Args;
use edge::StoreFault;
use model::{DestinationName, Exit, ScheduleName, Secret};
use ops::{Domain, OpenError, RepositoryError, ScheduleKey, Snapshot, StorePlace, Unlock};
use settings::{Credential, Destination};

use crate::configuration;
use crate::credentials;
use crate::key;
use crate::problem::Problem;
use crate::prompt;
use crate::secrets;
use crate::server::Server;

/// A place and what opens it, given on the command line.
#[derive(Debug, Args)]
pub struct PlaceArguments {
    /// Read backups straight from here, without an agent: a directory, or
    /// s3://BUCKET/PATH?endpoint=URL&region=NAME
    #[arg(long, value_name = "PLACE")]
    repo: Option<String>,
    /// The file with the schedule's key, as 'key export' wrote it; "-" asks for it
    #[arg(long, value_name = "FILE", requires = "repo")]
    key_file: Option<PathBuf>,
    /// The file with the password; it is asked for when no key is given either
    #[arg(
        long,
        value_name = "FILE",
        requires = "repo",
        conflicts_with = "key_file"
    )]
    password_file: Option<PathBuf>,
    /// The backups are not encrypted: open them with the key that everybody knows
    #[arg(long, requires = "repo", conflicts_with_all = ["key_file", "password_file"])]
    no_encryption: bool,
    /// The file with access key id and secret access key, one line each or as TOML; asked for when
    /// not given
    #[arg(long, value_name = "FILE", requires = "repo")]
    access_key_file: Option<PathBuf>,
}

/// One place where snapshots of one key may be.
pub struct Reached {
    /// The destination's name, when it is one of this server's.
    pub destination: Option<DestinationName>,
    /// The domain, or why it cannot be opened.
    pub domain: Result<Domain, Problem>,
}

/// The same for verbs that need no server at all.
#[derive(Debug, Clone, Args)]
pub struct RepoArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// The file with the key; "-" asks for it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The file with the password; it is asked for when no key is given either
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    password_file: Option<PathBuf>,
    /// The backups are not encrypted: open them with the key that everybody knows
    #[arg(long, conflicts_with_all = ["key_file", "password_file"])]
    no_encryption: bool,
}

/// A place alone.
#[derive(Debug, Clone, Args)]
pub struct SiteArguments {
    /// Where the backups are: a directory, or s3://BUCKET/PATH?endpoint=URL&region=NAME
    #[arg(long, value_name = "PLACE")]
    repo: String,
    /// The file with access key id and secret access key, one line each or as TOML; asked for when
    /// not given
    #[arg(long, value_name = "FILE")]
    access_key_file: Option<PathBuf>,
}

/// What opens backups.
pub enum Opener {
    /// A key.
    Key(ScheduleKey),
    /// A password.
    Password(Secret),
}

impl Opener {
    /// Gives it as the engine takes it.
    pub const fn unlock(&self) -> Unlock<'_> {
        match self {
            Self::Key(key) => Unlock::Key(key),
            Self::Password(password) => Unlock::Password(password),
        }
    }
}

impl PlaceArguments {
    /// True when a place was given, so that nothing of this server is looked at.
    pub const fn is_given(&self) -> bool {
        self.repo.is_some()
    }

    /// Opens the place that was given.
    ///
    /// # Errors
    ///
    /// When place or key are not understood, the place cannot be reached, or the key is another's.
    pub fn open(&self) -> Result<Domain, Problem> {
        let Some(repo) = self.repo.clone() else {
            return Err(Problem::new(Exit::Usage, "--repo is missing"));
        };
        let access_key_file = self.access_key_file.clone();
        let repo = RepoArguments {
            site: SiteArguments {
                repo,
                access_key_file,
            },
            key_file: self.key_file.clone(),
            password_file: self.password_file.clone(),
            no_encryption: self.no_encryption,
        };
        repo.open()
    }
}

impl RepoArguments {
    /// Gives another place that the same key opens.
    pub fn elsewhere(&self, repo: &str, access_key_file: Option<&PathBuf>) -> Self {
        Self {
            site: SiteArguments {
                repo: repo.to_owned(),
                access_key_file: access_key_file.cloned(),
            },
            ..self.clone()
        }
    }

    /// Gives the path of the key file, when there is to be one.
    pub fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }

    /// True when nothing was given that opens the place.
    pub const fn asks_for_password(&self) -> bool {
        self.key_file.is_none() && self.password_file.is_none() && !self.no_encryption
    }

    /// Opens the place.
    ///
    /// # Errors
    ///
    /// As [`PlaceArguments::open`].
    pub fn open(&self) -> Result<Domain, Problem> {
        let opener = self.opener()?;
        ops::open_domain_with(&self.place()?, &opener.unlock())
            .map_err(|error| open_problem_by_hand(&error))
    }

    /// Reads the key or password.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is none.
    pub fn opener(&self) -> Result<Opener, Problem> {
        if self.no_encryption {
            return Ok(Opener::Key(ScheduleKey::published()));
        }
        match (&self.key_file, &self.password_file) {
            (Some(file), _) => key::read(file).map(Opener::Key),
            (None, Some(file)) => secrets::file(file, "the password").map(Opener::Password),
            (None, None) => prompt::secret("Password: ").map(Opener::Password),
        }
    }

    /// Reads where it is, and what is needed to get there.
    ///
    /// # Errors
    ///
    /// As [`SiteArguments::place`].
    pub fn place(&self) -> Result<StorePlace, Problem> {
        self.site.place()
    }
}

impl SiteArguments {
    /// Reads where it is, and what is needed to get there.
    ///
    /// # Errors
    ///
    /// When it is not understood, or the access key cannot be read.
    pub fn place(&self) -> Result<StorePlace, Problem> {
        let credential = self.credential()?;
        StorePlace::parse(&self.repo, credential.as_ref()).map_err(|error| {
            Problem::new(Exit::Usage, "cannot understand --repo")
                .because(&error)
                .hint("--repo /srv/backup")
                .hint("--repo 's3://BUCKET/PATH?endpoint=https://s3.example.net'")
        })
    }

    fn credential(&self) -> Result<Option<Secret>, Problem> {
        if !self.repo.starts_with("s3://") {
            return Ok(None);
        }
        let credential = match &self.access_key_file {
            Some(path) => secrets::access_key(path)?,
            None => secrets::ask_access_key()?,
        };
        Ok(Some(credential.to_text()))
    }
}

/// Opens the destinations of a schedule of this server, or the one that is named.
///
/// # Errors
///
/// When there is no such schedule or destination, or its key cannot be read. A destination that
/// cannot be opened is given with its problem.
pub fn of_schedule(
    server: &Server,
    name: &ScheduleName,
    only: Option<&DestinationName>,
) -> Result<Vec<Reached>, Problem> {
    server.as_root("reading backups of this server")?;
    let settings = configuration::load(server)?;
    let schedule = configuration::schedule(&settings, name)?;
    let key = key::load(server, name)?;
    let wanted = |destination: &&Destination| only.is_none_or(|only| destination.name == *only);
    let reached: Vec<Reached> = settings
        .destinations_of(schedule)
        .filter(wanted)
        .map(|destination| Reached {
            destination: Some(destination.name.clone()),
            domain: open(server, destination, &key),
        })
        .collect();
    match (reached.is_empty(), only) {
        (true, Some(only)) => Err(Problem::new(
            Exit::Failed,
            format!("schedule {name} has no destination {only}"),
        )
        .hint(format!("backstayctl schedule show {name}"))),
        _ => Ok(reached),
    }
}

fn open(server: &Server, destination: &Destination, key: &ScheduleKey) -> Result<Domain, Problem> {
    let name = &destination.name;
    let secret = match &destination.credential {
        Credential::None => None,
        Credential::Sealed(sealed) => {
            let id = format!("destination-{sealed}");
            let path = server.credential_store().join(format!("{id}.cred"));
            let bytes = credentials::decrypt(&id, &path)
                .map_err(|problem| problem.hint(format!("backstayctl credential set {sealed}")))?;
            Some(Secret::new(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Credential::File(path) => Some(secrets::file(path, "the credential")?),
    };
    let place = StorePlace::new(&destination.place, secret.as_ref()).map_err(|error| {
        Problem::new(
            Exit::BadConfiguration,
            format!("cannot use destination {name}"),
        )
        .because(&error)
        .hint(format!("backstayctl credential set {name}"))
    })?;
    ops::open_domain(&place, key).map_err(|error| open_problem(&error))
}

/// Gives the problem that it is when a place cannot be opened.
pub fn open_problem(error: &OpenError) -> Problem {
    if let OpenError::Repository(error) = error {
        return repository_problem("cannot open the backups", error);
    }
    let exit = error.exit();
    let problem = Problem::new(exit, "cannot open the backups").because(error);
    match exit {
        Exit::NoRepository => problem.hint(NO_REPOSITORY),
        Exit::Unreachable => problem.hint(UNREACHABLE),
        _ => problem,
    }
}

/// As [`open_problem`], for who may as well give a password.
pub fn open_problem_by_hand(error: &OpenError) -> Problem {
    let problem = open_problem(error);
    match error {
        OpenError::Repository(RepositoryError::WrongKey { .. }) => {
            problem.hint("with a password, give --password-file instead of --key-file")
        }
        _ => problem,
    }
}

const NO_REPOSITORY: &str = "check the path; before its first run a schedule has no backups";
const UNREACHABLE: &str = "nothing was changed; try again when it can be reached";

/// Gives the problem that an error of the engine is.
pub fn repository_problem(what: &str, error: &RepositoryError) -> Problem {
    let exit = error.exit();
    let problem = Problem::new(exit, what).because(error);
    match error {
        RepositoryError::WrongKey { .. } => {
            problem.hint("each schedule has its own key: backstayctl key export SCHEDULE")
        }
        RepositoryError::WrongPassword { .. } => {
            problem.hint("upper and lower case matter; a key is given with --key-file")
        }
        RepositoryError::KeyGone { .. } => {
            problem.hint("give the key that took its place; backstayctl repo key list shows all")
        }
        RepositoryError::NoRight { .. } => problem
            .hint("give a key that may do it; backstayctl repo key list shows what each one may"),
        RepositoryError::Version { .. } | RepositoryError::Newer { .. } => {
            problem.hint("nothing was changed; use a newer version of Backstay")
        }
        RepositoryError::Store(error) if error.fault == StoreFault::Full => {
            problem.hint("make room there, or let snapshots go and prune")
        }
        RepositoryError::Damaged { object, .. } if object.as_str() == "repository" => problem.hint(
            "its content is {\"format\":\"backstay-repository\",\"version\":1}; write that to it",
        ),
        RepositoryError::Damaged { object, .. } if object.as_str().starts_with("k/") => problem
            .hint("another key or password of these backups opens them, and can make a new slot")
            .hint("backups at another destination have slots of their own: --repo PLACE"),
        RepositoryError::Damaged { object, .. } => match damaged_part(object.as_str()) {
            Some(hints) => hints
                .iter()
                .fold(problem, |problem, hint| problem.hint(*hint)),
            None => problem.hint("try another destination with --from, or an older snapshot"),
        },
        _ => match exit {
            Exit::NoRepository => problem.hint(NO_REPOSITORY),
            Exit::Damage => {
                problem.hint("try another destination with --from, or an older snapshot")
            }
            Exit::Unreachable => problem.hint(UNREACHABLE),
            _ => problem,
        },
    }
}

/// Says what to do about a damaged object that nothing but a person may take away.
fn damaged_part(object: &str) -> Option<&'static [&'static str]> {
    let last = object.rsplit('/').next().unwrap_or_default();
    match object.split('/').nth(2) {
        Some("s") => Some(&[
            "backstayctl repo verify --heal-from PLACE, when there is a copy at another destination",
            "backstayctl repo forget --damaged, which deletes it for good",
        ]),
        Some(_) if last.starts_with("trash-") => Some(&[
            "backstayctl repo forget --damaged, which deletes it for good; nobody can have it back",
        ]),
        Some(_) if last.starts_with("pin-") => {
            Some(&["backstayctl repo unpin --damaged, and pin again what must stay"])
        }
        _ => None,
    }
}

/// Finds a snapshot by `latest`, its id, or the beginning of its id.
///
/// # Errors
///
/// When there is none or more than one, or the list cannot be read.
pub fn snapshot(domain: &Domain, word: &str) -> Result<Snapshot, Problem> {
    let place = domain.place();
    let list = domain
        .snapshots()
        .map_err(|error| repository_problem("cannot list the snapshots", &error))?;
    if word == "latest" {
        return list.snapshots.into_iter().next_back().ok_or_else(|| {
            Problem::new(
                Exit::Failed,
                format!("{place} holds no snapshot of this schedule"),
            )
        });
    }
    let mut found: Vec<Snapshot> = list
        .snapshots
        .into_iter()
        .filter(|snapshot| snapshot.id.to_string().starts_with(word))
        .collect();
    match (found.pop(), found.len()) {
        (Some(snapshot), 0) => Ok(snapshot),
        (None, _) => Err(Problem::new(
            Exit::Failed,
            format!(
                "{place} holds no snapshot {:?}",
                model::escape(word.as_bytes())
            ),
        )
        .hint("backstayctl snapshots, or \"latest\"")),
        (Some(_), others) => Err(Problem::new(
            Exit::Usage,
            format!(
                "{} snapshots begin with {word:?}: give more digits",
                others + 1
            ),
        )),
    }
}
