//! `backstay-agentd load`: one connection of the load socket, on standard input and output.

use model::Exit;
use sources::{LoadServer, MariaDb, serve_load};

use super::dump::{answer, database_socket};

/// Serves the connection.
pub(super) fn serve() -> Exit {
    answer("load", |input, output| {
        let service = LoadServer {
            server: MariaDb {
                socket: database_socket(),
                ..MariaDb::for_load()
            },
            ..LoadServer::default()
        };
        serve_load(&service, input, output)
    })
}
