//! A port of a host, reached from this machine: the lab's network has no way in or out but this one.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fault::{Doing, Result};
use crate::host::Host;
use crate::record::namespace_name;

impl Host {
    /// Opens a port on this machine's loopback whose connections go to `port` of the host; gives its address.
    ///
    /// `wanted` is taken when it is free, another one otherwise. The port stays open until this process ends.
    ///
    /// # Errors
    ///
    /// When no port can be opened or the host's network cannot be entered.
    pub fn forward(&self, port: u16, wanted: Option<u16>) -> Result<SocketAddr> {
        let doing = || format!("forwarding port {port} of {}", self.name());
        let listener = TcpListener::bind(("127.0.0.1", wanted.unwrap_or(0)))
            .or_else(|_| TcpListener::bind("127.0.0.1:0"))
            .doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let namespace = namespace_name(self.shared.record.id(), self.name());
        let namespace = std::fs::File::open(format!("/run/netns/{namespace}")).doing(doing)?;
        // The listener stays in this machine's network; the thread that serves it, and the threads that it starts, move
        // to the host's.
        let (moved, has_moved) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let result =
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
            let is_there = result.is_ok();
            if moved.send(result).is_ok() && is_there {
                serve(&listener, port);
            }
        });
        has_moved.recv().doing(doing)?.doing(doing)?;
        Ok(address)
    }
}

fn serve(listener: &TcpListener, port: u16) {
    for near in listener.incoming().flatten() {
        thread::spawn(move || {
            // A host that is off, or a peer that hangs up, ends this one connection.
            join(near, port).ok();
        });
    }
}

fn join(near: TcpStream, port: u16) -> io::Result<()> {
    let far = Arc::new(TcpStream::connect(("127.0.0.1", port))?);
    let near = Arc::new(near);
    let (to, from) = (far.clone(), near.clone());
    let back = thread::spawn(move || copy(&far, &near));
    copy(&from, &to)?;
    back.join().unwrap_or(Ok(()))
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
