//! How backups are reached: through a schedule of this server, or straight at a place with a key.

use std::path::{Path, PathBuf};

use clap::Args;
use model::{DestinationName, Exit, ScheduleName, Secret};
use ops::{Domain, OpenError, RepositoryError, ScheduleKey, Snapshot, StorePlace};
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
    #[arg(long, value_name = "PLACE", requires = "key_file")]
    repo: Option<String>,
    /// The file with the schedule's key, as 'key export' wrote it; "-" asks for it
    #[arg(long, value_name = "FILE", requires = "repo")]
    key_file: Option<PathBuf>,
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
    /// Where the backups are: a directory, or s3://BUCKET/PATH?endpoint=URL&region=NAME
    #[arg(long, value_name = "PLACE")]
    repo: String,
    /// The file with the key; "-" asks for it
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The file with access key id and secret access key, one line each or as TOML; asked for when
    /// not given
    #[arg(long, value_name = "FILE")]
    access_key_file: Option<PathBuf>,
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
        let (Some(repo), Some(key_file)) = (self.repo.clone(), self.key_file.clone()) else {
            return Err(Problem::new(Exit::Usage, "--key-file is missing"));
        };
        let access_key_file = self.access_key_file.clone();
        let repo = RepoArguments {
            repo,
            key_file,
            access_key_file,
        };
        repo.open()
    }
}

impl RepoArguments {
    /// Gives the path of the key file.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Opens the place.
    ///
    /// # Errors
    ///
    /// As [`PlaceArguments::open`].
    pub fn open(&self) -> Result<Domain, Problem> {
        let key = self.key()?;
        ops::open_domain(&self.place()?, &key).map_err(|error| open_problem(&error))
    }

    /// Reads the key.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is none.
    pub fn key(&self) -> Result<ScheduleKey, Problem> {
        let text = if self.key_file == Path::new("-") {
            prompt::secret("Schedule key: ")?
        } else {
            secrets::file(&self.key_file, "the schedule key")?
        };
        ScheduleKey::parse(text.reveal()).map_err(|error| {
            Problem::new(Exit::Usage, "cannot understand the schedule key")
                .because(&error)
                .hint("the key is the line that 'backstayctl key export SCHEDULE' shows")
        })
    }

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
    let exit = error.exit();
    let problem = Problem::new(exit, "cannot open the backups").because(error);
    match exit {
        Exit::NoRepository => {
            problem.hint("check the path; before its first run a schedule has no backups")
        }
        Exit::WrongKey => {
            problem.hint("each schedule has its own key: backstayctl key export SCHEDULE")
        }
        Exit::Unreachable => problem.hint("nothing was changed; try again when it can be reached"),
        Exit::Damage => problem.hint("read from another destination: --from NAME"),
        _ => problem,
    }
}

/// Gives the problem that an error of the engine is.
pub fn repository_problem(what: &str, error: &RepositoryError) -> Problem {
    let exit = error.exit();
    let problem = Problem::new(exit, what).because(error);
    match exit {
        Exit::Damage => problem.hint("try another destination with --from, or an older snapshot"),
        Exit::Unreachable => problem.hint("nothing was changed; try again when it can be reached"),
        _ => problem,
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
