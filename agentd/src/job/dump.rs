//! `backstay-agentd dump`: one connection of the dump socket, on standard input and output.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use model::Exit;
use settings::{Folders, HostingLayout, Settings};
use sources::{MariaDb, ServeError, serve_dump};

/// Serves the connection.
pub(super) fn serve() -> Exit {
    answer("dump", |input, output| {
        let server = MariaDb {
            socket: database_socket(),
            ..MariaDb::for_dump()
        };
        serve_dump(&server, input, output)
    })
}

/// Runs a service between standard input and output and reports its failure.
pub(super) fn answer(
    what: &str,
    serve: impl FnOnce(File, &mut File) -> Result<(), ServeError>,
) -> Exit {
    let served = both_ends()
        .map_err(ServeError::Peer)
        .and_then(|(input, mut output)| serve(input, &mut output));
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(cause, "{what} failed: {error}");
            Exit::Failed
        }
    }
}

fn both_ends() -> io::Result<(File, File)> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((File::from(input), File::from(output)))
}

/// The socket of the hosting layout. Faults of other settings are reported where they matter;
/// here they only leave the usual place.
pub(super) fn database_socket() -> PathBuf {
    let settings = Settings::load(&Folders::below(Path::new("/"))).unwrap_or_default();
    settings
        .agent
        .hosting
        .mariadb_socket
        .or_else(|| HostingLayout::default().mariadb_socket)
        .unwrap_or_default()
}
